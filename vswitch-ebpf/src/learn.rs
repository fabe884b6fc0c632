//! Step 2: what does the source address teach, and does it tell a reflection from a frame of the outside?

use bytemuck::NoUninit;

use crate::{
    abi::{FdbEntry, FdbKey, Settings, Stamp, fdb_flags, mode, port_flags, settings_flags},
    ingress::Ingress,
    policy::compat,
    tables::Tables,
};

/// Where a frame comes from in the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit)]
pub struct Origin {
    /// With [`OriginKind::Sibling`] and [`OriginKind::Moved`], the slot of the port that had sent it.
    pub slot: u16,
    /// Whether an adjacent switch has sent it back.
    pub kind: OriginKind,
    /// With those, that port's mode.
    pub mode: u8,
}

impl Origin {
    /// Of a frame that is no reflection.
    pub const FRESH: Self = Self { kind: OriginKind::Fresh, slot: 0, mode: 0 };
}

/// Whether a frame is a reflection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit)]
#[repr(u8)]
pub enum OriginKind {
    /// It is not.
    Fresh,
    /// A downlink had sent it up.
    Sibling,
    /// The host had sent it.
    Host,
    /// Its address was last heard at a downlink in bridge mode: it has moved out, or a downlink had sent it up.
    Moved,
    /// A private port pretends to be somebody else.
    Spoofed,
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
/// same. An address that an adjacent switch reflects has not moved. A private port may send from addresses that are known
/// to be its own alone: under another one, what it sends up would come back as somebody else's, and reach siblings.
#[inline(always)]
pub fn learn(
    tables: &impl Tables,
    settings: &Settings,
    ingress: &Ingress,
    source: FdbKey,
    now: Stamp,
) -> Learned {
    let nothing = Learned { origin: Origin::FRESH, fdb_full: false };
    let learns = settings.ageing != 0 && ingress.port.flags & port_flags::LEARNING != 0;
    let reflects = ingress.from_wire() && settings.flags & settings_flags::STATIONS != 0;
    let private = !ingress.from_host && ingress.port.mode == mode::PRIVATE && !compat(settings.flags);
    if !source.mac.is_station() || !learns && !reflects && !private {
        return nothing;
    }
    let spoofed = Learned { origin: Origin { kind: OriginKind::Spoofed, ..Origin::FRESH }, ..nothing };
    let host = if ingress.from_host { fdb_flags::HOST } else { 0 };
    let Some(entry) = tables.fdb(source) else {
        let known = learns && tables.fdb_insert(source, FdbEntry::new(ingress.slot, host, now));
        let answer = if private && !known { spoofed } else { nothing };
        return Learned { fdb_full: learns && !known, ..answer };
    };
    let elsewhere = is_elsewhere(ingress, entry);
    if private
        && (elsewhere && entry.has(fdb_flags::STICKY)
            || !learns && (elsewhere || entry.expired(now, settings.ageing)))
    {
        return spoofed;
    }
    let origin = if reflects { origin(tables, settings, ingress, entry, now) } else { Origin::FRESH };
    if learns && matches!(origin.kind, OriginKind::Fresh | OriginKind::Moved) {
        update(tables, settings, ingress, source, entry, now);
    }
    Learned { origin, ..nothing }
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
    if is_local(entry) {
        return Origin { kind: OriginKind::Host, ..Origin::FRESH };
    }
    if entry.slot() == ingress.slot || entry.has(fdb_flags::HOST) || entry.expired(now, settings.ageing) {
        return Origin::FRESH;
    }
    match tables.port(entry.slot()) {
        // The kernel knows the addresses of the children that are up.
        Some(port)
            if port.flags & port_flags::UPLINK == 0
                && (port.flags & port_flags::DOWN == 0 || !compat(settings.flags)) =>
        {
            // An address that was learned from a bridge port may have moved out for good; one of a station that sends
            // everything up is seen out there with its every frame.
            let stays = entry.has(fdb_flags::STICKY) || port.mode != mode::BRIDGE;
            let kind = if stays { OriginKind::Sibling } else { OriginKind::Moved };
            Origin { kind, slot: entry.slot(), mode: port.mode }
        }
        Some(_) | None => Origin::FRESH,
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
        tables.fdb_replace(source, entry, FdbEntry::new(ingress.slot, kind | host, now));
    } else if entry.age(now) >= u64::from(settings.refresh) {
        tables.fdb_replace(source, entry, FdbEntry::new(entry.slot(), entry.flags(), now));
    }
}

#[inline(always)]
const fn is_elsewhere(ingress: &Ingress, entry: FdbEntry) -> bool {
    entry.slot() != ingress.slot || entry.has(fdb_flags::HOST)
}

#[inline(always)]
const fn is_local(entry: FdbEntry) -> bool {
    entry.flags() & fdb_flags::LOCAL == fdb_flags::LOCAL
}
