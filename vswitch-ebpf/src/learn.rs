//! Step 2: what does the source address teach?

use crate::{
    abi::{FdbEntry, FdbKey, Settings, fdb_flags, port_flags},
    ingress::Ingress,
    tables::Tables,
};

/// Learns, moves or refreshes the entry of a frame's source address. Returns false if the FDB had no room for it.
///
/// As the bridge's `br_fdb_update`: an entry moves to the port that the address was last seen on and keeps its kind;
/// an address of the host stays, and the frame is forwarded all the same.
#[inline(always)]
pub fn learn(tables: &impl Tables, settings: &Settings, ingress: &Ingress, source: FdbKey) -> bool {
    if settings.ageing == 0 || ingress.port.flags & port_flags::LEARNING == 0 || !source.mac.is_station() {
        return true;
    }
    let now = tables.now();
    let host = if ingress.from_host { fdb_flags::HOST } else { 0 };
    let Some(entry) = tables.fdb(source) else {
        return tables.fdb_insert(source, FdbEntry::new(ingress.slot, host, now));
    };
    if entry.has(fdb_flags::STICKY) {
        return true;
    }
    let moved = entry.slot() != ingress.slot || entry.flags() & fdb_flags::HOST != host;
    if moved || entry.age(now) >= u64::from(settings.refresh) {
        let kind = entry.flags() & !fdb_flags::HOST;
        tables.fdb_update(source, FdbEntry::new(ingress.slot, kind | host, now));
    }
    true
}
