//! Step 4: who may exchange frames with whom? Hairpin, isolation, flood flags, host access and MTU.

use crate::{
    abi::{HOST_SLOT, Port, Settings, port_flags, settings_flags},
    frame::{ETH_HLEN, VLAN_HLEN},
    ingress::Ingress,
    verdict::{DropReason, FloodKind},
};

/// Whether a frame from `ingress` may go to the port in `slot`, the only one that it is for.
#[inline(always)]
pub fn may_reach(ingress: &Ingress, slot: u16, port: &Port, wire_len: u32) -> Result<(), DropReason> {
    if !ingress.from_host {
        if slot == ingress.slot && port.flags & port_flags::HAIRPIN == 0 {
            return Err(DropReason::SamePort);
        }
        if ingress.port.flags & port.flags & port_flags::ISOLATED != 0 {
            return Err(DropReason::Isolated);
        }
    } else if slot == ingress.slot {
        // Out of its own wire the host sends what it could send without the switch.
        return Ok(());
    }
    if fits(port, wire_len) { Ok(()) } else { Err(DropReason::MtuExceeded) }
}

/// A frame for many, as each port is asked whether it may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// Why it is for many.
    pub kind: FloodKind,
    /// Its sender.
    pub ingress: Ingress,
    /// [`Settings::flags`].
    pub settings: u32,
    /// [`crate::frame::Frame::wire_len`].
    pub wire_len: u32,
}

/// Whether a flooded frame may go to the port in `slot`.
///
/// As the bridge's `br_flood`: frames of the host ignore the multicast and broadcast flags. Otherwise than there, what
/// the host sends through an uplink always leaves by it: attaching a switch must not cut the host off.
#[inline(always)]
pub fn floods_to(flood: &Flood, slot: u16, port: &Port) -> bool {
    let ingress = &flood.ingress;
    if port.ifindex == 0 {
        return false;
    }
    if ingress.from_host {
        let exempt = flood.kind.is_group();
        return slot == ingress.slot
            || port_reaches_host(port, flood.settings)
                && (exempt || wants(flood.kind, port))
                && fits(port, flood.wire_len);
    }
    let reflected = slot == ingress.slot && port.flags & port_flags::HAIRPIN == 0;
    let isolated = ingress.port.flags & port.flags & port_flags::ISOLATED != 0;
    !reflected && !isolated && wants(flood.kind, port) && fits(port, flood.wire_len)
}

/// Whether a flooded frame goes to the host: a group frame that the host did not send itself.
#[inline(always)]
pub fn floods_to_host(flood: &Flood, host_uplink: u16) -> bool {
    let ingress = &flood.ingress;
    flood.kind.is_group()
        && !ingress.from_host
        && host_uplink != HOST_SLOT
        && port_reaches_host(&ingress.port, flood.settings)
}

/// Whether this port and the host exchange frames directly: the outside always does, access ports unless host access
/// is off.
#[inline(always)]
pub fn reaches_host(port: &Port, settings: &Settings) -> bool {
    port_reaches_host(port, settings.flags)
}

#[inline(always)]
fn port_reaches_host(port: &Port, settings: u32) -> bool {
    port.flags & port_flags::UPLINK != 0 || settings & settings_flags::HOST_ACCESS != 0
}

#[inline(always)]
fn wants(kind: FloodKind, port: &Port) -> bool {
    let flag = match kind {
        FloodKind::UnknownUnicast => port_flags::FLOOD,
        FloodKind::Multicast => port_flags::MCAST_FLOOD,
        FloodKind::Broadcast => port_flags::BCAST_FLOOD,
    };
    port.flags & flag != 0
}

/// The kernel's `is_skb_forwardable`: one VLAN tag above the MTU is allowed for.
#[inline(always)]
fn fits(port: &Port, wire_len: u32) -> bool {
    wire_len <= port.mtu.saturating_add(ETH_HLEN.wrapping_add(VLAN_HLEN))
}
