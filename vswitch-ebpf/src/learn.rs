//! Stage 2: what does the source address teach, and does it tell a reflection from a frame of the outside?

use bytemuck::{NoUninit, Zeroable};

use crate::{
    abi::{FdbEntry, Settings, Stamp, fdb_flags, mode, port_flags, settings_flags},
    packet::Packet,
    policy::compat,
    tables::{Change, Look},
};

/// Where a frame comes from in the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, Zeroable)]
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

    const fn of(kind: OriginKind) -> Self {
        Self { kind, ..Self::FRESH }
    }
}

/// Whether a frame is a reflection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, Zeroable)]
#[repr(u8)]
pub enum OriginKind {
    /// It is not.
    Fresh = 0,
    /// A downlink had sent it up.
    Sibling,
    /// The host had sent it.
    Host,
    /// Its address was last heard at a downlink in bridge mode: it has moved out, or a downlink had sent it up.
    Moved,
    /// A private port pretends to be somebody else.
    Spoofed,
}

/// What a frame changes in the tables. Flat, as [`crate::verdict::Verdict`] is, and for its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// What to do.
    pub kind: LessonKind,
    /// With [`LessonKind::Move`] and [`LessonKind::Renew`], the entry of the source address.
    pub entry: FdbEntry,
}

/// What is to be done about the FDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LessonKind {
    /// Nothing.
    Nothing,
    /// The source address is new.
    Insert,
    /// It was elsewhere.
    Move,
    /// It has been heard again, long after the last time.
    Renew,
}

impl Lesson {
    const NOTHING: Self = Self { kind: LessonKind::Nothing, entry: FdbEntry(0) };
}

/// What the source address teaches, and where the frame comes from.
///
/// As the bridge's `br_fdb_update`: an entry moves to the port that the address was last seen on and keeps its kind; a
/// sticky one stays where it is and is renewed; an address of the host does not change. The frame is forwarded all the
/// same. An address that an adjacent switch reflects has not moved. A private port may send from addresses that are known
/// to be its own alone: under another one, what it sends up would come back as somebody else's, and reach siblings.
#[inline(always)]
pub fn consider(packet: &mut Packet, tables: &impl Look, settings: &Settings) -> Lesson {
    let learns = settings.ageing != 0 && packet.flags & port_flags::LEARNING != 0;
    let reflects = packet.from_wire() && packet.settings & settings_flags::STATIONS != 0;
    let private = !packet.from_host && packet.mode == mode::PRIVATE && !compat(packet.settings);
    if !packet.source().mac.is_station() || !learns && !reflects && !private {
        return Lesson::NOTHING;
    }
    let Some(entry) = packet.look_up(tables, packet.source(), settings.ageing) else {
        if private && !learns {
            packet.origin = Origin::of(OriginKind::Spoofed);
        }
        return if learns { Lesson { kind: LessonKind::Insert, ..Lesson::NOTHING } } else { Lesson::NOTHING };
    };
    let elsewhere = is_elsewhere(packet, entry);
    if private
        && (elsewhere && entry.has(fdb_flags::STICKY)
            || !learns && (elsewhere || entry.expired(packet.now, settings.ageing)))
    {
        packet.origin = Origin::of(OriginKind::Spoofed);
        return Lesson::NOTHING;
    }
    if reflects {
        packet.origin = origin(packet, tables, settings, entry);
    }
    if !learns || !matches!(packet.origin.kind, OriginKind::Fresh | OriginKind::Moved) || is_local(entry) {
        return Lesson::NOTHING;
    }
    if elsewhere && !entry.has(fdb_flags::STICKY) {
        return Lesson { kind: LessonKind::Move, entry };
    }
    if entry.age(packet.now) >= Stamp::from(settings.refresh) {
        return Lesson { kind: LessonKind::Renew, entry };
    }
    packet.holds_until(entry.stamp().wrapping_add(Stamp::from(settings.refresh)));
    Lesson::NOTHING
}

/// Makes the FDB say what the frame teaches. What follows from the tables before that is not remembered.
///
/// An address that has moved is restless until it has been heard at one place for as long as a stamp holds. Its first move
/// makes all verdicts forgotten; none is remembered that follows from where it is while it is restless.
#[inline(always)]
pub fn learn(packet: &mut Packet, tables: &impl Change, lesson: Lesson) {
    let key = packet.source();
    let host = if packet.from_host { fdb_flags::HOST } else { 0 };
    let Lesson { kind, entry } = lesson;
    match kind {
        LessonKind::Nothing => return,
        LessonKind::Insert => {
            let known = tables.fdb_insert(key, FdbEntry::new(packet.slot, host, packet.now));
            packet.fdb_full = !known;
            let private = !packet.from_host && packet.mode == mode::PRIVATE && !compat(packet.settings);
            if private && !known {
                packet.origin = Origin::of(OriginKind::Spoofed);
            }
        }
        LessonKind::Move => {
            let flags = entry.flags() & !fdb_flags::HOST | host | fdb_flags::RESTLESS;
            tables.fdb_replace(key, entry, FdbEntry::new(packet.slot, flags, packet.now));
            if !entry.has(fdb_flags::RESTLESS) {
                tables.forget();
            }
        }
        LessonKind::Renew => {
            let flags = entry.flags() & !fdb_flags::RESTLESS;
            tables.fdb_replace(key, entry, FdbEntry::new(entry.slot(), flags, packet.now));
        }
    }
    packet.holds_until(0);
}

/// Who sent a frame that came in by an uplink, by the entry of its source address.
#[inline(always)]
fn origin(packet: &Packet, tables: &impl Look, settings: &Settings, entry: FdbEntry) -> Origin {
    if is_local(entry) {
        return Origin::of(OriginKind::Host);
    }
    if entry.slot() == packet.slot || entry.has(fdb_flags::HOST) || entry.expired(packet.now, settings.ageing)
    {
        return Origin::FRESH;
    }
    match tables.port(entry.slot()) {
        // The kernel knows the addresses of the children that are up.
        Some(port)
            if port.flags & port_flags::UPLINK == 0
                && (!compat(packet.settings) || !tables.is_down(entry.slot())) =>
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
const fn is_elsewhere(packet: &Packet, entry: FdbEntry) -> bool {
    entry.slot() != packet.slot || entry.has(fdb_flags::HOST) != packet.from_host
}

#[inline(always)]
const fn is_local(entry: FdbEntry) -> bool {
    entry.flags() & fdb_flags::LOCAL == fdb_flags::LOCAL
}
