//! Step 4: who may exchange frames with whom? Modes, reflections, hairpin, isolation, flood flags, host access, MTU.
//!
//! | from | to | allowed |
//! |---|---|---|
//! | downlink | sibling | if both are in bridge mode; everything else leaves by the uplinks |
//! | downlink | uplink | always |
//! | downlink, host | each other | with host access, unless the port is in passthru mode |
//! | uplink | downlink | unless the frame is a reflection that the port must not have, see [`echoes_to`] |
//! | any | source mode port | only from the senders that it lists |
//!
//! On top of that: never back out of the ingress port without `hairpin`, never between two `isolated` ports, never
//! beyond the MTU, and what is flooded only by the flood flags.

use bytemuck::NoUninit;

use crate::{
    abi::{HOST_SLOT, Port, SourceKey, listed, mode, port_flags, settings_flags},
    frame::{ETH_HLEN, MacAddr, VLAN_HLEN},
    ingress::Ingress,
    learn::{Origin, OriginKind},
    tables::Tables,
    verdict::{DropReason, FloodKind},
};

/// Whether the kernel macvlan's rules hold where vswitch differs from them on purpose.
#[inline(always)]
pub const fn compat(settings: u32) -> bool {
    settings & settings_flags::MACVLAN_COMPAT != 0
}

/// Whether the host and downlinks exchange frames directly: macvlan's never do.
#[inline(always)]
pub const fn host_access(settings: u32) -> bool {
    settings & settings_flags::HOST_ACCESS != 0 && !compat(settings)
}

/// Whether this port and the host exchange frames directly: the outside always does.
#[inline(always)]
pub const fn reaches_host(port: &Port, settings: u32) -> bool {
    is_uplink(port) || host_access(settings) && port.mode != mode::PASSTHRU
}

/// Whether two downlinks exchange frames directly.
#[inline(always)]
pub const fn siblings(from: &Port, to: &Port) -> bool {
    from.mode == mode::BRIDGE && to.mode == mode::BRIDGE
}

/// Whether a frame from `ingress` may go to the port in `slot`, as far as the two ports' modes let it.
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

/// Whether what came in by an uplink for one address is withheld because it is a reflection: strictly, a private port
/// has nothing to do with its siblings. The kernel's macvlan delivers it.
#[inline(always)]
pub const fn is_kept_private(settings: u32, origin: &Origin, port: &Port) -> bool {
    let private = port.mode == mode::PRIVATE;
    !compat(settings)
        && match origin.kind {
            OriginKind::Sibling => private || origin.mode == mode::PRIVATE,
            OriginKind::Moved => private,
            // The host reaches it directly: this is somebody who pretends to be the host.
            OriginKind::Host => private && host_access(settings),
            OriginKind::Fresh | OriginKind::Spoofed => false,
        }
}

/// Whether a reflection is kept from the ports that list its sender: strictly, a private port has nothing to do with
/// them either; and what the host has sent to many they have had from the host.
#[inline(always)]
pub const fn is_unlisted(settings: u32, origin: &Origin, for_many: bool) -> bool {
    match origin.kind {
        OriginKind::Fresh | OriginKind::Moved | OriginKind::Spoofed => false,
        OriginKind::Sibling => !compat(settings) && origin.mode == mode::PRIVATE,
        OriginKind::Host => host_access(settings) && for_many,
    }
}

/// Whether a port in source mode lists a sender.
#[inline(always)]
pub fn lists(tables: &impl Tables, settings: u32, slot: u16, port: &Port, sender: MacAddr) -> bool {
    settings & settings_flags::SOURCES != 0
        && port.mode == mode::SOURCE
        && tables.listed(SourceKey { mac: sender, slot }) != 0
}

/// What the ports in source mode together say of a sender: [`listed`].
#[inline(always)]
pub fn listed_by_any(tables: &impl Tables, settings: u32, sender: MacAddr) -> u32 {
    if settings & settings_flags::SOURCES == 0 {
        return 0;
    }
    tables.listed(SourceKey { mac: sender, slot: HOST_SLOT }) & (listed::BY_PORT | listed::NODST)
}

/// A frame for many, as each port is asked whether it may have it.
///
/// Without a byte of padding, as which the compiler may leave undefined what the verifier wants to see written.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit)]
pub struct Flood {
    /// Who sent it.
    pub ingress: Ingress,
    /// [`crate::abi::Settings::flags`].
    pub settings: u32,
    /// [`crate::frame::Frame::wire_len`].
    pub wire_len: u32,
    /// Where it comes from in the end.
    pub origin: Origin,
    /// Its source address.
    pub sender: MacAddr,
    /// With [`FloodKind::Known`] and [`FloodKind::KnownHost`], the slot of who has it in any case.
    pub target: u16,
    /// [`crate::abi::Settings::slots`].
    pub slots: u16,
    /// Why it is for many.
    pub kind: FloodKind,
    /// Whether its source address found no room in the FDB.
    pub fdb_full: bool,
}

/// Whether a flooded frame may go to the port in `slot`.
#[inline(always)]
pub fn floods_to(tables: &impl Tables, flood: &Flood, slot: u16, port: &Port) -> bool {
    let ingress = &flood.ingress;
    if ingress.from_host && slot == ingress.slot {
        // Even if it is said to be down: only what comes in revives a port, and the host may have to speak first.
        return true;
    }
    if port.ifindex == 0 || port.flags & port_flags::DOWN != 0 {
        return false;
    }
    if ingress.from_host {
        return host_floods_to(tables, flood, slot, port);
    }
    if port.mode == mode::SOURCE {
        let by_list = matches!(flood.kind, FloodKind::Known | FloodKind::KnownHost | FloodKind::Listed);
        let listed = (by_list || ingress.from_wire())
            && !is_unlisted(flood.settings, &flood.origin, !by_list)
            && lists(tables, flood.settings, slot, port, flood.sender);
        if listed || !is_echo(flood, slot) {
            return listed && may_reach(ingress, slot, port, flood.wire_len).is_ok();
        }
    }
    let allowed = match flood.kind {
        FloodKind::Listed | FloodKind::KnownHost => return false,
        FloodKind::Known => return slot == flood.target,
        FloodKind::Wire => is_uplink(port),
        FloodKind::UnknownUnicast | FloodKind::Multicast | FloodKind::Broadcast => {
            if is_uplink(port) {
                // What a port or the host had sent has been out of every uplink.
                matches!(flood.origin.kind, OriginKind::Fresh | OriginKind::Moved)
            } else if ingress.from_wire() {
                !is_kept_private(flood.settings, &flood.origin, port) && echoes_to(flood, slot, port)
            } else {
                siblings(&ingress.port, port)
            }
        }
    };
    allowed && wants(flood.kind, port) && may_reach(ingress, slot, port, flood.wire_len).is_ok()
}

/// Whether a flooded frame goes to the host's stack behind the uplink in `slot`.
///
/// The host is on the same LAN with each of its uplinks, as if with as many cards. It does not hear itself.
#[inline(always)]
pub fn floods_to_host(flood: &Flood, slot: u16, port: &Port) -> bool {
    let ingress = &flood.ingress;
    if ingress.from_host || !is_uplink(port) || port.ifindex == 0 {
        return false;
    }
    match flood.kind {
        FloodKind::KnownHost => slot == flood.target,
        // The kernel lets the stack see what it finds no child for.
        FloodKind::UnknownUnicast => compat(flood.settings) && slot == ingress.slot && ingress.from_wire(),
        FloodKind::Multicast | FloodKind::Broadcast => {
            reaches_host(&ingress.port, flood.settings)
                && match flood.origin.kind {
                    OriginKind::Fresh | OriginKind::Moved | OriginKind::Spoofed => true,
                    // With host access it has had the frame directly, or sent it.
                    OriginKind::Sibling => {
                        !host_access(flood.settings)
                            && (flood.origin.mode == mode::VEPA || flood.origin.mode == mode::BRIDGE)
                    }
                    OriginKind::Host => !host_access(flood.settings),
                }
        }
        FloodKind::Wire | FloodKind::Known | FloodKind::Listed => false,
    }
}

/// As the bridge's `br_flood`: frames of the host ignore the multicast and broadcast flags. Otherwise than there, what
/// the host sends through an uplink always leaves by it: attaching a switch must not cut the host off.
#[inline(always)]
fn host_floods_to(tables: &impl Tables, flood: &Flood, slot: u16, port: &Port) -> bool {
    let exempt = flood.kind.is_group();
    let for_mode = port.mode != mode::SOURCE || lists(tables, flood.settings, slot, port, flood.sender);
    reaches_host(port, flood.settings)
        && for_mode
        && (exempt || wants(flood.kind, port))
        && fits(port, flood.wire_len)
}

/// Whether a downlink has a flooded frame that came in by an uplink: by who had sent it up (the last column
/// of the table in docs/semantics.md, Modes).
#[inline(always)]
fn echoes_to(flood: &Flood, slot: u16, port: &Port) -> bool {
    let origin = &flood.origin;
    match origin.kind {
        OriginKind::Fresh | OriginKind::Moved | OriginKind::Spoofed => true,
        OriginKind::Host => !host_access(flood.settings),
        OriginKind::Sibling if slot == origin.slot => is_echo(flood, slot),
        OriginKind::Sibling if origin.mode == mode::VEPA => {
            port.mode == mode::VEPA || port.mode == mode::BRIDGE
        }
        // The siblings in bridge mode have had it directly.
        OriginKind::Sibling if origin.mode == mode::BRIDGE => port.mode == mode::VEPA,
        OriginKind::Sibling => false,
    }
}

/// Whether a port hears itself, as the kernel's private, passthru and source children do: IPv6 takes it for a duplicate
/// address.
#[inline(always)]
const fn is_echo(flood: &Flood, slot: u16) -> bool {
    compat(flood.settings) && flood.kind.is_group() && is_silent(&flood.origin) && flood.origin.slot == slot
}

/// Whether a reflection comes from a port whose group frames nobody else may have.
#[inline(always)]
pub const fn is_silent(origin: &Origin) -> bool {
    matches!(origin.kind, OriginKind::Sibling) && origin.mode != mode::VEPA && origin.mode != mode::BRIDGE
}

/// Whether it is an uplink.
#[inline(always)]
pub const fn is_uplink(port: &Port) -> bool {
    port.flags & port_flags::UPLINK != 0
}

#[inline(always)]
const fn wants(kind: FloodKind, port: &Port) -> bool {
    let flag = match kind {
        FloodKind::UnknownUnicast => port_flags::FLOOD,
        FloodKind::Multicast => port_flags::MCAST_FLOOD,
        FloodKind::Broadcast => port_flags::BCAST_FLOOD,
        FloodKind::Wire | FloodKind::Known | FloodKind::KnownHost | FloodKind::Listed => return true,
    };
    port.flags & flag != 0
}

/// The kernel's `is_skb_forwardable`: one VLAN tag above the MTU is allowed for.
#[inline(always)]
const fn fits(port: &Port, wire_len: u32) -> bool {
    wire_len <= port.mtu.saturating_add(ETH_HLEN.wrapping_add(VLAN_HLEN))
}
