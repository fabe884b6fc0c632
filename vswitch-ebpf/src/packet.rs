//! What is known of one frame on its way: the context that every stage reads and adds to.

use bytemuck::NoUninit;

use crate::{
    abi::{FdbEntry, FdbKey, Stamp, fdb_flags, port_flags},
    frame::{ETH_P_PAUSE, Header, MacAddr},
    learn::Origin,
    tables::Look,
    verdict::{Decision, DropReason, Verdict},
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit)]
#[repr(u8)]
pub enum Class {
    /// For one station.
    Unicast,
    /// For a group other than broadcast.
    Multicast,
    /// For everybody: ff:ff:ff:ff:ff:ff.
    Broadcast,
}

/// One frame, from the stage that lets it in to the verdict.
///
/// It lies on the entry point's stack, is passed by reference, and has no byte of padding, which the compiler might leave
/// unwritten and the verifier wants to see written.
#[repr(C)]
#[derive(Clone, Copy, Debug, NoUninit)]
pub struct Packet {
    /// Where the frame goes.
    pub destination: MacAddr,
    /// Where it says that it comes from.
    pub source: MacAddr,
    /// Slot of the port that it entered by; for a frame of the host, of the uplink that it is leaving by.
    pub slot: u16,
    /// That port's [`crate::abi::Port::mode`].
    pub mode: u8,
    /// For how many it is.
    pub class: Class,
    /// That port's [`port_flags`].
    pub flags: u32,
    /// [`crate::abi::Settings::flags`].
    pub settings: u32,
    /// [`crate::frame::Frame::wire_len`].
    pub wire_len: u32,
    /// [`crate::frame::Frame::length`].
    pub len: u32,
    /// When the decision began.
    pub now: Stamp,
    /// From when on what was looked up would say something else, with no change of the tables: the verdict may be remembered
    /// until then. 0: not at all.
    pub until: Stamp,
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
    /// Explicit padding, zero.
    pub reserved_too: u32,
}

impl Packet {
    /// Of which nothing has been read yet.
    pub const UNREAD: Self = Self {
        destination: MacAddr([0; 6]),
        source: MacAddr([0; 6]),
        slot: 0,
        mode: 0,
        class: Class::Unicast,
        flags: 0,
        settings: 0,
        wire_len: 0,
        len: 0,
        now: 0,
        until: 0,
        origin: Origin::FRESH,
        from_host: false,
        fdb_full: false,
        pause: false,
        reserved: 0,
        verdict: Verdict::drop(DropReason::Malformed),
        reserved_too: 0,
    };

    /// Takes over what was read of the frame.
    #[inline(always)]
    pub fn read(&mut self, header: &Header) {
        (self.destination, self.source) = (header.destination, header.source);
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

    /// What was decided, and whose frame it is about.
    #[inline(always)]
    pub const fn decision(&self) -> Decision {
        let Self { slot, from_host, fdb_full, verdict, .. } = *self;
        Decision { slot, from_host, fdb_full, verdict }
    }

    /// The FDB's key of an address in the frame's VLAN.
    #[inline(always)]
    pub const fn key(&self, mac: MacAddr) -> FdbKey {
        FdbKey { mac, vlan: 0 }
    }

    /// Looks an address up, and notes for how long the answer holds by itself. The one way to the FDB for all stages.
    ///
    /// What is not there may come, which makes nobody forget; and what is restless moves on like that, too.
    #[inline(always)]
    pub fn look_up(&mut self, tables: &impl Look, mac: MacAddr, ageing: u32) -> Option<FdbEntry> {
        let found = tables.fdb(self.key(mac));
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
