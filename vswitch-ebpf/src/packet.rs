//! What is known of one frame on its way: the context that every stage reads and adds to.

use bytemuck::{NoUninit, Zeroable};

use crate::{
    abi::{FdbEntry, FdbKey, Port, Stamp, fdb_flags, port_flags},
    frame::{ETH_P_PAUSE, Header},
    learn::Origin,
    tables::Look,
    verdict::{Action, Decision, DropReason, Members, Target, Verdict},
};

/// Where a program saw the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Received on this interface: from the wire, or from the far end of a veth or tap.
    Received(u32),
    /// Being sent by the host through this interface, an uplink.
    SentByHost(u32),
}

impl Hook {
    /// The interface.
    #[inline(always)]
    pub const fn ifindex(self) -> u32 {
        match self {
            Self::Received(ifindex) | Self::SentByHost(ifindex) => ifindex,
        }
    }

    /// All of it as a number. The kernel's indices are positive `int`s.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        match self {
            Self::Received(ifindex) => ifindex,
            Self::SentByHost(ifindex) => ifindex | 1 << 31,
        }
    }
}

/// For how many a frame is, by its destination address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, Zeroable)]
#[repr(u8)]
pub enum Class {
    /// For one station.
    Unicast = 0,
    /// For a group other than broadcast.
    Multicast,
    /// For everybody: ff:ff:ff:ff:ff:ff.
    Broadcast,
}

/// One frame, from the stage that lets it in to the verdict.
///
/// It is passed by reference, and its first words begin as zeroes: nothing is known, and it goes nowhere. It has no byte of
/// padding, so that these can be cleared as words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, NoUninit, Zeroable)]
pub struct Packet {
    /// From when on what was looked up would say something else, with no change of the tables: the verdict may be remembered
    /// until then. 0: not at all.
    pub until: Stamp,
    /// Slot of the port that it entered by; for a frame of the host, of the uplink that it is leaving by.
    pub slot: u16,
    /// That port's [`Port::mode`].
    pub mode: u8,
    /// For how many it is.
    pub class: Class,
    /// Where it comes from in the end.
    pub origin: Origin,
    /// Whether the host is the sender, and not the port's far end.
    pub from_host: bool,
    /// Whether its source address found no room in the FDB.
    pub fdb_full: bool,
    /// Whether it is a MAC control frame (ETH_P_PAUSE).
    pub pause: bool,
    /// Explicit padding, zero.
    pub reserved: u8,
    /// What was decided.
    pub verdict: Verdict,
    /// Where it goes: [`FdbKey::word`]. Words, for of bytes in memory the compiler loads one by one.
    pub destination: u64,
    /// Where it says that it comes from, likewise.
    pub source: u64,
    /// When the decision began.
    pub now: Stamp,
    /// Its port's [`port_flags`].
    pub flags: u32,
    /// [`crate::abi::Settings::flags`].
    pub settings: u32,
    /// [`crate::frame::Frame::wire_len`].
    pub wire_len: u32,
    /// [`crate::frame::Frame::length`].
    pub len: u32,
    /// Of a frame for many: who has it of the member that was asked last.
    pub answer: u32,
    /// Explicit padding, zero.
    pub reserved_too: u32,
}

/// How many words of a packet must be zeroes at first: up to the verdict's target. The others are written before they are read.
pub const CLEARED: usize = 3;

const _: () = assert!(core::mem::offset_of!(Packet, verdict.target) == size_of::<[u64; CLEARED]>());

impl Packet {
    /// Takes over what was read of the frame.
    #[inline(always)]
    pub fn read(&mut self, header: &Header) {
        (self.destination, self.source) = (header.destination.word(), header.source.word());
        self.pause = header.ethertype == ETH_P_PAUSE;
        if header.destination.is_group() {
            let broadcast = header.destination.is_broadcast();
            self.class = if broadcast { Class::Broadcast } else { Class::Multicast };
        }
    }

    /// Whether it came in by an uplink.
    #[inline(always)]
    pub const fn from_wire(&self) -> bool {
        !self.from_host && self.flags & port_flags::UPLINK != 0
    }

    /// The time at which the decision about it begins.
    #[inline(always)]
    pub const fn begin(&mut self, now: Stamp) {
        (self.now, self.until) = (now, Stamp::MAX);
    }

    /// It goes to one port.
    #[inline(always)]
    pub const fn forward(&mut self, slot: u16, port: &Port) {
        self.verdict.action = Action::Forward;
        self.verdict.list = Members::Nobody;
        self.verdict.target = Target::new(slot, port);
    }

    /// It goes to the host behind this uplink.
    #[inline(always)]
    pub const fn host(&mut self, slot: u16, uplink: &Port) {
        self.forward(slot, uplink);
        self.verdict.action = Action::Host;
    }

    /// It goes to the stack of the interface that it is on.
    #[inline(always)]
    pub const fn host_here(&mut self) {
        self.verdict.action = Action::HostHere;
        self.verdict.list = Members::Nobody;
    }

    /// It goes to many.
    #[inline(always)]
    pub const fn flood(&mut self, list: Members) {
        self.verdict.action = Action::Flood;
        self.verdict.list = list;
    }

    /// It goes nowhere.
    #[inline(always)]
    pub const fn drop(&mut self, reason: DropReason) {
        self.verdict.action = Action::Drop;
        self.verdict.reason = reason;
        self.verdict.list = Members::Nobody;
    }

    /// What was decided, and whose frame it is about.
    #[inline(always)]
    pub const fn decision(&self) -> Decision {
        let Self { slot, from_host, fdb_full, verdict, .. } = *self;
        Decision { slot, from_host, fdb_full, verdict }
    }

    /// The FDB's key of its destination.
    #[inline(always)]
    pub const fn destination(&self) -> FdbKey {
        FdbKey::from_word(self.destination)
    }

    /// The FDB's key of its source.
    #[inline(always)]
    pub const fn source(&self) -> FdbKey {
        FdbKey::from_word(self.source)
    }

    /// Looks an address up, and notes for how long the answer holds by itself. The one way to the FDB for all stages.
    ///
    /// What is not there may come, which makes nobody forget; and what is restless moves on like that, too.
    #[inline(always)]
    pub fn look_up(&mut self, tables: &impl Look, key: FdbKey, ageing: u32) -> Option<FdbEntry> {
        let found = tables.fdb(key);
        let holds = match found {
            Some(entry) if entry.has(fdb_flags::RESTLESS) => 0,
            Some(entry) if entry.has(fdb_flags::STATIC) => Stamp::MAX,
            Some(entry) if !entry.expired(self.now, ageing) => entry.stamp().wrapping_add(ageing as Stamp),
            // One that is past its time is renewed when the address speaks again.
            Some(_) | None => 0,
        };
        self.holds_until(holds);
        found
    }

    /// Notes that the verdict holds no longer than so.
    #[inline(always)]
    pub const fn holds_until(&mut self, stamp: Stamp) {
        if stamp < self.until {
            self.until = stamp;
        }
    }
}
