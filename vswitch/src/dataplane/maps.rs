//! The switch's maps as typed handles, opened once.

use std::{io, os::fd::AsFd as _};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError, PerCpuArray};
use bytemuck::{Pod, Zeroable as _};
use vswitch_ebpf::abi::{
    Counters, INTERFACES_MAX, Interface, MAX_PORTS, PROBES, Port, SOURCES_MAX, Settings, SourceKey,
};

use super::{
    fdb::Fdb,
    ledger,
    pins::Pins,
    spec::{Access, BASES, Device, PRESENT, open},
    sys,
};

/// A value of the ABI as aya takes it: the one place where bytemuck's promise becomes aya's.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Wire<T>(pub(crate) T);

// SAFETY: bytemuck's `Pod` promises what aya's asks for: any bytes are a value, there is no padding, and it is `Copy`
// and `'static`; `Wire` has the same layout.
unsafe impl<T: Pod> aya::Pod for Wire<T> {}

/// All maps of a switch.
pub(super) struct Maps {
    settings: Array<MapData, Wire<Settings>>,
    ports: Array<MapData, Wire<Port>>,
    interfaces: Array<MapData, Wire<Interface>>,
    pub(super) fdb: Fdb,
    sources: HashMap<MapData, Wire<SourceKey>, u32>,
    counters: PerCpuArray<MapData, Wire<Counters>>,
    bases: Option<Array<MapData, Wire<Counters>>>,
    // Not as aya's: to open one it tries out what the kernel can do, by twenty system calls.
    devmap: Option<MapData>,
    present: MapData,
}

impl Maps {
    /// Opens the pinned maps.
    pub(super) fn open(pins: &Pins, access: Access) -> Result<Self> {
        let fdb = open(pins, "FDB", access)?;
        let shape = ledger::open_identity(pins, access)?.fdb();
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
        Ok(Self {
            settings: Array::try_from(Map::Array(open(pins, "SETTINGS", access)?))?,
            ports: Array::try_from(Map::Array(open(pins, "PORTS", access)?))?,
            interfaces: Array::try_from(Map::Array(open(pins, "INTERFACES", access)?))?,
            fdb: Fdb::new(fdb, open_private("FDB_USED")?, shape)?,
            sources: HashMap::try_from(Map::HashMap(open(pins, "SOURCES", access)?))?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(pins, "COUNTERS", access)?))?,
            bases: bases.map(|map| Array::try_from(Map::Array(map))).transpose()?,
            devmap: open_private("DEVMAP")?,
            present: open(pins, PRESENT, access)?,
        })
    }

    /// What holds for the whole switch.
    pub(super) fn settings(&self) -> Result<Settings> {
        Ok(self.settings.get(&0, 0).context("read the switch's settings")?.0)
    }

    /// Replaces what holds for the whole switch.
    pub(super) fn set_settings(&mut self, settings: Settings) -> Result<()> {
        self.settings.set(0, Wire(settings), 0).context("write the switch's settings")
    }

    /// The port in a slot.
    pub(super) fn port(&self, slot: u16) -> Result<Port> {
        Ok(self.ports.get(&u32::from(slot), 0).context("read a port")?.0)
    }

    /// Replaces the port in a slot.
    pub(super) fn set_port(&mut self, slot: u16, port: Port) -> Result<()> {
        self.ports.set(u32::from(slot), Wire(port), 0).context("write a port")
    }

    /// All slots' ports, by slot, those of free slots too.
    pub(super) fn all_ports(&self) -> Result<Vec<Port>> {
        let ports = sys::entries::<u32, Port>(self.ports.map().fd().as_fd(), MAX_PORTS);
        Ok(ports.context("read the ports")?.into_iter().map(|(_, port)| port).collect())
    }

    /// The slot that frames of an interface enter by.
    pub(super) fn slot_of(&self, ifindex: u32) -> Result<Option<u16>> {
        let Some(element) = self.probe(ifindex, ifindex)? else { return Ok(None) };
        let interface = self.interfaces.get(&element, 0).context("read the interfaces of the ports")?.0;
        Ok(Some(interface.slot as u16))
    }

    /// All elements that hold an interface or could.
    pub(super) fn interfaces(&self) -> Result<Vec<Interface>> {
        let all = sys::entries::<u32, Interface>(self.interfaces.map().fd().as_fd(), INTERFACES_MAX);
        Ok(all
            .context("read the interfaces of the ports")?
            .into_iter()
            .map(|(_, interface)| interface)
            .collect())
    }

    /// Makes frames of an interface enter by a slot.
    pub(super) fn set_slot(&mut self, ifindex: u32, slot: u16) -> Result<()> {
        let there = self.probe(ifindex, ifindex)?;
        let Some(element) = there.map_or_else(|| self.probe(ifindex, 0), |element| Ok(Some(element)))? else {
            bail!(
                "interface {ifindex}: too many ports have indices like it: make it anew, for another index"
            );
        };
        let interface = Interface { ifindex, slot: u32::from(slot) };
        self.interfaces.set(element, Wire(interface), 0).context("bind an interface to its port")
    }

    /// Makes frames of an interface none of the switch's business.
    pub(super) fn clear_slot(&mut self, ifindex: u32) -> Result<()> {
        match self.probe(ifindex, ifindex)? {
            Some(element) => self
                .interfaces
                .set(element, Wire(Interface::zeroed()), 0)
                .context("unbind an interface from its port"),
            None => Ok(()),
        }
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
    pub(super) fn set_devmap(&mut self, slot: u16, ifindex: u32) -> Result<()> {
        set_device(self.devmap()?, slot, ifindex).context("let XDP deliver to a port")
    }

    /// Stops XDP from delivering to a slot.
    pub(super) fn clear_devmap(&mut self, slot: u16) -> Result<()> {
        clear_device(self.devmap()?, slot).context("stop XDP from delivering to a port")
    }

    fn devmap(&self) -> Result<&MapData> {
        self.devmap.as_ref().context("the switch is open for reading only")
    }

    /// Lets tc deliver to an interface, for as long as it is there.
    pub(super) fn set_present(&mut self, slot: u16, ifindex: u32) -> Result<()> {
        set_device(&self.present, slot, ifindex).context("let tc deliver to a port")
    }

    /// Whether a port's interface is the one that was attached. The kernel takes it out of the map when it goes; its index, and
    /// with that what the record says, may be a stranger's by now.
    pub(super) fn is_there(&self, slot: u16) -> Result<bool> {
        has_device(&self.present, slot).context("ask whether a port's interface is there")
    }

    /// Stops tc from delivering to a slot.
    pub(super) fn clear_present(&mut self, slot: u16) -> Result<()> {
        clear_device(&self.present, slot).context("stop tc from delivering to a port")
    }

    /// All elements of the source lists, also those of slot 0.
    pub(super) fn sources(&self) -> Result<Vec<(SourceKey, u32)>> {
        sys::entries(self.sources.map().fd().as_fd(), SOURCES_MAX).context("read the source lists")
    }

    /// Adds or replaces an element of a source list.
    pub(super) fn set_source(&mut self, key: SourceKey, says: u32) -> Result<()> {
        self.sources
            .insert(Wire(key), says, 0)
            .with_context(|| format!("source {}: write the list of senders", key.mac))
    }

    /// Removes an element of a source list.
    pub(super) fn clear_source(&mut self, key: SourceKey) -> Result<()> {
        match self.sources.remove(&Wire(key)) {
            Err(MapError::SyscallError(err)) if err.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.with_context(|| format!("source {}: write the list of senders", key.mac)),
        }
    }

    /// A slot's counters, summed over the CPUs.
    pub(super) fn counters(&self, slot: u16) -> Result<Counters> {
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
    pub(super) fn clear_counters(&mut self, slot: u16) -> Result<()> {
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

/// [`Maps::is_there`], of a switch whose other maps may be gone. Where this one is gone too, the record is believed.
pub(crate) fn is_there(pins: &Pins, slot: u16) -> Result<bool> {
    let Ok(present) = open(pins, PRESENT, Access::Write) else { return Ok(true) };
    has_device(&present, slot).context("ask whether a port's interface is there")
}
