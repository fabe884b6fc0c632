//! Step 5: from a destination that is allowed to a verdict.

use crate::{
    abi::{Port, Settings, listed, mode, port_flags},
    frame::MacAddr,
    ingress::Ingress,
    learn::{Origin, OriginKind},
    lookup::{Destination, Place},
    policy::{self, compat, is_uplink},
    tables::Tables,
    verdict::{Action, DropReason, FloodKind, Target, Verdict},
};

/// What the verdict follows from.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What holds for the switch.
    pub settings: Settings,
    /// Who sent the frame.
    pub ingress: Ingress,
    /// Where it comes from in the end.
    pub origin: Origin,
    /// Its source address.
    pub sender: MacAddr,
    /// [`crate::frame::Frame::wire_len`].
    pub wire_len: u32,
}

/// The verdict for a frame to `destination`.
#[inline(always)]
pub fn egress(tables: &impl Tables, facts: &Facts, destination: Destination) -> Verdict {
    let ingress = &facts.ingress;
    if ingress.from_host {
        return from_host(tables, facts, destination);
    }
    let (verdict, received) = if ingress.from_wire() {
        // A list does not make a link-local frame leave its link.
        (from_wire(facts, destination), !matches!(destination.place, Place::LinkLocal))
    } else {
        // What one sibling sends to another enters the kernel's macvlan as if it were received.
        let to_sibling =
            matches!(destination.place, Place::Port) && policy::siblings(&ingress.port, &destination.port);
        (from_station(tables, facts, destination), to_sibling && !is_uplink(&destination.port))
    };
    if received { with_listed(tables, facts, verdict) } else { verdict }
}

/// What becomes of a flood that reached this many ports: dropped if nobody, not even the host, had it.
#[inline(always)]
pub fn flooded(origin: OriginKind, ports: u32, host: bool) -> Result<(), DropReason> {
    match origin {
        _ if ports != 0 || host => Ok(()),
        OriginKind::Fresh | OriginKind::Moved | OriginKind::Spoofed => Err(DropReason::NoReceiver),
        OriginKind::Sibling | OriginKind::Host => Err(DropReason::Reflected),
    }
}

/// The host sends: out of the wire that its routing has chosen, unless a port is known to have the address.
#[inline(always)]
fn from_host(tables: &impl Tables, facts: &Facts, destination: Destination) -> Verdict {
    let Facts { settings, ingress, sender, wire_len, .. } = facts;
    let Destination { place, slot, port, kind } = destination;
    match place {
        Place::Port
            if policy::reaches_host(&port, settings.flags)
                && (port.mode != mode::SOURCE
                    || policy::lists(tables, settings.flags, slot, &port, *sender)) =>
        {
            to_port(ingress, slot, &port, *wire_len)
        }
        Place::Many => Verdict::flood(kind),
        // Also the host talking to an address of its own: where it would have gone without the switch.
        Place::Port | Place::Host | Place::Down | Place::LinkLocal | Place::Pause => {
            Verdict::forward(Target::new(ingress.slot, &ingress.port))
        }
    }
}

/// A frame from outside, or a reflection.
#[inline(always)]
fn from_wire(facts: &Facts, destination: Destination) -> Verdict {
    let Facts { settings, ingress, origin, wire_len, .. } = facts;
    let Destination { place, slot, port, kind } = destination;
    match place {
        Place::Port if policy::is_kept_private(settings.flags, origin, &port) => {
            Verdict::drop(DropReason::Private)
        }
        // Its own address does not lead to a port in source mode.
        Place::Port if port.mode == mode::SOURCE => Verdict::flood(FloodKind::UnknownUnicast),
        // What was learned from outside is no child's either: the kernel lets its stack have the frame.
        Place::Port if compat(settings.flags) && is_back(ingress, slot, &port) => Verdict::host_here(),
        Place::Port => to_port(ingress, slot, &port, *wire_len),
        Place::Host => Verdict::host(Target::new(slot, &port)),
        Place::Many => Verdict::flood(kind),
        // Without passthru the kernel looks for a child that is up, and lets its stack have the frame else.
        Place::Down if compat(settings.flags) && settings.passthru == 0 => Verdict::host_here(),
        Place::Down => Verdict::drop(DropReason::PortDown),
        // Of a child that hears itself the kernel does not ask what it is.
        Place::Pause if policy::is_silent(origin) => Verdict::flood(kind),
        Place::LinkLocal | Place::Pause => Verdict::host_here(),
    }
}

/// A frame from a downlink: to a sibling if both are in bridge mode, to the host, or by the wire.
#[inline(always)]
fn from_station(tables: &impl Tables, facts: &Facts, destination: Destination) -> Verdict {
    let Facts { settings, ingress, origin, wire_len, .. } = facts;
    let Destination { place, slot, port, kind } = destination;
    match place {
        _ if matches!(origin.kind, OriginKind::Spoofed) => Verdict::drop(DropReason::SpoofedSource),
        // The kernel gives a child in bridge mode what it sends to itself.
        Place::Port
            if compat(settings.flags) && slot == ingress.slot && ingress.port.mode == mode::BRIDGE =>
        {
            Verdict::forward(Target::new(slot, &port))
        }
        Place::Port if is_uplink(&port) || policy::siblings(&ingress.port, &port) => {
            to_port(ingress, slot, &port, *wire_len)
        }
        Place::Host if policy::reaches_host(&ingress.port, settings.flags) => {
            Verdict::host(Target::new(slot, &port))
        }
        Place::Many => Verdict::flood(kind),
        Place::LinkLocal => Verdict::host_here(),
        Place::Down if !compat(settings.flags) && ingress.port.mode == mode::BRIDGE => {
            Verdict::drop(DropReason::PortDown)
        }
        Place::Port | Place::Host | Place::Down | Place::Pause => to_wire(tables, facts),
    }
}

/// Whether a frame for one port would go back where it came from, which takes `hairpin`.
#[inline(always)]
const fn is_back(ingress: &Ingress, slot: u16, port: &Port) -> bool {
    slot == ingress.slot && port.flags & port_flags::HAIRPIN == 0
}

/// Out by the only uplink, or by all of them.
#[inline(always)]
fn to_wire(tables: &impl Tables, facts: &Facts) -> Verdict {
    let Facts { settings, ingress, wire_len, .. } = facts;
    match tables.port(settings.wire) {
        Some(port) if settings.wire != 0 && port.flags & port_flags::DOWN != 0 => {
            Verdict::drop(DropReason::PortDown)
        }
        Some(port) if settings.wire != 0 => to_port(ingress, settings.wire, &port, *wire_len),
        Some(_) | None => Verdict::flood(FloodKind::Wire),
    }
}

/// Adds the ports in source mode that list the sender; with `nodst` they alone have the frame (macvlan's
/// `macvlan_forward_source`).
#[inline(always)]
fn with_listed(tables: &impl Tables, facts: &Facts, verdict: Verdict) -> Verdict {
    let settings = facts.settings.flags;
    let says = policy::listed_by_any(tables, settings, facts.sender);
    let for_many = matches!(verdict.action, Action::Flood);
    if says == 0 || policy::is_unlisted(settings, &facts.origin, for_many) {
        return verdict;
    }
    if says & listed::NODST != 0 {
        return Verdict::flood(FloodKind::Listed);
    }
    match verdict.action {
        Action::Forward => Verdict::known(FloodKind::Known, verdict.target),
        Action::Host => Verdict::known(FloodKind::KnownHost, verdict.target),
        Action::HostHere => {
            let ingress = &facts.ingress;
            Verdict::known(FloodKind::KnownHost, Target::new(ingress.slot, &ingress.port))
        }
        Action::Drop => Verdict::flood(FloodKind::Listed),
        Action::Flood => verdict,
    }
}

#[inline(always)]
fn to_port(ingress: &Ingress, slot: u16, port: &Port, wire_len: u32) -> Verdict {
    match policy::may_reach(ingress, slot, port, wire_len) {
        Ok(()) => Verdict::forward(Target::new(slot, port)),
        Err(reason) => Verdict::drop(reason),
    }
}
