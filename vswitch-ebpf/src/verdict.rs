//! What was decided for one frame, and the name of every reason to drop one.

use bytemuck::NoUninit;

use crate::abi::Port;

/// The end of the path: what to do, and with what.
///
/// Flat, with every field always set, and not an enum with data: merging its variants the compiler copies undefined
/// registers, which the verifier refuses. The constructors are the only way to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// With [`Action::Forward`] and [`FloodKind::Known`] the port that has it, with [`Action::Host`] and
    /// [`FloodKind::KnownHost`] the uplink whose stack has it.
    pub target: Target,
    /// With [`Action::Flood`], why the frame is for many.
    pub kind: FloodKind,
    /// With [`Action::Drop`], why.
    pub reason: DropReason,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// To one port. If that is the uplink through which the host is sending, out of its wire.
    Forward,
    /// To every port that [`crate::policy::floods_to`] allows, and to the host's stack behind every uplink that
    /// [`crate::policy::floods_to_host`] names.
    Flood,
    /// To the host's stack, behind an uplink.
    Host,
    /// To the ingress interface's own stack: link-local protocols such as LLDP belong to one link.
    HostHere,
    /// Nowhere.
    Drop,
}

impl Verdict {
    const BLANK: Self = Self {
        action: Action::HostHere,
        target: Target { slot: 0, ifindex: 0, flags: 0 },
        kind: FloodKind::UnknownUnicast,
        reason: DropReason::Malformed,
    };

    /// To one port.
    #[inline(always)]
    pub const fn forward(target: Target) -> Self {
        Self { action: Action::Forward, target, ..Self::BLANK }
    }

    /// To many.
    #[inline(always)]
    pub const fn flood(kind: FloodKind) -> Self {
        Self { action: Action::Flood, kind, ..Self::BLANK }
    }

    /// To one port or the host, and to the ports that list the sender.
    #[inline(always)]
    pub const fn known(kind: FloodKind, target: Target) -> Self {
        Self { action: Action::Flood, kind, target, ..Self::BLANK }
    }

    /// To the host behind this uplink.
    #[inline(always)]
    pub const fn host(uplink: Target) -> Self {
        Self { action: Action::Host, target: uplink, ..Self::BLANK }
    }

    /// To the stack of the interface that the frame is on.
    #[inline(always)]
    pub const fn host_here() -> Self {
        Self::BLANK
    }

    /// Nowhere.
    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self { action: Action::Drop, reason, ..Self::BLANK }
    }
}

/// One port that a frame goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its slot.
    pub slot: u16,
    /// Its interface.
    pub ifindex: u32,
    /// [`crate::abi::port_flags`].
    pub flags: u32,
}

impl Target {
    /// The port in `slot`.
    #[inline(always)]
    pub const fn new(slot: u16, port: &Port) -> Self {
        Self { slot, ifindex: port.ifindex, flags: port.flags }
    }
}

/// Why a frame is for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit)]
#[repr(u8)]
pub enum FloodKind {
    /// A unicast destination that the FDB does not know.
    UnknownUnicast,
    /// A group address other than broadcast.
    Multicast,
    /// ff:ff:ff:ff:ff:ff.
    Broadcast,
    /// It leaves by the uplinks.
    Wire,
    /// One port has it, and so have the ports that list its sender.
    Known,
    /// The host has it, and so have the ports that list its sender.
    KnownHost,
    /// Only the ports that list its sender have it.
    Listed,
}

impl FloodKind {
    /// Whether the destination is a group address.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        match self {
            Self::Multicast | Self::Broadcast => true,
            Self::UnknownUnicast | Self::Wire | Self::Known | Self::KnownHost | Self::Listed => false,
        }
    }
}

/// Why a frame went nowhere. The number is the index into [`crate::abi::Counters::drops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than an Ethernet header.
    Malformed = 0,
    /// The source address is a group address or zero.
    InvalidSource = 1,
    /// An 802.3x pause frame; a bridge never forwards them (802.1Q 8.6.3).
    Pause = 2,
    /// The destination is behind the port that the frame came from, and that port has no hairpin.
    SamePort = 3,
    /// Both ports are isolated.
    Isolated = 4,
    /// Longer than the egress interface's MTU allows.
    MtuExceeded = 5,
    /// A frame for many that no port may have.
    NoReceiver = 6,
    /// A private port and a sibling exchange nothing, not even through a reflecting switch.
    Private = 7,
    /// What a port or the host has sent came back by an uplink, and everybody has had it.
    Reflected = 8,
    /// The destination's port is down or its interface is missing.
    PortDown = 9,
    /// A private port sends from an address that is not known to be its own.
    SpoofedSource = 10,
}

impl DropReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::InvalidSource,
        Self::Pause,
        Self::SamePort,
        Self::Isolated,
        Self::MtuExceeded,
        Self::NoReceiver,
        Self::Private,
        Self::Reflected,
        Self::PortDown,
        Self::SpoofedSource,
    ];

    /// The reason's name in the CLI, JSON and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::InvalidSource => "invalid_source",
            Self::Pause => "pause",
            Self::SamePort => "same_port",
            Self::Isolated => "isolated",
            Self::MtuExceeded => "mtu_exceeded",
            Self::NoReceiver => "no_receiver",
            Self::Private => "private",
            Self::Reflected => "reflected",
            Self::PortDown => "port_down",
            Self::SpoofedSource => "spoofed_source",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::DROP_REASONS;

    #[test]
    fn reasons_are_numbered_in_order_and_have_counters() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert!(index < DROP_REASONS);
        }
    }
}
