//! Step 2: what does the source address teach, and does it tell a reflection from a frame of the outside?

use crate::{
    abi::{FdbEntry, FdbKey, Settings, Stamp, fdb_flags, mode, port_flags, settings_flags},
    ingress::Ingress,
    policy::compat,
    tables::Tables,
};

/// Where a frame comes from in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether an adjacent switch has sent it back.
    pub kind: OriginKind,
    /// With [`OriginKind::Sibling`], the slot of the port that had sent it.
    pub slot: u16,
    /// With [`OriginKind::Sibling`], that port's mode.
    pub mode: u8,
}

/// Whether a frame is a reflection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginKind {
    /// It is not.
    Fresh,
    /// An access port had sent it up.
    Sibling,
    /// The host had sent it.
    Host,
}

/// What a source address has taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Where the frame comes from in the end.
    pub origin: Origin,
    /// Whether there was no room to learn it.
    pub fdb_full: bool,
}

/// Learns, moves or refreshes the entry of a frame's source address.
///
/// As the bridge's `br_fdb_update`: an entry moves to the port that the address was last seen on and keeps its kind; a
/// sticky one stays where it is and is renewed; an address of the host does not change. The frame is forwarded all the
/// same. An address that an adjacent switch reflects has not moved.
#[inline(always)]
pub fn learn(tables: &impl Tables, settings: &Settings, ingress: &Ingress, source: FdbKey) -> Learned {
    let fresh = Origin { kind: OriginKind::Fresh, slot: 0, mode: 0 };
    let learns = settings.ageing != 0 && ingress.port.flags & port_flags::LEARNING != 0;
    let reflects = ingress.from_wire() && settings.flags & settings_flags::STATIONS != 0;
    if !source.mac.is_station() || !learns && !reflects {
        return Learned { origin: fresh, fdb_full: false };
    }
    let now = tables.now();
    let host = if ingress.from_host { fdb_flags::HOST } else { 0 };
    let Some(entry) = tables.fdb(source) else {
        let full = learns && !tables.fdb_insert(source, FdbEntry::new(ingress.slot, host, now));
        return Learned { origin: fresh, fdb_full: full };
    };
    let origin = if reflects { origin(tables, settings, ingress, entry, now) } else { fresh };
    if learns && matches!(origin.kind, OriginKind::Fresh) {
        update(tables, settings, ingress, source, entry, now);
    }
    Learned { origin, fdb_full: false }
}

/// Who sent a frame that came in by an uplink, by the entry of its source address.
#[inline(always)]
fn origin(
    tables: &impl Tables,
    settings: &Settings,
    ingress: &Ingress,
    entry: FdbEntry,
    now: Stamp,
) -> Origin {
    let fresh = Origin { kind: OriginKind::Fresh, slot: 0, mode: 0 };
    if is_local(entry) {
        return Origin { kind: OriginKind::Host, ..fresh };
    }
    if entry.slot() == ingress.slot || entry.has(fdb_flags::HOST) || entry.expired(now, settings.ageing) {
        return fresh;
    }
    match tables.port(entry.slot()) {
        // An address that was learned from a bridge port may have moved out for good; one of a station that sends
        // everything up is seen out there with its every frame.
        Some(port)
            if port.flags & port_flags::UPLINK == 0
                && (entry.has(fdb_flags::STICKY) || port.mode != mode::BRIDGE)
                // The kernel knows the addresses of the children that are up.
                && (port.flags & port_flags::DOWN == 0 || !compat(settings.flags)) =>
        {
            Origin { kind: OriginKind::Sibling, slot: entry.slot(), mode: port.mode }
        }
        Some(_) | None => fresh,
    }
}

#[inline(always)]
fn update(
    tables: &impl Tables,
    settings: &Settings,
    ingress: &Ingress,
    source: FdbKey,
    entry: FdbEntry,
    now: Stamp,
) {
    if is_local(entry) {
        return;
    }
    let host = if ingress.from_host { fdb_flags::HOST } else { 0 };
    let elsewhere = entry.slot() != ingress.slot || entry.flags() & fdb_flags::HOST != host;
    if elsewhere && !entry.has(fdb_flags::STICKY) {
        let kind = entry.flags() & !fdb_flags::HOST;
        tables.fdb_update(source, FdbEntry::new(ingress.slot, kind | host, now));
    } else if entry.age(now) >= u64::from(settings.refresh) {
        tables.fdb_update(source, FdbEntry::new(entry.slot(), entry.flags(), now));
    }
}

#[inline(always)]
const fn is_local(entry: FdbEntry) -> bool {
    entry.flags() & fdb_flags::LOCAL == fdb_flags::LOCAL
}
