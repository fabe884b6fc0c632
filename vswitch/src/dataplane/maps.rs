//! The switch's maps as typed handles, opened once.

use std::{io, os::fd::AsFd as _, sync::atomic::Ordering};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError, PerCpuArray};
use bytemuck::{Pod, Zeroable as _};
use vswitch_ebpf::abi::{
    Counters, FdbEntry, FdbKey, HOST_SLOT, Identity, Interface, List, MAX_PORTS, PROBES, Port, PortRecord,
    SOURCES_MAX, Settings, SourceKey, Stamp, port_state,
};

use super::{
    fdb::{self, Fdb, Full},
    pins::Pins,
    spec::{Access, BASES, Device, PRESENT, open},
    sys,
    words::{Generation, Words},
};

/// A value of the ABI as aya takes it: the one place where bytemuck's promise becomes aya's.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Wire<T>(pub(crate) T);

// SAFETY: bytemuck's `Pod` promises what aya's asks for: any bytes are a value, there is no padding, and it is `Copy`
// and `'static`; `Wire` has the same layout.
unsafe impl<T: Pod> aya::Pod for Wire<T> {}

/// All maps of a switch.
pub(crate) struct Maps {
    pub(crate) settings: Array<MapData, Wire<Settings>>,
    pub(crate) ports: Array<MapData, Wire<Port>>,
    interfaces: Array<MapData, Wire<Interface>>,
    lists: Array<MapData, Wire<List>>,
    members: Array<MapData, u32>,
    /// Where they may be changed.
    states: Option<Words>,
    generation: Option<Generation>,
    pub(crate) fdb: Fdb,
    sources: HashMap<MapData, Wire<SourceKey>, u64>,
    counters: PerCpuArray<MapData, Wire<Counters>>,
    bases: Option<Array<MapData, Wire<Counters>>>,
    // Not as aya's: to open one it tries out what the kernel can do, by twenty system calls.
    devmap: Option<MapData>,
    present: MapData,
    pub(crate) records: Array<MapData, Wire<PortRecord>>,
    pub(crate) identity: Array<MapData, Wire<Identity>>,
}

impl Maps {
    /// Opens the pinned maps.
    pub(crate) fn open(pins: &Pins, access: Access) -> Result<Self> {
        let fdb = open(pins, "FDB", access)?;
        let identity = identity_of(pins, access)?;
        let shape = identity.get(&0, 0).context("read the switch's identity")?.0.fdb();
        let sets = fdb.info().context("ask for the FDB's size")?.max_entries();
        if sets != shape.sets() {
            bail!(
                "its map FDB is not this build's (its number of entries is {sets} and not {})",
                shape.sets()
            );
        }
        let private = access == Access::Write;
        let bases = pins.map(BASES).exists().then(|| open(pins, BASES, access)).transpose()?;
        let open_private = |name| private.then(|| open(pins, name, access)).transpose();
        let generation = || open_private("GENERATION")?.map(|map| Generation::new(&map)).transpose();
        let states = open_private("STATES")?.map(|map| Words::new(&map, MAX_PORTS)).transpose()?;
        Ok(Self {
            settings: Array::try_from(Map::Array(open(pins, "SETTINGS", access)?))?,
            ports: Array::try_from(Map::Array(open(pins, "PORTS", access)?))?,
            interfaces: Array::try_from(Map::Array(open(pins, "INTERFACES", access)?))?,
            lists: Array::try_from(Map::Array(open(pins, "LISTS", access)?))?,
            members: Array::try_from(Map::Array(open(pins, "MEMBERS", access)?))?,
            states,
            generation: generation()?,
            fdb: Fdb::new(fdb, open_private("FDB_USED")?.zip(generation()?), shape)?,
            sources: HashMap::try_from(Map::HashMap(open(pins, "SOURCES", access)?))?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(pins, "COUNTERS", access)?))?,
            bases: bases.map(|map| Array::try_from(Map::Array(map))).transpose()?,
            devmap: open_private("DEVMAP")?,
            present: open(pins, PRESENT, access)?,
            records: Array::try_from(Map::Array(open(pins, "RECORDS", access)?))?,
            identity,
        })
    }

    /// What holds for the whole switch.
    pub(crate) fn settings(&self) -> Result<Settings> {
        Ok(self.settings.get(&0, 0).context("read the switch's settings")?.0)
    }

    /// Replaces what holds for the whole switch.
    pub(crate) fn set_settings(&mut self, settings: Settings) -> Result<()> {
        self.settings.set(0, Wire(settings), 0).context("write the switch's settings")?;
        self.forget()
    }

    /// The port in a slot.
    pub(crate) fn port(&self, slot: u16) -> Result<Port> {
        Ok(self.ports.get(&u32::from(slot), 0).context("read a port")?.0)
    }

    /// Replaces the port in a slot.
    pub(crate) fn set_port(&mut self, slot: u16, port: Port) -> Result<()> {
        self.ports.set(u32::from(slot), Wire(port), 0).context("write a port")?;
        self.forget()
    }

    /// Says whether a port's interface is down. Frames say so, too.
    pub(crate) fn set_down(&mut self, slot: u16, down: bool) -> Result<()> {
        let states = self.states.as_ref().context("the switch is open for reading only")?;
        let bit = u64::from(port_state::DOWN);
        let state = states.all().get(usize::from(slot)).context("a slot within the table")?;
        let before = match down {
            true => state.fetch_or(bit, Ordering::SeqCst),
            false => state.fetch_and(!bit, Ordering::SeqCst),
        };
        if (before & bit != 0) == down { Ok(()) } else { self.forget() }
    }

    /// A list of slots.
    pub(crate) fn list(&self, which: u32) -> Result<List> {
        Ok(self.lists.get(&which, 0).context("read a list of ports")?.0)
    }

    /// Replaces a list of slots by one whose row has been written.
    pub(crate) fn set_list(&mut self, which: u32, list: List) -> Result<()> {
        self.lists.set(which, Wire(list), 0).context("write a list of ports")?;
        self.forget()
    }

    /// The members of a list.
    pub(crate) fn members_of(&self, list: List) -> Result<Vec<u16>> {
        let member =
            |index| Ok(self.members.get(&(list.first() + index), 0).context("read a list of ports")? as u16);
        (0..list.len()).map(member).collect()
    }

    /// Writes the row of a list that nobody walks yet.
    pub(crate) fn write_row(&mut self, first: u32, members: &[u16]) -> Result<List> {
        for (element, member) in (first..).zip(members) {
            self.members.set(element, u32::from(*member), 0).context("write a list of ports")?;
        }
        Ok(List::new(first, members.len() as u16))
    }

    /// Makes all remembered verdicts forgotten: they may follow from what was just changed.
    pub(crate) fn forget(&self) -> Result<()> {
        self.generation.as_ref().context("the switch is open for reading only")?.raise();
        Ok(())
    }

    /// The record in a slot.
    pub(crate) fn record(&self, slot: u16) -> Result<PortRecord> {
        Ok(self.records.get(&u32::from(slot), 0).context("read a port's record")?.0)
    }

    /// The records of the ports in use, by slot.
    pub(crate) fn records(&self) -> Result<Vec<(u16, PortRecord)>> {
        used_records(&self.records)
    }

    /// All slots' ports, by slot, those of free slots too.
    pub(crate) fn all_ports(&self) -> Result<Vec<Port>> {
        let ports = sys::entries::<u32, Port>(self.ports.map().fd().as_fd(), MAX_PORTS);
        Ok(ports.context("read the ports")?.into_iter().map(|(_, port)| port).collect())
    }

    /// The slot that frames of an interface enter by.
    pub(crate) fn slot_of(&self, ifindex: u32) -> Result<Option<u16>> {
        let Some(element) = self.probe(ifindex, ifindex)? else { return Ok(None) };
        let interface = self.interfaces.get(&element, 0).context("read the interfaces of the ports")?.0;
        Ok(Some(interface.slot as u16))
    }

    /// Replaces the record in a slot.
    pub(crate) fn set_record(&mut self, slot: u16, record: PortRecord) -> Result<()> {
        self.records.set(u32::from(slot), Wire(record), 0).context("write a port's record")
    }

    /// The switch's identity.
    pub(crate) fn identity(&self) -> Result<Identity> {
        Ok(self.identity.get(&0, 0).context("read the switch's identity")?.0)
    }

    /// Replaces the switch's identity.
    pub(crate) fn set_identity(&mut self, identity: Identity) -> Result<()> {
        self.identity.set(0, Wire(identity), 0).context("write the switch's identity")
    }

    /// Makes frames of an interface enter by a slot.
    pub(crate) fn set_slot(&mut self, ifindex: u32, slot: u16) -> Result<()> {
        let there = self.probe(ifindex, ifindex)?;
        let Some(element) = there.map_or_else(|| self.probe(ifindex, 0), |element| Ok(Some(element)))? else {
            bail!(
                "interface {ifindex}: too many ports have indices like it: make it anew, for another index"
            );
        };
        let interface = Interface { ifindex, slot: u32::from(slot) };
        self.interfaces.set(element, Wire(interface), 0).context("bind an interface to its port")?;
        self.forget()
    }

    /// Makes frames of an interface none of the switch's business.
    pub(crate) fn clear_slot(&mut self, ifindex: u32) -> Result<()> {
        match self.probe(ifindex, ifindex)? {
            Some(element) => self
                .interfaces
                .set(element, Wire(Interface::zeroed()), 0)
                .context("unbind an interface from its port")?,
            None => return Ok(()),
        }
        self.forget()
    }

    /// Among the elements that may hold `ifindex`, the first that holds `wanted`.
    fn probe(&self, ifindex: u32, wanted: u32) -> Result<Option<u32>> {
        for probe in 0..PROBES {
            let element = Interface::element(ifindex, probe);
            let interface = self.interfaces.get(&element, 0).context("read the interfaces of the ports")?.0;
            if interface.ifindex == wanted {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }

    /// Lets XDP deliver to an interface.
    pub(crate) fn set_devmap(&mut self, slot: u16, ifindex: u32) -> Result<()> {
        set_device(self.devmap()?, slot, ifindex).context("let XDP deliver to a port")
    }

    /// Stops XDP from delivering to a slot.
    pub(crate) fn clear_devmap(&mut self, slot: u16) -> Result<()> {
        clear_device(self.devmap()?, slot).context("stop XDP from delivering to a port")
    }

    fn devmap(&self) -> Result<&MapData> {
        self.devmap.as_ref().context("the switch is open for reading only")
    }

    /// Lets tc deliver to an interface, for as long as it is there.
    pub(crate) fn set_present(&mut self, slot: u16, ifindex: u32) -> Result<()> {
        set_device(&self.present, slot, ifindex).context("let tc deliver to a port")
    }

    /// Whether a port's interface is the one that was attached. The kernel takes it out of the map when it goes; its index, and
    /// with that what the record says, may be a stranger's by now.
    pub(crate) fn is_there(&self, slot: u16) -> Result<bool> {
        has_device(&self.present, slot).context("ask whether a port's interface is there")
    }

    /// Stops tc from delivering to a slot.
    pub(crate) fn clear_present(&mut self, slot: u16) -> Result<()> {
        clear_device(&self.present, slot).context("stop tc from delivering to a port")
    }

    /// Adds or replaces an entry of the FDB. Aged ones make room for it.
    pub(crate) fn fdb_set(&mut self, key: FdbKey, entry: FdbEntry) -> Result<()> {
        let mut done = self.fdb.set(key, entry)?;
        if done == Err(Full) {
            self.fdb_sweep(entry.stamp())?;
            done = self.fdb.set(key, entry)?;
        }
        if done == Err(Full) {
            bail!(
                "fdb {}: the FDB is full ({} entries): delete some (vswitch fdb flush) or start the switch with a larger --fdb-max",
                key.mac,
                self.fdb.max()
            );
        }
        Ok(())
    }

    /// Removes entries past their ageing time. They do not forward any more; this makes room.
    pub(crate) fn fdb_sweep(&mut self, now: Stamp) -> Result<()> {
        let ageing = self.settings()?.ageing;
        self.fdb.sweep(now, ageing)
    }

    /// All elements of the source lists, also those of slot 0.
    pub(crate) fn sources(&self) -> Result<Vec<(SourceKey, u64)>> {
        sys::entries(self.sources.map().fd().as_fd(), SOURCES_MAX).context("read the source lists")
    }

    /// Adds or replaces an element of a source list.
    pub(crate) fn set_source(&mut self, key: SourceKey, says: u64) -> Result<()> {
        self.sources
            .insert(Wire(key), says, 0)
            .with_context(|| format!("source {}: write the list of senders", key.mac))?;
        self.forget()
    }

    /// Removes an element of a source list.
    pub(crate) fn clear_source(&mut self, key: SourceKey) -> Result<()> {
        match self.sources.remove(&Wire(key)) {
            Err(MapError::SyscallError(err)) if err.io_error.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            done => done.with_context(|| format!("source {}: write the list of senders", key.mac))?,
        }
        self.forget()
    }

    /// A slot's counters, summed over the CPUs.
    pub(crate) fn counters(&self, slot: u16) -> Result<Counters> {
        let mut sum = match &self.bases {
            Some(bases) => bases.get(&u32::from(slot), 0).context("read a port's counters")?.0,
            None => Counters::zeroed(),
        };
        let cpus = self.counters.get(&u32::from(slot), 0).context("read a port's counters")?;
        for Wire(one) in cpus.iter() {
            sum.add(one);
        }
        Ok(sum)
    }

    /// Sets a slot's counters to zero: it has a new owner.
    pub(crate) fn clear_counters(&mut self, slot: u16) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(what, err)| err_in(what, err))?;
        let zero = aya::maps::PerCpuValues::try_from(vec![Wire(Counters::zeroed()); cpus])?;
        self.counters.set(u32::from(slot), zero, 0).context("clear a port's counters")?;
        match &mut self.bases {
            Some(bases) => {
                bases.set(u32::from(slot), Wire(Counters::zeroed()), 0).context("clear a port's counters")
            }
            None => Ok(()),
        }
    }
}

fn has_device(map: &MapData, slot: u16) -> Result<bool> {
    Ok(sys::get::<u32, Device>(map.fd(), &u32::from(slot))?.is_some())
}

fn set_device(map: &MapData, slot: u16, ifindex: u32) -> Result<()> {
    Ok(sys::update(map.fd(), &u32::from(slot), &Device { ifindex, program: 0 })?)
}

fn clear_device(map: &MapData, slot: u16) -> Result<()> {
    Ok(sys::delete(map.fd(), &u32::from(slot))?)
}

pub(super) fn err_in(what: &str, err: io::Error) -> anyhow::Error {
    anyhow::Error::new(err).context(format!("read {what}"))
}

fn identity_of(pins: &Pins, access: Access) -> Result<Array<MapData, Wire<Identity>>> {
    Ok(Array::try_from(Map::Array(open(pins, "IDENTITY", access)?))?)
}

/// Says who a switch is, before anything else is known of it.
pub(super) fn write_identity(pins: &Pins, identity: Identity) -> Result<()> {
    identity_of(pins, Access::Write)?.set(0, Wire(identity), 0).context("write the switch's identity")
}

/// The identity alone, of a switch whose other maps may be gone.
pub(crate) fn open_identity(pins: &Pins) -> Result<Identity> {
    Ok(identity_of(pins, Access::Write)?.get(&0, 0)?.0)
}

/// The ports' records alone, of a switch whose other maps may be gone.
pub(crate) fn open_records(pins: &Pins) -> Result<Vec<(u16, PortRecord)>> {
    used_records(&Array::try_from(Map::Array(open(pins, "RECORDS", Access::Write)?))?)
}

/// [`Maps::is_there`], of a switch whose other maps may be gone. Where this one is gone too, the record is believed.
pub(crate) fn is_there(pins: &Pins, slot: u16) -> Result<bool> {
    let Ok(present) = open(pins, PRESENT, Access::Write) else { return Ok(true) };
    has_device(&present, slot).context("ask whether a port's interface is there")
}

/// The FDB alone, of a switch whose other maps may be gone.
pub(crate) fn open_fdb(pins: &Pins) -> Result<Vec<(FdbKey, FdbEntry)>> {
    let sets = open(pins, "FDB", Access::Write)?;
    let count = sets.info()?.max_entries();
    fdb::all(&sets, count)
}

fn used_records(map: &Array<MapData, Wire<PortRecord>>) -> Result<Vec<(u16, PortRecord)>> {
    let all = sys::entries::<u32, PortRecord>(map.map().fd().as_fd(), MAX_PORTS);
    let mut all = all.context("read the ports' records")?;
    all.retain(|(slot, record)| *slot != u32::from(HOST_SLOT) && record.ifname[0] != 0);
    Ok(all.into_iter().map(|(slot, record)| (slot as u16, record)).collect())
}
