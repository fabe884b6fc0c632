//! Step 3: where is the destination address?

use crate::{
    abi::{FdbKey, Port, Settings, fdb_flags, port_flags, settings_flags},
    frame::{ETH_P_PAUSE, Header},
    ingress::Ingress,
    tables::Tables,
    verdict::FloodKind,
};

/// What the switch knows of a destination address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Behind this port.
    Port(u16, Port),
    /// The host's stack, behind this uplink.
    Host(u16, Port),
    /// For many, or nobody knows.
    Many(FloodKind),
    /// Behind a port that is down or missing.
    Down,
    /// A reserved group address that stays on its link.
    LinkLocal,
    /// A pause frame where macvlan's rules hold: it has no siblings, but a wire and a host.
    Pause,
}

/// Finds the destination. An entry past its ageing time is no entry, whether or not anybody has removed it.
#[inline(always)]
pub fn lookup(tables: &impl Tables, settings: &Settings, ingress: &Ingress, header: &Header) -> Destination {
    let mac = header.destination;
    if mac.is_group() {
        let compat = settings.flags & settings_flags::MACVLAN_COMPAT != 0;
        return if compat && header.ethertype == ETH_P_PAUSE {
            Destination::Pause
        } else if mac.is_broadcast() {
            Destination::Many(FloodKind::Broadcast)
        } else if !compat && mac.link_local().is_some() {
            Destination::LinkLocal
        } else {
            Destination::Many(FloodKind::Multicast)
        };
    }
    if settings.passthru != 0 && ingress.from_wire() {
        return match live(tables, settings.passthru) {
            Some(port) => Destination::Port(settings.passthru, port),
            None => Destination::Down,
        };
    }
    let unknown = Destination::Many(FloodKind::UnknownUnicast);
    let Some(entry) = tables.fdb(FdbKey { mac, vlan: 0 }) else {
        return unknown;
    };
    let ages = !entry.has(fdb_flags::STATIC);
    if ages && entry.expired(tables.now(), settings.ageing) {
        return unknown;
    }
    match live(tables, entry.slot()) {
        Some(port) if entry.has(fdb_flags::HOST) => Destination::Host(entry.slot(), port),
        Some(port) => Destination::Port(entry.slot(), port),
        // The bridge forgets what it has learned from a port that goes down, and keeps what it was told.
        None if ages => unknown,
        None => Destination::Down,
    }
}

/// The port in a slot, if frames can be forwarded to it.
#[inline(always)]
fn live(tables: &impl Tables, slot: u16) -> Option<Port> {
    tables.port(slot).filter(|port| port.flags & port_flags::DOWN == 0)
}
