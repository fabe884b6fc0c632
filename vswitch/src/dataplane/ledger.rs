//! What must userspace remember of a switch that the intent does not say and that the programs never read?
//!
//! In pinned maps of its own, since a word of each changes at each step of a command that may be killed there.

use std::{io, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError};
use bytemuck::{Pod, Zeroable};
use vswitch_ebpf::{
    abi::{HOST_SLOT, MAX_PORTS},
    fdb::Shape,
    frame::MacAddr,
};

use super::{
    maps::Wire,
    pins::Pins,
    spec::{Access, open},
    sys,
};

/// Length of an interface name with its terminating zero (IFNAMSIZ).
pub const IFNAMSIZ: usize = libc::IFNAMSIZ;

/// The most unicast filters that the switch enters into NICs. With more stations than that an uplink is promiscuous.
pub(crate) const FILTERS_MAX: u32 = 16_384;

/// A port's history: element of the map `RECORDS`, by slot. An all-zero name is a free slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PortRecord {
    /// Name of the port's interface, zero-terminated: what the port is known by while the interface is missing.
    pub ifname: [u8; IFNAMSIZ],
    /// Name that the veth's far end was created with; empty unless [`record_flags::CREATED_VETH`].
    pub peer: [u8; IFNAMSIZ],
    /// Namespace in which the far end was created, as the user named it; empty if none.
    pub netns: [u8; 64],
    /// [`record_flags`].
    pub flags: u32,
    /// What was changed on the interface and its far end and has to be undone when the port goes.
    pub undo: u32,
    /// The interface's index when the port was attached; 0 while it is missing.
    pub ifindex: u32,
    /// The datapath that the user asked for: 0 auto, 1 xdp, 2 xdp-generic, 3 tc.
    pub datapath: u8,
    /// The datapath in use, in the same numbers; 0 while the interface is missing.
    pub active: u8,
    /// The address of the far end that vswitch made, as it was last seen or set; zero if there is none.
    pub station: [u8; 6],
}

/// Bits of [`PortRecord::flags`].
pub mod record_flags {
    /// vswitch created the interface as one end of a veth pair, and deletes it with the port.
    pub const CREATED_VETH: u32 = 1 << 0;
    /// vswitch created the interface as a persistent tap, and deletes it with the port.
    pub const CREATED_TAP: u32 = 1 << 1;
    /// A command is adding the port or removing it; if none is at work, it was interrupted and the port is to be removed.
    pub const PENDING: u32 = 1 << 2;
    /// It was attached as an uplink.
    pub const UPLINK: u32 = 1 << 3;
}

/// Who the switch is: the only element of the map `IDENTITY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Identity {
    /// Device of the network namespace that the switch lives in (`stat` of /proc/self/ns/net).
    pub netns_dev: u64,
    /// Inode of that namespace.
    pub netns_ino: u64,
    /// 1 once `up` has finished; 0 marks a switch that a crash left half made.
    pub complete: u32,
    /// Nanoseconds of CLOCK_MONOTONIC in one [`vswitch_ebpf::abi::Stamp`].
    pub tick: u32,
    /// CLOCK_MONOTONIC, in nanoseconds, at the stamp 0: long before the machine was started.
    pub epoch: i64,
    /// [`Shape::secret`] of the FDB.
    pub fdb_secret: u64,
    /// [`Shape::max`] of the FDB.
    pub fdb_max: u32,
    /// Where the last row of the map `MEMBERS` ends.
    pub rows: u32,
}

impl Identity {
    /// The shape of the FDB.
    pub const fn fdb(&self) -> Shape {
        Shape { max: self.fdb_max, secret: self.fdb_secret }
    }
}

/// Key of the map `FILTERS`: an address that vswitch has entered into the receive filter of the uplink in a slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Filter {
    /// The station's address.
    pub mac: MacAddr,
    /// The uplink's slot.
    pub slot: u16,
}

/// The maps of userspace's memory.
pub(crate) struct Ledger {
    records: Array<MapData, Wire<PortRecord>>,
    identity: Array<MapData, Wire<Identity>>,
    filters: HashMap<MapData, Wire<Filter>, u32>,
}

impl Ledger {
    /// Opens the pinned maps.
    pub(super) fn open(pins: &Pins, access: Access) -> Result<Self> {
        Ok(Self {
            identity: identity_of(pins, access)?,
            records: Array::try_from(Map::Array(open(pins, "RECORDS", access)?))?,
            filters: HashMap::try_from(Map::HashMap(open(pins, "FILTERS", access)?))?,
        })
    }

    /// Who the switch is.
    pub(crate) fn identity(&self) -> Result<Identity> {
        Ok(self.identity.get(&0, 0).context("read the switch's identity")?.0)
    }

    /// Replaces who the switch is.
    pub(crate) fn set_identity(&mut self, identity: Identity) -> Result<()> {
        self.identity.set(0, Wire(identity), 0).context("write the switch's identity")
    }

    /// The record in a slot.
    pub(crate) fn record(&self, slot: u16) -> Result<PortRecord> {
        Ok(self.records.get(&u32::from(slot), 0).context("read a port's record")?.0)
    }

    /// The records of the ports in use, by slot.
    pub(crate) fn records(&self) -> Result<Vec<(u16, PortRecord)>> {
        used_records(&self.records)
    }

    /// Replaces the record in a slot.
    pub(crate) fn set_record(&mut self, slot: u16, record: PortRecord) -> Result<()> {
        self.records.set(u32::from(slot), Wire(record), 0).context("write a port's record")
    }

    /// Forgets the port in a slot.
    pub(crate) fn clear_record(&mut self, slot: u16) -> Result<()> {
        self.set_record(slot, PortRecord::zeroed())
    }

    /// What is in the uplinks' receive filters on the switch's account, by uplink and address.
    pub(crate) fn filters(&self) -> Result<Vec<Filter>> {
        all_filters(&self.filters)
    }

    /// Notes that an address is about to be entered.
    pub(crate) fn set_filter(&mut self, filter: Filter) -> Result<()> {
        self.filters.insert(Wire(filter), 1, 0).context("note an uplink's filter")
    }

    /// Notes that it is there no longer.
    pub(crate) fn clear_filter(&mut self, filter: Filter) -> Result<()> {
        match self.filters.remove(&Wire(filter)) {
            Err(MapError::SyscallError(err)) if err.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.context("forget an uplink's filter"),
        }
    }
}

fn all_filters(map: &HashMap<MapData, Wire<Filter>, u32>) -> Result<Vec<Filter>> {
    let all = sys::entries::<Filter, u32>(map.map().fd().as_fd(), FILTERS_MAX);
    let mut all: Vec<_> = all.context("read the uplinks' filters")?.into_iter().map(|(key, _)| key).collect();
    all.sort_unstable_by_key(|filter| (filter.slot, filter.mac));
    all.dedup();
    Ok(all)
}

fn identity_of(pins: &Pins, access: Access) -> Result<Array<MapData, Wire<Identity>>> {
    Ok(Array::try_from(Map::Array(open(pins, "IDENTITY", access)?))?)
}

/// Says who a switch is, before anything else is known of it.
pub(super) fn write_identity(pins: &Pins, identity: Identity) -> Result<()> {
    identity_of(pins, Access::Write)?.set(0, Wire(identity), 0).context("write the switch's identity")
}

/// The identity alone, of a switch whose other maps may be gone.
pub(super) fn open_identity(pins: &Pins, access: Access) -> Result<Identity> {
    Ok(identity_of(pins, access)?.get(&0, 0).context("read the switch's identity")?.0)
}

/// The ports' records alone, of a switch whose other maps may be gone.
pub(super) fn open_records(pins: &Pins) -> Result<Vec<(u16, PortRecord)>> {
    used_records(&Array::try_from(Map::Array(open(pins, "RECORDS", Access::Write)?))?)
}

/// The filters alone, of a switch whose other maps may be gone.
pub(crate) fn open_filters(pins: &Pins) -> Result<Vec<Filter>> {
    all_filters(&HashMap::try_from(Map::HashMap(open(pins, "FILTERS", Access::Write)?))?)
}

fn used_records(map: &Array<MapData, Wire<PortRecord>>) -> Result<Vec<(u16, PortRecord)>> {
    let all = sys::row::<PortRecord>(map.map().fd(), 0, MAX_PORTS).context("read the ports' records")?;
    let is_used = |(slot, record): &(u16, PortRecord)| *slot != HOST_SLOT && record.ifname[0] != 0;
    Ok((0..).zip(all).filter(is_used).collect())
}

#[cfg(test)]
mod tests {
    use core::mem::size_of;

    use super::*;

    /// Maps of these are pinned, too: what they gain, they gain at their end.
    #[test]
    fn layouts() {
        assert_eq!((size_of::<PortRecord>(), size_of::<Identity>(), size_of::<Filter>()), (116, 48, 8));
    }
}
