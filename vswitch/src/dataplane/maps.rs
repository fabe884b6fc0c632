//! The switch's maps as typed handles, opened once.

use std::io;

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use bytemuck::{Pod, Zeroable as _};
use vswitch_ebpf::abi::{Counters, MAX_PORTS};

use super::{
    pins::Pins,
    spec::{Access, BASES, Device, PRESENT, open},
    sys,
    tables::Tables,
    words::Words,
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
    tables: Tables,
    /// Where they may be changed.
    words: Option<Shared>,
    counters: PerCpuArray<MapData, Wire<Counters>>,
    bases: Option<Array<MapData, Wire<Counters>>>,
    // Not as aya's: to open one it tries out what the kernel can do, by twenty system calls.
    devmap: Option<MapData>,
    present: MapData,
}

struct Shared {
    generation: Words,
    states: Words,
}

impl Maps {
    /// Opens the pinned maps.
    pub(super) fn open(pins: &Pins, access: Access) -> Result<Self> {
        let private = access == Access::Write;
        let tables = Tables::open(pins, access)?;
        let bases = pins.map(BASES).exists().then(|| open(pins, BASES, access)).transpose()?;
        let open_private = |name| private.then(|| open(pins, name, access)).transpose();
        // Programs that are loaded for it write where this build means.
        open_private("VERDICTS")?;
        let words = || -> Result<Shared> {
            Ok(Shared {
                generation: Words::new(&open(pins, "GENERATION", access)?, 1)?,
                states: Words::new(&open(pins, "STATES", access)?, MAX_PORTS)?,
            })
        };
        Ok(Self {
            tables,
            words: private.then(words).transpose()?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(pins, "COUNTERS", access)?))?,
            bases: bases.map(|map| Array::try_from(Map::Array(map))).transpose()?,
            devmap: open_private("DEVMAP")?,
            present: open(pins, PRESENT, access)?,
        })
    }

    /// The tables, to look at.
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The tables, to change them: there is no other way. What the programs remember is decided anew afterwards, also if it
    /// fails.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Tables) -> Result<T>) -> Result<T> {
        let done = change(&mut self.tables);
        self.raise();
        done
    }

    /// Says that what the programs remember is to be decided anew.
    pub(super) fn raise(&self) {
        if let Some(Shared { generation, .. }) = &self.words {
            generation.raise();
        }
    }

    /// Says whether a port's interface is down or has no carrier.
    pub(super) fn set_down(&self, slot: u16, down: bool) {
        let Some(Shared { states, .. }) = &self.words else { return };
        if states.set_down(slot, down) {
            self.raise();
        }
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
