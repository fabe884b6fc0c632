//! What was decided for one frame, and the name of every reason to drop one.

use bytemuck::{NoUninit, Zeroable};

use crate::{
    abi::{HOST_SLOT, Port},
    policy::longest,
};

/// The end of the path: what to do, and with what.
///
/// Flat, with every field always set, and not an enum with data: merging its variants the compiler copies undefined
/// registers, which the verifier refuses. [`crate::packet::Packet`]'s methods make one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, Zeroable)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// With [`Action::Drop`], why.
    pub reason: DropReason,
    /// Who else has a copy, and with [`Action::Flood`], who has the frame.
    pub list: Members,
    /// Explicit padding, zero.
    pub reserved: u8,
    /// With [`Action::Forward`] the port that has it, with [`Action::Host`] the uplink whose stack has it; else nothing that
    /// means anything.
    pub target: Target,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, Zeroable)]
#[repr(u8)]
pub enum Action {
    /// Nowhere.
    Drop = 0,
    /// To one port. If that is the uplink through which the host is sending, out of its wire.
    Forward,
    /// To all of a list's members that [`crate::policy::receives`] and [`crate::policy::host_receives`] allow.
    Flood,
    /// To the host's stack, behind an uplink.
    Host,
    /// To the ingress interface's own stack: link-local protocols such as LLDP belong to one link.
    HostHere,
}

/// A list of members, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, Zeroable)]
#[repr(u8)]
pub enum Members {
    /// No list.
    Nobody = 0,
    /// [`crate::abi::lists::DOMAIN`].
    Domain,
    /// [`crate::abi::lists::UPLINKS`].
    Uplinks,
    /// The ports in source mode that list the sender.
    Listeners,
}

/// A verdict, and whose frame it is about: all that is needed to act on it and to count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The port that the frame entered by; for one of the host, the uplink that it is leaving by.
    pub slot: u16,
    /// Whether the host is the sender.
    pub from_host: bool,
    /// Whether the source address found no room in the FDB.
    pub fdb_full: bool,
    /// What was decided.
    pub verdict: Verdict,
}

impl Decision {
    /// The slot whose receive counters count the frame.
    #[inline(always)]
    pub const fn counted(&self) -> u16 {
        if self.from_host { HOST_SLOT } else { self.slot }
    }

    /// Whether the frame goes nowhere else than where it is going anyway.
    #[inline(always)]
    pub const fn stays(&self) -> bool {
        self.verdict.target.slot == self.slot
    }
}

/// One port that a frame goes to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, Zeroable)]
pub struct Target {
    /// Its interface.
    pub ifindex: u32,
    /// [`crate::abi::port_flags`].
    pub flags: u32,
    /// The longest frame that it carries.
    pub longest: u32,
    /// Its slot.
    pub slot: u16,
    /// Explicit padding, zero.
    pub reserved: u16,
}

impl Target {
    /// The port in `slot`.
    #[inline(always)]
    pub const fn new(slot: u16, port: &Port) -> Self {
        Self { ifindex: port.ifindex, flags: port.flags, longest: longest(port), slot, reserved: 0 }
    }
}

/// Why a frame went nowhere. The number is the index into [`crate::abi::Counters::drops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, Zeroable)]
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
