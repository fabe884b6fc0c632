//! Stage 5: from a destination that is allowed to a verdict.

use crate::{
    abi::{Port, Settings, mode},
    learn::OriginKind,
    lookup::{Destination, Place},
    packet::Packet,
    policy::{self, compat, is_back, is_uplink},
    tables::Look,
    verdict::{Action, DropReason, Members, Verdict},
};

/// Decides about a frame to `destination`. What is decided is written into the packet part by part: a verdict that is built
/// elsewhere and copied is read in other sizes than it was written in, for which a CPU waits.
#[inline(always)]
pub fn egress(packet: &mut Packet, tables: &impl Look, settings: &Settings, to: Destination<'_>) {
    if packet.from_host {
        from_host(packet, tables, to);
        if is_gone(packet, tables) {
            back_to_wire(packet, tables);
        }
        return;
    }
    if packet.from_wire() {
        from_wire(packet, settings, to);
    } else {
        from_station(packet, tables, settings, to);
    }
    if is_gone(packet, tables) {
        packet.drop(DropReason::PortDown);
    }
    if enters_from_outside(packet, to) {
        with_listeners(packet, tables);
    }
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
fn is_gone(packet: &Packet, tables: &impl Look) -> bool {
    let Verdict { action, target, .. } = &packet.verdict;
    let slot = target.slot;
    matches!(action, Action::Forward | Action::Host) && slot != packet.slot && tables.is_gone(slot)
}

/// The host sends: out of the wire that its routing has chosen, unless a port is known to have the address.
#[inline(always)]
fn from_host(packet: &mut Packet, tables: &impl Look, to: Destination<'_>) {
    match (to.place, to.port) {
        (Place::Port, Some(port))
            if policy::reaches_host(port.flags, port.mode, packet.settings)
                && (port.mode != mode::SOURCE || policy::lists(tables, packet, to.slot, port)) =>
        {
            to_port(packet, to.slot, port);
        }
        (Place::Many, _) => packet.flood(Members::Domain),
        // Also the host talking to an address of its own: where it would have gone without the switch.
        (Place::Port | Place::Host | Place::Down | Place::LinkLocal | Place::Pause, _) => {
            back_to_wire(packet, tables);
        }
    }
}

/// Out of the wire by which the host is sending.
#[inline(always)]
fn back_to_wire(packet: &mut Packet, tables: &impl Look) {
    match tables.port(packet.slot) {
        Some(port) => packet.forward(packet.slot, port),
        None => packet.drop(DropReason::PortDown),
    }
}

/// A frame from outside, or a reflection.
#[inline(always)]
fn from_wire(packet: &mut Packet, settings: &Settings, to: Destination<'_>) {
    match (to.place, to.port) {
        (Place::Port, Some(port)) if policy::is_kept_private(packet.settings, &packet.origin, port) => {
            packet.drop(DropReason::Private);
        }
        // Its own address does not lead to a port in source mode.
        (Place::Port, Some(port)) if port.mode == mode::SOURCE => packet.flood(Members::Domain),
        // What was learned from outside is no child's either: the kernel lets its stack have the frame.
        (Place::Port, Some(port)) if compat(packet.settings) && is_back(packet, to.slot, port) => {
            packet.host_here();
        }
        (Place::Port, Some(port)) => to_port(packet, to.slot, port),
        (Place::Host, Some(port)) => packet.host(to.slot, port),
        (Place::Many, _) => packet.flood(Members::Domain),
        // Without passthru the kernel looks for a child that is up, and lets its stack have the frame else.
        (Place::Down, _) if compat(packet.settings) && settings.passthru == 0 => packet.host_here(),
        (Place::Port | Place::Host | Place::Down, _) => packet.drop(DropReason::PortDown),
        // Of a child that hears itself the kernel does not ask what it is.
        (Place::Pause, _) if policy::is_silent(&packet.origin) => packet.flood(Members::Domain),
        (Place::LinkLocal | Place::Pause, _) => packet.host_here(),
    }
}

/// A frame from a downlink: to a sibling if both are in bridge mode, to the host, or by the wire.
#[inline(always)]
fn from_station(packet: &mut Packet, tables: &impl Look, settings: &Settings, to: Destination<'_>) {
    match (to.place, to.port) {
        _ if matches!(packet.origin.kind, OriginKind::Spoofed) => packet.drop(DropReason::SpoofedSource),
        // The kernel gives a child in bridge mode what it sends to itself.
        (Place::Port, Some(port))
            if compat(packet.settings) && to.slot == packet.slot && packet.mode == mode::BRIDGE =>
        {
            packet.forward(to.slot, port);
        }
        (Place::Port, Some(port)) if is_uplink(port) || policy::siblings(packet, port) => {
            to_port(packet, to.slot, port);
        }
        (Place::Host, Some(port)) if policy::reaches_host(packet.flags, packet.mode, packet.settings) => {
            packet.host(to.slot, port);
        }
        (Place::Many, _) => packet.flood(Members::Domain),
        (Place::LinkLocal, _) => packet.host_here(),
        (Place::Down, _) if !compat(packet.settings) && packet.mode == mode::BRIDGE => {
            packet.drop(DropReason::PortDown);
        }
        (Place::Port | Place::Host | Place::Down | Place::Pause, _) => to_wire(packet, tables, settings),
    }
}

/// Out by the only uplink, or by all of them.
#[inline(always)]
fn to_wire(packet: &mut Packet, tables: &impl Look, settings: &Settings) {
    match tables.port(settings.wire) {
        _ if settings.wire == 0 => packet.flood(Members::Uplinks),
        Some(_) if tables.is_down(settings.wire) => packet.drop(DropReason::PortDown),
        Some(port) => to_port(packet, settings.wire, port),
        None => packet.flood(Members::Uplinks),
    }
}

/// Adds the ports in source mode that list the sender; with `nodst` they alone have the frame (macvlan's
/// `macvlan_forward_source`).
#[inline(always)]
fn with_listeners(packet: &mut Packet, tables: &impl Look) {
    let listeners = policy::listeners(tables, packet);
    let for_many = matches!(packet.verdict.action, Action::Flood);
    if listeners.is_empty() || policy::is_unlisted(packet.settings, &packet.origin, for_many) {
        return;
    }
    if listeners.nodst() {
        return packet.flood(Members::Listeners);
    }
    match (packet.verdict.action, tables.port(packet.slot)) {
        (Action::Flood, _) => {}
        (Action::Forward | Action::Host, _) => packet.verdict.list = Members::Listeners,
        (Action::HostHere, Some(own)) => {
            packet.host(packet.slot, own);
            packet.verdict.list = Members::Listeners;
        }
        (Action::HostHere | Action::Drop, _) => packet.flood(Members::Listeners),
    }
}

#[inline(always)]
const fn to_port(packet: &mut Packet, slot: u16, port: &Port) {
    match policy::may_reach(packet, slot, port) {
        Ok(()) => packet.forward(slot, port),
        Err(reason) => packet.drop(reason),
    }
}
