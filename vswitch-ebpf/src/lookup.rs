//! Step 3: where is the destination address?

use crate::{
    abi::{FdbKey, Port, Settings, fdb_flags},
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
    /// A reserved group address that stays on its link.
    LinkLocal,
}

/// Finds the destination. An entry past its ageing time is no entry, whether or not anybody has removed it.
#[inline(always)]
pub fn lookup(tables: &impl Tables, settings: &Settings, destination: FdbKey) -> Destination {
    let mac = destination.mac;
    if mac.is_group() {
        return if mac.is_broadcast() {
            Destination::Many(FloodKind::Broadcast)
        } else if mac.link_local().is_some() {
            Destination::LinkLocal
        } else {
            Destination::Many(FloodKind::Multicast)
        };
    }
    let unknown = Destination::Many(FloodKind::UnknownUnicast);
    let Some(entry) = tables.fdb(destination) else {
        return unknown;
    };
    if !entry.has(fdb_flags::STATIC) && entry.expired(tables.now(), settings.ageing) {
        return unknown;
    }
    match tables.port(entry.slot()) {
        Some(uplink) if entry.has(fdb_flags::HOST) => Destination::Host(entry.slot(), uplink),
        Some(port) => Destination::Port(entry.slot(), port),
        None => unknown,
    }
}
