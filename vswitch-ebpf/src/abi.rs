//! Every byte that the kernel side and userspace share, and the version that names their layout.
//!
//! All values are in the byte order of the machine: both sides run on it. A change of any layout, map type or meaning
//! here raises [`ABI_VERSION`], which is part of the pins' path.

use bytemuck::{Pod, Zeroable};

use crate::frame::MacAddr;

/// Version of everything in this file; programs and pins of another version are never mixed.
pub const ABI_VERSION: u32 = 3;

/// Entries of the source lists of all ports together.
pub const SOURCES_MAX: u32 = 8192;

/// Number of port slots. Slot 0 is the host; ports have slots from 1.
pub const MAX_PORTS: u32 = 1024;

/// The slot of the machine's own stack. It has counters but no interface of its own.
pub const HOST_SLOT: u16 = 0;

/// Entries of the FDB when the user names no limit.
pub const DEFAULT_FDB_MAX: u32 = 65_536;

/// `skb->mark` of a frame that the switch has decided and that now passes another hook of the same uplink on its way
/// ("VSWd"). The hook clears it, so that it never leaves the machine.
pub const SWITCHED_MARK: u32 = 0x5653_5764;

/// A moment in the kernel's ticks (`jiffies_64`): reading it is one load, which no other clock's is. [`Identity`] says how it
/// follows from CLOCK_MONOTONIC.
pub type Stamp = u64;

/// What holds for the whole switch: the only element of the map `SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// Age, in [`Stamp`] units, at which a learned entry no longer forwards. 0: nothing is learned, as in the bridge.
    pub ageing: u32,
    /// An entry's stamp is renewed when it is at least this old, in [`Stamp`] units (a second, or less for a short
    /// ageing time): storing on every frame would bounce the cache line between CPUs.
    pub refresh: u32,
    /// [`settings_flags`].
    pub flags: u32,
    /// Slot of the only uplink, by which frames for the outside leave; 0 with none or several.
    pub wire: u16,
    /// Slot of the downlink in passthru mode; 0 if there is none.
    pub passthru: u16,
}

/// Bits of [`Settings::flags`].
pub mod settings_flags {
    /// Ports and host reach each other directly.
    pub const HOST_ACCESS: u32 = 1 << 0;
    /// Exactly the kernel macvlan's rules where vswitch differs from them on purpose.
    pub const MACVLAN_COMPAT: u32 = 1 << 1;
    /// Some downlink has a known address or a mode other than bridge: what arrives by an uplink may be the reflection
    /// of what a port or the host has sent.
    pub const STATIONS: u32 = 1 << 2;
    /// Some downlink is in source mode.
    pub const SOURCES: u32 = 1 << 3;
}

/// A port as the dataplane needs it: element of the map `PORTS`, by slot. An all-zero element is a free slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Port {
    /// The interface; 0 while the slot is free or its interface is missing.
    pub ifindex: u32,
    /// MTU of the interface in bytes, without the Ethernet header.
    pub mtu: u32,
    /// [`port_flags`].
    pub flags: u32,
    /// [`mode`].
    pub mode: u8,
    /// Explicit padding, zero.
    pub reserved: [u8; 3],
}

/// Bits of [`Port::flags`].
pub mod port_flags {
    /// A port towards the outside; without it a downlink.
    pub const UPLINK: u32 = 1 << 0;
    /// May send a frame back out where it came from.
    pub const HAIRPIN: u32 = 1 << 1;
    /// Exchanges nothing with other isolated ports.
    pub const ISOLATED: u32 = 1 << 2;
    /// Source addresses are learned here.
    pub const LEARNING: u32 = 1 << 3;
    /// Receives unknown unicast.
    pub const FLOOD: u32 = 1 << 4;
    /// Receives multicast.
    pub const MCAST_FLOOD: u32 = 1 << 5;
    /// Receives broadcast.
    pub const BCAST_FLOOD: u32 = 1 << 6;
    /// Frames that arrive by XDP may be delivered here by XDP.
    pub const XDP: u32 = 1 << 7;
    /// The interface is a veth whose peer is in another namespace: `bpf_redirect_peer` delivers.
    pub const PEER: u32 = 1 << 8;
    /// Source mode: frames from listed senders go to the listing ports alone (macvlan's `nodst`).
    pub const NODST: u32 = 1 << 10;
}

/// Bits of an element of the map `STATES`, by slot: what frames and the controller change of a port, in a word of its own.
/// Both sides change single bits by atomic operations, so that neither undoes what the other has just done.
pub mod port_state {
    /// Its interface is down or has no carrier. As with the bridge's and macvlan's, nothing is forwarded to it.
    pub const DOWN: u32 = 1 << 0;
}

/// Values of [`Port::mode`]: macvlan's words. Uplinks have [`mode::BRIDGE`].
pub mod mode {
    /// Exchanges frames with its siblings directly.
    pub const BRIDGE: u8 = 0;
    /// Sends everything up; siblings are reached through a reflecting switch.
    pub const VEPA: u8 = 1;
    /// Never exchanges frames with siblings.
    pub const PRIVATE: u8 = 2;
    /// The only port: takes everything.
    pub const PASSTHRU: u8 = 3;
    /// Receives by the frames' source addresses.
    pub const SOURCE: u8 = 4;
}

/// Elements of the map `INTERFACES`: eight for each port, so that probing ends early.
pub const INTERFACES_MAX: u32 = 8 * MAX_PORTS;

/// How many elements of `INTERFACES`, from `ifindex % INTERFACES_MAX` on, may hold an interface.
pub const PROBES: u32 = 8;

/// Element of the map `INTERFACES`: which slot an interface has. An array that is probed and not a hash: there is a
/// look-up for every frame, and an array's is inlined. Not indexed by ifindex alone, which grows without bound.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Interface {
    /// The interface; 0 if the element is free.
    pub ifindex: u32,
    /// Its slot.
    pub slot: u32,
}

impl Interface {
    /// Where to look for an interface: the element at the n-th probe.
    #[inline(always)]
    pub const fn element(ifindex: u32, probe: u32) -> u32 {
        ifindex.wrapping_add(probe) % INTERFACES_MAX
    }
}

/// What the FDB knows something of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FdbKey {
    /// The address.
    pub mac: MacAddr,
    /// The VLAN identifier; 0 while the switch is not VLAN-aware.
    pub vlan: u16,
}

impl FdbKey {
    /// Address and VLAN in one word, to be compared at once.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.mac.word() | (self.vlan as u64) << 48
    }

    /// The key of that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, ..] = word.to_le_bytes();
        Self { mac: MacAddr([a, b, c, d, e, f]), vlan: (word >> 48) as u16 }
    }
}

/// Elements of the map `MEMBERS`: the slots of all lists' members, each list's in one row.
pub const MEMBERS_MAX: u32 = 32_768;

/// A list of members, as one word that is replaced as a whole: where its row in the map `MEMBERS` begins, and how long it is.
///
/// Userspace writes a new row where no list is, then the word, and uses the old row's room again after a grace period.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct List(pub u64);

impl List {
    /// In a word of the map `SOURCES`: a port with [`port_flags::NODST`] lists the sender.
    const NODST: u64 = 1 << 63;
    const LENGTH_SHIFT: u32 = 32;
    const LENGTH_MASK: u64 = (1 << 16) - 1;

    /// The row of `length` members from the element `first` on.
    #[inline(always)]
    pub const fn new(first: u32, length: u16) -> Self {
        Self(first as u64 | (length as u64) << Self::LENGTH_SHIFT)
    }

    /// As this one, and frames of the sender go to its members alone.
    #[must_use]
    pub const fn with_nodst(self) -> Self {
        Self(self.0 | Self::NODST)
    }

    /// The element of the first member.
    #[inline(always)]
    pub const fn first(self) -> u32 {
        self.0 as u32
    }

    /// How many members it has.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        (self.0 >> Self::LENGTH_SHIFT & Self::LENGTH_MASK) as u32
    }

    /// Whether it has none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether frames of the sender go to its members alone (macvlan's `nodst`).
    #[inline(always)]
    pub const fn nodst(self) -> bool {
        self.0 & Self::NODST != 0
    }
}

/// Elements of the map `LISTS`.
pub mod lists {
    /// Every port whose interface is there: who may have a frame for many.
    pub const DOMAIN: u32 = 0;
    /// The uplinks among them.
    pub const UPLINKS: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// Key of the map `SOURCES`: a sender, and a port in source mode that lists it. With slot 0 the sender alone: its value is
/// the [`List`] of all ports that list it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct SourceKey {
    /// The sender's address.
    pub mac: MacAddr,
    /// The port's slot.
    pub slot: u16,
}

/// Value of the map `SOURCES` for a sender and a port that lists it.
pub const LISTED: u64 = 1;

/// What the FDB knows of an address: one aligned word, so that a reader never sees the port of one store with the stamp of another.
///
/// Bits 0 to 15: slot. Bits 16 to 23: [`fdb_flags`]. Bits 24 to 63: the [`Stamp`] of the last frame from the address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FdbEntry(pub u64);

/// Flags of an [`FdbEntry`].
pub mod fdb_flags {
    /// Never ages.
    pub const STATIC: u8 = 1 << 0;
    /// Does not move when its address is seen as source on another port.
    pub const STICKY: u8 = 1 << 1;
    /// The address belongs to the host's stack, reached through the uplink in the entry's slot.
    pub const HOST: u8 = 1 << 2;
    /// It has moved less than [`super::Settings::refresh`] ago. While it is so, no verdict that follows from it is
    /// remembered, and its moving on makes no other verdict forgotten: a station that moves an address with each frame
    /// costs nobody else anything.
    pub const RESTLESS: u8 = 1 << 5;
    /// An address of the host itself: the bridge's "permanent".
    pub const LOCAL: u8 = STATIC | STICKY | HOST;
}

impl FdbEntry {
    const FLAGS_SHIFT: u32 = 16;
    const STAMP_SHIFT: u32 = 24;
    const STAMP_MASK: u64 = (1 << 40) - 1;

    /// An entry for `slot` with [`fdb_flags`], last seen at `stamp`.
    #[inline(always)]
    pub const fn new(slot: u16, flags: u8, stamp: Stamp) -> Self {
        Self(
            slot as u64
                | (flags as u64) << Self::FLAGS_SHIFT
                | (stamp & Self::STAMP_MASK) << Self::STAMP_SHIFT,
        )
    }

    /// The port.
    #[inline(always)]
    pub const fn slot(self) -> u16 {
        self.0 as u16
    }

    /// [`fdb_flags`].
    #[inline(always)]
    pub const fn flags(self) -> u8 {
        (self.0 >> Self::FLAGS_SHIFT) as u8
    }

    /// Whether any of the `flags` is set.
    #[inline(always)]
    pub const fn has(self, flags: u8) -> bool {
        self.flags() & flags != 0
    }

    /// When the last frame from the address was seen, as far as [`Settings::refresh`] lets it be known.
    #[inline(always)]
    pub const fn stamp(self) -> Stamp {
        self.0 >> Self::STAMP_SHIFT
    }

    /// Time since [`FdbEntry::stamp`]; 0 if another CPU's clock is ahead.
    #[inline(always)]
    pub const fn age(self, now: Stamp) -> Stamp {
        now.saturating_sub(self.stamp())
    }

    /// Whether the entry no longer forwards: it ages and its time is over.
    #[inline(always)]
    pub const fn expired(self, now: Stamp, ageing: u32) -> bool {
        !self.has(fdb_flags::STATIC) && self.age(now) >= ageing as u64
    }
}

/// Number of counters for drop reasons; [`crate::verdict::DropReason`] names those in use.
pub const DROP_REASONS: usize = 16;

/// One port's counters on one CPU: element of the per-CPU map `COUNTERS`, by slot; slot 0 counts the host.
///
/// For every port `rx_packets = forwarded + host + sum of drops`. A GSO super-frame counts as one packet, as in
/// `ip -s link`; bytes include the Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counters {
    /// Frames that the port's far end sent (slot 0: that the host sent) and the switch decided.
    pub rx_packets: u64,
    /// Bytes of those.
    pub rx_bytes: u64,
    /// Frames handed to the port's interface (slot 0: to the host's stack).
    pub tx_packets: u64,
    /// Bytes of those.
    pub tx_bytes: u64,
    /// Received frames that went to at least one port; a flooded frame counts once.
    pub forwarded: u64,
    /// Received frames that went to the host alone.
    pub host: u64,
    /// Frames that the kernel refused to send on this port (`bpf_clone_redirect` failed).
    pub tx_errors: u64,
    /// Source addresses that could not be learned because the FDB was full.
    pub fdb_full: u64,
    /// Received frames dropped, by [`crate::verdict::DropReason`].
    pub drops: [u64; DROP_REASONS],
}

impl Counters {
    /// Adds another's counts to these.
    pub fn add(&mut self, other: &Self) {
        let total: &mut [u64] = bytemuck::cast_slice_mut(core::slice::from_mut(self));
        let other: &[u64] = bytemuck::cast_slice(core::slice::from_ref(other));
        for (total, other) in total.iter_mut().zip(other) {
            *total = total.wrapping_add(*other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fdb::{Set, Way};
    use core::mem::{align_of, offset_of, size_of};

    /// The layout is a contract with pinned maps: whoever changes a number here raises `ABI_VERSION`.
    #[test]
    fn layout_is_the_one_of_version_3() {
        assert_eq!(ABI_VERSION, 3);
        assert_eq!((size_of::<Settings>(), align_of::<Settings>()), (16, 4));
        assert_eq!((size_of::<List>(), List::new(7, 9).with_nodst().0), (8, 1 << 63 | 9 << 32 | 7));
        assert_eq!((size_of::<Port>(), align_of::<Port>()), (16, 4));
        assert_eq!((size_of::<Interface>(), offset_of!(Interface, slot)), (8, 4));
        assert_eq!((size_of::<FdbKey>(), offset_of!(FdbKey, vlan)), (8, 6));
        assert_eq!((size_of::<SourceKey>(), offset_of!(SourceKey, slot)), (8, 6));
        assert_eq!((size_of::<FdbEntry>(), align_of::<FdbEntry>()), (8, 8));
        assert_eq!((size_of::<Counters>(), offset_of!(Counters, drops)), (192, 64));
        assert_eq!((size_of::<Set>(), offset_of!(Way, entry)), (128, 8));
    }

    #[test]
    fn fdb_entry_keeps_its_parts_apart() {
        let entry = FdbEntry::new(0xfffe, fdb_flags::LOCAL, (1 << 40) - 2);
        assert_eq!((entry.slot(), entry.flags(), entry.stamp()), (0xfffe, fdb_flags::LOCAL, (1 << 40) - 2));
        assert!(!entry.expired(u64::MAX, 0));
        let learned = FdbEntry::new(3, 0, 100);
        assert!(!learned.expired(109, 10));
        assert!(learned.expired(110, 10));
        assert!(!learned.expired(50, 10), "a clock that is behind does not age");
    }
}
