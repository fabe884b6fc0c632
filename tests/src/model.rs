//! What should the switch do with a frame? The specification: the switch as a page of maps, one frame at a time.
//!
//! In words it is `docs/semantics.md`. It knows nothing of the dataplane's code; `tests/model.rs` and `tests/kernel` prove
//! that the code does the same.
//! Here is what a switch is and what it learns; `model/forward.rs` says who receives, by the tables in
//! `model/macvlan.rs`.

mod forward;
pub mod macvlan;

use std::collections::{BTreeMap, BTreeSet};

use crate::frame::Mac;
pub use macvlan::Mode;

/// The switch: everything that a frame's fate depends on.
#[derive(Clone, PartialEq, Eq)]
pub struct Model {
    /// By slot. A port whose interface is missing is not here.
    pub ports: BTreeMap<u16, Port>,
    pub fdb: BTreeMap<Mac, Entry>,
    /// How many entries the FDB has room for.
    pub fdb_max: usize,
    /// How long after its last frame an entry forwards. 0: nothing is learned and nothing learned is used.
    pub ageing: u64,
    /// How old a time stamp must be to be renewed.
    pub refresh: u64,
    pub now: u64,
    /// Whether host and downlinks exchange frames directly; if not, theirs take the wire, as macvlan's do.
    pub host_access: bool,
    /// macvlan's rules also where vswitch has better ones.
    pub compat: bool,
    /// The senders that ports in source mode list.
    pub sources: BTreeSet<(u16, Mac)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Towards the outside; the others are downlinks.
    pub uplink: bool,
    pub mode: Mode,
    /// What a listed sender sends, nobody has but the ports that list it.
    pub nodst: bool,
    /// Its interface is down or has no carrier.
    pub down: bool,
    pub mtu: u32,
    pub hairpin: bool,
    pub isolated: bool,
    pub learning: bool,
    /// Whether it receives unknown unicast, multicast, broadcast.
    pub flood: bool,
    pub mcast_flood: bool,
    pub bcast_flood: bool,
}

/// A downlink as the user gets it who says nothing.
pub const PLAIN: Port = Port {
    uplink: false,
    mode: Mode::Bridge,
    nodst: false,
    down: false,
    mtu: 1500,
    hairpin: false,
    isolated: false,
    learning: true,
    flood: true,
    mcast_flood: true,
    bcast_flood: true,
};

/// What of a port the user may switch on and off, by the names that it has in JSON.
pub const FLAGS: [(&str, Flag); 7] = [
    ("hairpin", |port| &mut port.hairpin),
    ("isolated", |port| &mut port.isolated),
    ("learning", |port| &mut port.learning),
    ("flood", |port| &mut port.flood),
    ("mcast_flood", |port| &mut port.mcast_flood),
    ("bcast_flood", |port| &mut port.bcast_flood),
    ("nodst", |port| &mut port.nodst),
];

/// Where a flag is in a port.
pub type Flag = fn(&mut Port) -> &mut bool;

/// Who sends, and behind whom an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// The far end of the port in this slot.
    Port(u16),
    /// The machine's own stack, speaking through the uplink in this slot.
    Host { uplink: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Member,
    pub kind: Kind,
    /// When its address last sent a frame, as far as `refresh` lets it be known.
    pub seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ages, and moves to where its address is seen.
    Learned,
    /// Never ages, but moves, as the bridge's does.
    Static,
    /// Does not move, but ages.
    Sticky,
    /// Neither moves nor ages.
    StickyStatic,
    /// An address of the host itself: nothing that a frame says changes it.
    Local,
}

/// What counts of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub dst: Mac,
    pub src: Mac,
    /// With the Ethernet header.
    pub len: u32,
    /// A super-frame, which the interface cuts to its MTU.
    pub gso: bool,
    /// By its EtherType; a pause frame to the address of pause frames is known by that.
    pub pause: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Receiver {
    /// Leaves by the port in this slot.
    Port(u16),
    /// The host's stack, as if received by this uplink.
    Host { uplink: u16 },
    /// The stack of the downlink's interface, whatever the switch is: LLDP belongs to one link.
    HostHere,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub receivers: BTreeSet<Receiver>,
    /// Why nobody receives it.
    pub dropped: Option<&'static str>,
    /// The source address found no room. The frame is forwarded all the same.
    pub fdb_full: bool,
}

/// Where a frame that came in by an uplink was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Outside. So are all frames that did not come in by an uplink.
    Elsewhere,
    /// By the port in this slot, and an adjacent switch sent it back.
    Sibling(u16),
    /// By the host, likewise.
    Host,
    /// Where it was learned last, a downlink in bridge mode, or outside, if its sender has moved there.
    MovedFrom(u16),
}

impl Port {
    /// Those of [`FLAGS`] that are on.
    pub fn flags(mut self) -> impl Iterator<Item = &'static str> {
        FLAGS.into_iter().filter(move |(_, flag)| *flag(&mut self)).map(|(name, _)| name)
    }

    /// Drops what only another mode may have.
    pub fn fit_mode(&mut self) {
        self.nodst &= self.mode == Mode::Source;
    }
}

impl Model {
    /// A switch of these ports that knows nobody yet, has room for 8 addresses and keeps them for 300.
    pub fn plain(ports: impl IntoIterator<Item = (u16, Port)>) -> Self {
        Self {
            ports: ports.into_iter().collect(),
            fdb: BTreeMap::new(),
            fdb_max: 8,
            ageing: 300,
            refresh: 1,
            now: 1000,
            host_access: true,
            compat: false,
            sources: BTreeSet::new(),
        }
    }

    /// Whether the sender's port is one of the switch's.
    pub fn has(&self, member: Member) -> bool {
        self.ports.contains_key(&slot_of(member))
    }

    /// One frame enters the switch now.
    pub fn send(&mut self, from: Member, frame: &Frame) -> Outcome {
        if let Member::Port(slot) = from {
            // What speaks is up, whatever was heard of it last.
            self.ports.get_mut(&slot).unwrap().down = false;
        }
        let admitted = self.admit(from, frame);
        let origin = self.origin(from, frame.src);
        let moves = matches!(origin, Origin::Elsewhere | Origin::MovedFrom(_));
        // A private port's new address that finds no room is unknown, too.
        let unknown = admitted == Err("spoofed_source") && !self.fdb.contains_key(&frame.src);
        let fdb_full = (admitted.is_ok() || unknown) && moves && !self.learn(from, frame.src);
        let fate = admitted.and_then(|()| self.receivers(from, origin, frame));
        Outcome { dropped: fate.as_ref().err().copied(), receivers: fate.unwrap_or_default(), fdb_full }
    }

    /// What no port may send. The host may: its stack was there before the switch. macvlan does not look either.
    fn admit(&self, from: Member, frame: &Frame) -> Result<(), &'static str> {
        match from {
            _ if frame.len < ETHERNET_HEADER => Err("malformed"),
            Member::Host { .. } => Ok(()),
            Member::Port(_) if self.compat => Ok(()),
            Member::Port(_) if !is_station(frame.src) => Err("invalid_source"),
            Member::Port(_) if frame.dst == PAUSE => Err("pause"),
            Member::Port(slot) if self.borrows(slot, frame.src) => Err("spoofed_source"),
            Member::Port(_) => Ok(()),
        }
    }

    /// Whether a private port uses an address that is not known to be its own, under which its frames would come back to
    /// siblings: one that is bound elsewhere, or, where it cannot be learned, that is not bound here.
    fn borrows(&self, slot: u16, source: Mac) -> bool {
        let port = &self.ports[&slot];
        let entry = self.fdb.get(&source);
        let bound = |entry: &Entry| is_sticky(entry.kind) || entry.kind == Kind::Local;
        let here = |entry: &Entry| entry.at == Member::Port(slot);
        let bound_elsewhere = entry.is_some_and(|entry| bound(entry) && !here(entry));
        let known_here = entry.is_some_and(|entry| here(entry) && self.is_alive(entry));
        let learned = port.learning && self.ageing > 0 && (entry.is_some() || self.fdb.len() < self.fdb_max);
        port.mode == Mode::Private && (bound_elsewhere || !known_here && !learned)
    }

    /// Every member's addresses are learned, the host's too. False if there was no room.
    fn learn(&mut self, from: Member, source: Mac) -> bool {
        if self.ageing == 0 || !self.ports[&slot_of(from)].learning || !is_station(source) {
            return true;
        }
        let full = self.fdb.len() >= self.fdb_max;
        match self.fdb.get_mut(&source) {
            None if full => return false,
            None => {
                self.fdb.insert(source, Entry { at: from, kind: Kind::Learned, seen: self.now });
            }
            Some(entry) => match entry.kind {
                Kind::Learned | Kind::Static if entry.at != from => {
                    entry.at = from;
                    entry.seen = self.now;
                }
                Kind::Learned | Kind::Static | Kind::Sticky | Kind::StickyStatic => {
                    if self.now - entry.seen >= self.refresh {
                        entry.seen = self.now;
                    }
                }
                Kind::Local => {}
            },
        }
        true
    }

    /// Whether a frame is a reflection: by whose its source address is.
    pub fn origin(&self, from: Member, source: Mac) -> Origin {
        let by_uplink = matches!(from, Member::Port(slot) if self.ports[&slot].uplink);
        match self.fdb.get(&source) {
            Some(entry) if by_uplink && self.is_alive(entry) => match entry.at {
                // A mere bridge takes its own address in vain, as a bridge does.
                Member::Host { .. } if entry.kind == Kind::Local && self.has_stations() => Origin::Host,
                Member::Port(slot) if self.is_station_of(slot, entry.kind) => Origin::Sibling(slot),
                Member::Port(slot) if self.has_stations() && self.is_of_access(slot) => {
                    Origin::MovedFrom(slot)
                }
                Member::Port(_) | Member::Host { .. } => Origin::Elsewhere,
            },
            Some(_) | None => Origin::Elsewhere,
        }
    }

    /// Whether some downlink may be known to an adjacent switch that reflects.
    pub fn has_stations(&self) -> bool {
        self.ports.values().any(|port| !port.uplink && port.mode != Mode::Bridge)
            || self.fdb.values().any(|entry| {
                matches!(entry.at, Member::Port(slot) if self.ports.get(&slot).is_some_and(|port| !port.uplink))
                    && is_sticky(entry.kind)
            })
    }

    /// Whether an address in the downlink's slot stays there though the wire shows it: because it was given, or because
    /// all that the port sends shows on the wire. macvlan knows of no child that is down.
    fn is_station_of(&self, slot: u16, kind: Kind) -> bool {
        self.ports.get(&slot).is_some_and(|port| {
            !port.uplink && (is_sticky(kind) || port.mode != Mode::Bridge) && !(self.compat && port.down)
        })
    }

    fn is_of_access(&self, slot: u16) -> bool {
        self.ports.get(&slot).is_some_and(|port| !port.uplink)
    }

    fn is_alive(&self, entry: &Entry) -> bool {
        is_permanent(entry.kind) || self.now - entry.seen < self.ageing
    }
}

pub const fn slot_of(member: Member) -> u16 {
    match member {
        Member::Port(slot) | Member::Host { uplink: slot } => slot,
    }
}

/// 802.3 annex 31B: a bridge never forwards it.
const PAUSE: Mac = [0x01, 0x80, 0xc2, 0, 0, 0x01];
const ETHERNET_HEADER: u32 = 14;

const fn is_sticky(kind: Kind) -> bool {
    matches!(kind, Kind::Sticky | Kind::StickyStatic)
}

const fn is_permanent(kind: Kind) -> bool {
    matches!(kind, Kind::Static | Kind::StickyStatic | Kind::Local)
}

const fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

fn is_station(mac: Mac) -> bool {
    !is_group(mac) && mac != [0; 6]
}
