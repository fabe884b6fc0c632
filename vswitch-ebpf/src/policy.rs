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

use crate::{
    abi::{HOST_SLOT, List, Port, SourceKey, mode, port_flags, settings_flags},
    frame::{ETH_HLEN, VLAN_HLEN},
    learn::{Origin, OriginKind},
    packet::{Class, Packet},
    tables::Look,
    verdict::{DropReason, Members},
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

/// Whether a port with these [`port_flags`] and this mode exchanges frames with the host directly: the outside always does.
#[inline(always)]
pub const fn reaches_host(flags: u32, mode: u8, settings: u32) -> bool {
    flags & port_flags::UPLINK != 0 || host_access(settings) && mode != mode::PASSTHRU
}

/// Whether two downlinks exchange frames directly.
#[inline(always)]
pub const fn siblings(from: &Packet, to: &Port) -> bool {
    from.mode == mode::BRIDGE && to.mode == mode::BRIDGE
}

/// Whether a frame for one port would go back where it came from, which takes `hairpin`.
#[inline(always)]
pub const fn is_back(packet: &Packet, slot: u16, port: &Port) -> bool {
    slot == packet.slot && port.flags & port_flags::HAIRPIN == 0
}

/// Whether the frame may go to the port in `slot`, as far as the two ports' modes let it.
#[inline(always)]
pub const fn may_reach(packet: &Packet, slot: u16, port: &Port) -> Result<(), DropReason> {
    if !packet.from_host {
        if is_back(packet, slot, port) {
            return Err(DropReason::SamePort);
        }
        if packet.flags & port.flags & port_flags::ISOLATED != 0 {
            return Err(DropReason::Isolated);
        }
    } else if slot == packet.slot {
        // Out of its own wire the host sends what it could send without the switch.
        return Ok(());
    }
    if packet.wire_len <= longest(port) { Ok(()) } else { Err(DropReason::MtuExceeded) }
}

/// The longest frame that a port carries. As in the kernel's `is_skb_forwardable`, one VLAN tag above the MTU is allowed for.
#[inline(always)]
pub const fn longest(port: &Port) -> u32 {
    port.mtu.saturating_add(ETH_HLEN.wrapping_add(VLAN_HLEN))
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

/// Whether a port in source mode lists the sender.
#[inline(always)]
pub fn lists(tables: &impl Look, packet: &Packet, slot: u16, port: &Port) -> bool {
    packet.settings & settings_flags::SOURCES != 0
        && port.mode == mode::SOURCE
        && tables.listed(SourceKey { mac: packet.source().mac, slot }) != 0
}

/// The ports in source mode that list the sender.
#[inline(always)]
pub fn listeners(tables: &impl Look, packet: &Packet) -> List {
    if packet.settings & settings_flags::SOURCES == 0 {
        return List(0);
    }
    List(tables.listed(SourceKey { mac: packet.source().mac, slot: HOST_SLOT }))
}

/// Whether a member of the list that has a frame may have it: the port in `slot`.
#[inline(always)]
pub fn receives(tables: &impl Look, packet: &Packet, slot: u16, port: &Port) -> bool {
    if packet.from_host && slot == packet.slot {
        // Even if it is said to be down: only what comes in revives a port, and the host may have to speak first.
        return true;
    }
    if port.ifindex == 0 || tables.is_down(slot) {
        return false;
    }
    if packet.from_host {
        return receives_from_host(tables, packet, slot, port);
    }
    let for_many = matches!(packet.verdict.list, Members::Domain);
    if port.mode == mode::SOURCE {
        let listed = (!for_many || packet.from_wire())
            && !is_unlisted(packet.settings, &packet.origin, for_many)
            && lists(tables, packet, slot, port);
        if listed || !for_many || !is_echo(packet, slot) {
            return listed && may_reach(packet, slot, port).is_ok();
        }
    }
    let allowed = match packet.verdict.list {
        Members::Nobody | Members::Listeners => false,
        Members::Uplinks => is_uplink(port),
        Members::Domain => {
            let by_mode = if is_uplink(port) {
                // What a port or the host had sent has been out of every uplink.
                matches!(packet.origin.kind, OriginKind::Fresh | OriginKind::Moved)
            } else if packet.from_wire() {
                !is_kept_private(packet.settings, &packet.origin, port) && echoes_to(packet, slot, port)
            } else {
                siblings(packet, port)
            };
            by_mode && wants(packet.class, port)
        }
    };
    allowed && may_reach(packet, slot, port).is_ok()
}

/// Whether a frame for many goes to the host's stack behind the uplink in `slot`, a member of the list.
///
/// The host is on the same LAN with each of its uplinks, as if with as many cards. It does not hear itself.
#[inline(always)]
pub const fn host_receives(packet: &Packet, slot: u16, port: &Port) -> bool {
    if packet.from_host
        || !is_uplink(port)
        || port.ifindex == 0
        || !matches!(packet.verdict.list, Members::Domain)
    {
        return false;
    }
    match packet.class {
        // The kernel lets the stack see what it finds no child for.
        Class::Unicast => compat(packet.settings) && slot == packet.slot && packet.from_wire(),
        Class::Multicast | Class::Broadcast => {
            reaches_host(packet.flags, packet.mode, packet.settings)
                && match packet.origin.kind {
                    OriginKind::Fresh | OriginKind::Moved | OriginKind::Spoofed => true,
                    // With host access it has had the frame directly, or sent it.
                    OriginKind::Sibling => {
                        !host_access(packet.settings)
                            && (packet.origin.mode == mode::VEPA || packet.origin.mode == mode::BRIDGE)
                    }
                    OriginKind::Host => !host_access(packet.settings),
                }
        }
    }
}

/// As the bridge's `br_flood`: frames of the host ignore the multicast and broadcast flags. Otherwise than there, what
/// the host sends through an uplink always leaves by it: attaching a switch must not cut the host off.
#[inline(always)]
fn receives_from_host(tables: &impl Look, packet: &Packet, slot: u16, port: &Port) -> bool {
    let exempt = !matches!(packet.class, Class::Unicast);
    let for_mode = port.mode != mode::SOURCE || lists(tables, packet, slot, port);
    reaches_host(port.flags, port.mode, packet.settings)
        && for_mode
        && (exempt || wants(packet.class, port))
        && packet.wire_len <= longest(port)
}

/// Whether a downlink has a flooded frame that came in by an uplink: by who had sent it up (the last column
/// of the table in docs/semantics.md, Modes).
#[inline(always)]
const fn echoes_to(packet: &Packet, slot: u16, port: &Port) -> bool {
    let origin = &packet.origin;
    match origin.kind {
        OriginKind::Fresh | OriginKind::Moved | OriginKind::Spoofed => true,
        OriginKind::Host => !host_access(packet.settings),
        OriginKind::Sibling if slot == origin.slot => is_echo(packet, slot),
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
const fn is_echo(packet: &Packet, slot: u16) -> bool {
    compat(packet.settings)
        && !matches!(packet.class, Class::Unicast)
        && is_silent(&packet.origin)
        && packet.origin.slot == slot
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

/// By the port's flood flags.
#[inline(always)]
const fn wants(class: Class, port: &Port) -> bool {
    let flag = match class {
        Class::Unicast => port_flags::FLOOD,
        Class::Multicast => port_flags::MCAST_FLOOD,
        Class::Broadcast => port_flags::BCAST_FLOOD,
    };
    port.flags & flag != 0
}

/// What becomes of a frame for many: dropped unless anybody, be it the host, had it.
#[inline(always)]
pub const fn reached(packet: &Packet, anybody: bool) -> Result<(), DropReason> {
    match packet.origin.kind {
        _ if anybody => Ok(()),
        OriginKind::Fresh | OriginKind::Moved | OriginKind::Spoofed => Err(DropReason::NoReceiver),
        OriginKind::Sibling | OriginKind::Host => Err(DropReason::Reflected),
    }
}
