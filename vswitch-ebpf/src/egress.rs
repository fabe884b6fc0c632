//! Stage 5: from a destination that is allowed to a verdict.

use crate::{
    abi::{Port, Settings, mode},
    learn::OriginKind,
    lookup::{Destination, Place},
    packet::Packet,
    policy::{self, compat, is_back, is_uplink},
    tables::Look,
    verdict::{Action, DropReason, Members, Target, Verdict},
};

/// The verdict for a frame to `destination`.
#[inline(always)]
pub fn egress(packet: &Packet, tables: &impl Look, settings: &Settings, to: Destination<'_>) -> Verdict {
    if packet.from_host {
        let verdict = from_host(packet, tables, to);
        return if is_gone(packet, tables, &verdict) { back_to_wire(packet, tables) } else { verdict };
    }
    let verdict = if packet.from_wire() {
        from_wire(packet, settings, to)
    } else {
        from_station(packet, tables, settings, to)
    };
    let verdict =
        if is_gone(packet, tables, &verdict) { Verdict::drop(DropReason::PortDown) } else { verdict };
    if enters_from_outside(packet, to) { with_listeners(packet, tables, verdict) } else { verdict }
}

/// Whether the kernel's macvlan would take the frame as received, and look for ports in source mode that list its sender.
#[inline(always)]
fn enters_from_outside(packet: &Packet, to: Destination<'_>) -> bool {
    if packet.from_wire() {
        // A list does not make a link-local frame leave its link.
        return !matches!(to.place, Place::LinkLocal);
    }
    // What one sibling sends to another enters it like that.
    matches!(to.place, Place::Port)
        && to.port.is_some_and(|port| policy::siblings(packet, port) && !is_uplink(port))
}

/// Whether the target's interface is gone. Where the frame has just come from is not asked about.
#[inline(always)]
fn is_gone(packet: &Packet, tables: &impl Look, verdict: &Verdict) -> bool {
    let slot = verdict.target.slot;
    matches!(verdict.action, Action::Forward | Action::Host) && slot != packet.slot && tables.is_gone(slot)
}

/// The host sends: out of the wire that its routing has chosen, unless a port is known to have the address.
#[inline(always)]
fn from_host(packet: &Packet, tables: &impl Look, to: Destination<'_>) -> Verdict {
    match (to.place, to.port) {
        (Place::Port, Some(port))
            if policy::reaches_host(port.flags, port.mode, packet.settings)
                && (port.mode != mode::SOURCE || policy::lists(tables, packet, to.slot, port)) =>
        {
            to_port(packet, to.slot, port)
        }
        (Place::Many, _) => Verdict::flood(Members::Domain),
        // Also the host talking to an address of its own: where it would have gone without the switch.
        (Place::Port | Place::Host | Place::Down | Place::LinkLocal | Place::Pause, _) => {
            back_to_wire(packet, tables)
        }
    }
}

/// Out of the wire by which the host is sending.
#[inline(always)]
fn back_to_wire(packet: &Packet, tables: &impl Look) -> Verdict {
    match tables.port(packet.slot) {
        Some(port) => Verdict::forward(Target::new(packet.slot, port)),
        None => Verdict::drop(DropReason::PortDown),
    }
}

/// A frame from outside, or a reflection.
#[inline(always)]
fn from_wire(packet: &Packet, settings: &Settings, to: Destination<'_>) -> Verdict {
    match (to.place, to.port) {
        (Place::Port, Some(port)) if policy::is_kept_private(packet.settings, &packet.origin, port) => {
            Verdict::drop(DropReason::Private)
        }
        // Its own address does not lead to a port in source mode.
        (Place::Port, Some(port)) if port.mode == mode::SOURCE => Verdict::flood(Members::Domain),
        // What was learned from outside is no child's either: the kernel lets its stack have the frame.
        (Place::Port, Some(port)) if compat(packet.settings) && is_back(packet, to.slot, port) => {
            Verdict::host_here()
        }
        (Place::Port, Some(port)) => to_port(packet, to.slot, port),
        (Place::Host, Some(port)) => Verdict::host(Target::new(to.slot, port)),
        (Place::Many, _) => Verdict::flood(Members::Domain),
        // Without passthru the kernel looks for a child that is up, and lets its stack have the frame else.
        (Place::Down, _) if compat(packet.settings) && settings.passthru == 0 => Verdict::host_here(),
        (Place::Port | Place::Host | Place::Down, _) => Verdict::drop(DropReason::PortDown),
        // Of a child that hears itself the kernel does not ask what it is.
        (Place::Pause, _) if policy::is_silent(&packet.origin) => Verdict::flood(Members::Domain),
        (Place::LinkLocal | Place::Pause, _) => Verdict::host_here(),
    }
}

/// A frame from a downlink: to a sibling if both are in bridge mode, to the host, or by the wire.
#[inline(always)]
fn from_station(packet: &Packet, tables: &impl Look, settings: &Settings, to: Destination<'_>) -> Verdict {
    match (to.place, to.port) {
        _ if matches!(packet.origin.kind, OriginKind::Spoofed) => Verdict::drop(DropReason::SpoofedSource),
        // The kernel gives a child in bridge mode what it sends to itself.
        (Place::Port, Some(port))
            if compat(packet.settings) && to.slot == packet.slot && packet.mode == mode::BRIDGE =>
        {
            Verdict::forward(Target::new(to.slot, port))
        }
        (Place::Port, Some(port)) if is_uplink(port) || policy::siblings(packet, port) => {
            to_port(packet, to.slot, port)
        }
        (Place::Host, Some(port)) if policy::reaches_host(packet.flags, packet.mode, packet.settings) => {
            Verdict::host(Target::new(to.slot, port))
        }
        (Place::Many, _) => Verdict::flood(Members::Domain),
        (Place::LinkLocal, _) => Verdict::host_here(),
        (Place::Down, _) if !compat(packet.settings) && packet.mode == mode::BRIDGE => {
            Verdict::drop(DropReason::PortDown)
        }
        (Place::Port | Place::Host | Place::Down | Place::Pause, _) => to_wire(packet, tables, settings),
    }
}

/// Out by the only uplink, or by all of them.
#[inline(always)]
fn to_wire(packet: &Packet, tables: &impl Look, settings: &Settings) -> Verdict {
    match tables.port(settings.wire) {
        _ if settings.wire == 0 => Verdict::flood(Members::Uplinks),
        Some(_) if tables.is_down(settings.wire) => Verdict::drop(DropReason::PortDown),
        Some(port) => to_port(packet, settings.wire, port),
        None => Verdict::flood(Members::Uplinks),
    }
}

/// Adds the ports in source mode that list the sender; with `nodst` they alone have the frame (macvlan's
/// `macvlan_forward_source`).
#[inline(always)]
fn with_listeners(packet: &Packet, tables: &impl Look, verdict: Verdict) -> Verdict {
    let listeners = policy::listeners(tables, packet);
    let for_many = matches!(verdict.action, Action::Flood);
    if listeners.is_empty() || policy::is_unlisted(packet.settings, &packet.origin, for_many) {
        return verdict;
    }
    let they_alone = Verdict::flood(Members::Listeners);
    if listeners.nodst() {
        return they_alone;
    }
    match (verdict.action, tables.port(packet.slot)) {
        (Action::Flood, _) => verdict,
        (Action::Forward | Action::Host, _) => verdict.and(Members::Listeners),
        (Action::HostHere, Some(own)) => Verdict::host(Target::new(packet.slot, own)).and(Members::Listeners),
        (Action::HostHere | Action::Drop, _) => they_alone,
    }
}

#[inline(always)]
const fn to_port(packet: &Packet, slot: u16, port: &Port) -> Verdict {
    match policy::may_reach(packet, slot, port) {
        Ok(()) => Verdict::forward(Target::new(slot, port)),
        Err(reason) => Verdict::drop(reason),
    }
}
