//! The tables that decisions follow from, as typed handles. Whoever has them to change raises the generation after it: see
//! [`super::maps::Maps::change`].

use std::{io, os::fd::AsFd as _, sync::atomic::Ordering};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError};
use vswitch_ebpf::abi::{
    INTERFACES_MAX, Interface, List, MAX_PORTS, PROBES, Port, SOURCES_MAX, Settings, SourceKey,
};

use super::{
    fdb::Fdb,
    ledger,
    maps::Wire,
    pins::Pins,
    spec::{Access, open},
    sys,
    words::Words,
};

/// What a decision follows from, but for the ports' states.
pub(super) struct Tables {
    settings: Array<MapData, Wire<Settings>>,
    ports: Array<MapData, Wire<Port>>,
    interfaces: Array<MapData, Wire<Interface>>,
    pub(super) fdb: Fdb,
    sources: HashMap<MapData, Wire<SourceKey>, u64>,
    // Those who only look need them not.
    rows: Option<Rows>,
}

struct Rows {
    lists: Array<MapData, Wire<List>>,
    members: MapData,
    /// `INTERFACES` in memory: to have the kernel copy thousands of free elements takes longer than all else.
    interfaces: Words,
}

impl Tables {
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
        let interfaces = open(pins, "INTERFACES", access)?;
        let rows = || -> Result<Rows> {
            Ok(Rows {
                lists: Array::try_from(Map::Array(open(pins, "LISTS", access)?))?,
                members: open(pins, "MEMBERS", access)?,
                interfaces: Words::new(&interfaces, INTERFACES_MAX)?,
            })
        };
        let rows = private.then(rows).transpose()?;
        Ok(Self {
            settings: Array::try_from(Map::Array(open(pins, "SETTINGS", access)?))?,
            ports: Array::try_from(Map::Array(open(pins, "PORTS", access)?))?,
            interfaces: Array::try_from(Map::Array(interfaces))?,
            fdb: Fdb::new(fdb, private.then(|| open(pins, "FDB_USED", access)).transpose()?, shape)?,
            sources: HashMap::try_from(Map::HashMap(open(pins, "SOURCES", access)?))?,
            rows,
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
        sys::row(self.ports.map().fd(), 0, MAX_PORTS).context("read the ports")
    }

    /// The slot that frames of an interface enter by.
    pub(super) fn slot_of(&self, ifindex: u32) -> Result<Option<u16>> {
        let Some(element) = self.probe(ifindex, ifindex)? else { return Ok(None) };
        let interface = self.interfaces.get(&element, 0).context("read the interfaces of the ports")?.0;
        Ok(Some(interface.slot as u16))
    }

    /// The interfaces and their slots.
    pub(super) fn interfaces(&self) -> Result<impl Iterator<Item = (u32, u16)>> {
        let words = self.rows()?.interfaces.all();
        let all = words.map(|word| bytemuck::cast::<u64, Interface>(word.load(Ordering::Acquire)));
        Ok(all.filter(|element| element.ifindex != 0).map(|element| (element.ifindex, element.slot as u16)))
    }

    /// Makes frames of an interface enter by a slot.
    pub(super) fn set_slot(&mut self, ifindex: u32, slot: u16) -> Result<()> {
        let there = self.probe(ifindex, ifindex)?;
        let Some(element) = there.map_or_else(|| self.probe(ifindex, 0), |element| Ok(Some(element)))? else {
            bail!(
                "interface {ifindex}: too many ports have indices like it: make it anew, for another index"
            );
        };
        self.set_interface(element, Interface { ifindex, slot: u32::from(slot) })
    }

    /// Makes frames of an interface none of the switch's business.
    pub(super) fn clear_slot(&mut self, ifindex: u32) -> Result<()> {
        match self.probe(ifindex, ifindex)? {
            Some(element) => self.set_interface(element, Interface::default()),
            None => Ok(()),
        }
    }

    fn set_interface(&mut self, element: u32, interface: Interface) -> Result<()> {
        let word = self.rows()?.interfaces.word(element).context("write the interfaces of the ports")?;
        word.store(bytemuck::cast(interface), Ordering::Release);
        Ok(())
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

    /// All elements of the source lists, also those of slot 0.
    pub(super) fn sources(&self) -> Result<Vec<(SourceKey, u64)>> {
        sys::entries(self.sources.map().fd().as_fd(), SOURCES_MAX).context("read the source lists")
    }

    /// Adds or replaces an element of a source list.
    pub(super) fn set_source(&mut self, key: SourceKey, says: u64) -> Result<()> {
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

    /// One of the lists that always are.
    pub(super) fn list(&self, list: u32) -> Result<List> {
        Ok(self.rows()?.lists.get(&list, 0).context("read a list")?.0)
    }

    /// Replaces it, in one step.
    pub(super) fn set_list(&mut self, list: u32, row: List) -> Result<()> {
        let rows = self.rows.as_mut().context("the switch is open for reading only")?;
        rows.lists.set(list, Wire(row), 0).context("write a list")
    }

    /// The members of a list.
    pub(super) fn members(&self, list: List) -> Result<Vec<u16>> {
        let slots = sys::row::<u32>(self.rows()?.members.fd(), list.first(), list.len());
        Ok(slots.context("read a list")?.into_iter().map(|slot| slot as u16).collect())
    }

    /// Writes the members of a list where none is.
    pub(super) fn set_members(&mut self, first: u32, slots: &[u16]) -> Result<()> {
        let keys: Vec<u32> = (first..).take(slots.len()).collect();
        let values: Vec<u32> = slots.iter().map(|slot| u32::from(*slot)).collect();
        sys::update_all(self.rows()?.members.fd(), &keys, &values).context("write a list")
    }

    fn rows(&self) -> Result<&Rows> {
        self.rows.as_ref().context("the switch is open for reading only")
    }
}
