//! Step 2: what does the source address teach?

use crate::{
    abi::{FdbEntry, FdbKey, Settings, fdb_flags, port_flags},
    ingress::Ingress,
    tables::Tables,
};

/// Learns, moves or refreshes the entry of a frame's source address. Returns false if the FDB had no room for it.
///
/// As the bridge's `br_fdb_update`: an entry moves to the port that the address was last seen on and keeps its kind;
/// a sticky one stays where it is and is renewed; an address of the host does not change. The frame is forwarded all
/// the same.
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
    if entry.flags() & fdb_flags::LOCAL == fdb_flags::LOCAL {
        return true;
    }
    let elsewhere = entry.slot() != ingress.slot || entry.flags() & fdb_flags::HOST != host;
    if elsewhere && !entry.has(fdb_flags::STICKY) {
        let kind = entry.flags() & !fdb_flags::HOST;
        tables.fdb_update(source, FdbEntry::new(ingress.slot, kind | host, now));
    } else if entry.age(now) >= u64::from(settings.refresh) {
        tables.fdb_update(source, FdbEntry::new(entry.slot(), entry.flags(), now));
    }
    true
}
