//! How do the programs and maps of the embedded object get into the kernel?

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    EbpfLoader,
    programs::{SchedClassifier, Xdp},
};

use super::{maps, pins::Pins};

/// The dataplane, as `cargo xtask build` compiled it; empty in a host-only build.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vswitch.o"));

const PROGRAMS: [&str; 3] = ["vswitch_xdp", "vswitch_in", "vswitch_out"];

/// Loads the object: new maps, and new programs that use them. Pins both.
pub(super) fn load_new(pins: &Pins, fdb_max: u32) -> Result<()> {
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("FDB", fdb_max);
    let mut ebpf = load(&mut loader, false)?;
    for name in maps::names() {
        let map = ebpf.map(name).ok_or_else(|| anyhow!("map {name}: not in the BPF object"))?;
        map.pin(pins.map(name)).with_context(|| format!("pin map {name}"))?;
        pins.protect_map(name)?;
    }
    pin_programs(pins, &mut ebpf)
}

/// Loads the object's programs for the maps of a switch that is up, for `links::replace`.
pub(super) fn load_again(pins: &Pins, fdb_max: u32, log_packets: bool) -> Result<aya::Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("FDB", fdb_max);
    for name in maps::names() {
        loader.map_pin_path(name, pins.map(name));
    }
    load(&mut loader, log_packets)
}

fn load(loader: &mut EbpfLoader<'_>, log_packets: bool) -> Result<aya::Ebpf> {
    if OBJECT.is_empty() {
        bail!("this binary was built without its BPF object: build it with `cargo xtask build`");
    }
    let log_packets: &u8 = if log_packets { &1 } else { &0 };
    let mut ebpf = loader
        .override_global("LOG_PACKETS", log_packets, true)
        .load(OBJECT)
        .context("load the dataplane's maps")?;
    for name in ["vswitch_in", "vswitch_out"] {
        let program: &mut SchedClassifier = program(&mut ebpf, name)?.try_into()?;
        program.load().with_context(|| format!("load program {name}"))?;
    }
    let program: &mut Xdp = program(&mut ebpf, "vswitch_xdp")?.try_into()?;
    program.load().context("load program vswitch_xdp")?;
    Ok(ebpf)
}

/// Lets the pins of the programs, from which ports are attached, name these ones.
pub(super) fn repin_programs(pins: &Pins, ebpf: &mut aya::Ebpf) -> Result<()> {
    for name in PROGRAMS {
        let pin = pins.program(name);
        let fresh = pins.program(&format!("new-{name}"));
        program(ebpf, name)?.pin(&fresh).with_context(|| format!("pin program {name}"))?;
        std::fs::rename(&fresh, &pin)
            .with_context(|| format!("rename {} to {}", fresh.display(), pin.display()))?;
    }
    Ok(())
}

fn pin_programs(pins: &Pins, ebpf: &mut aya::Ebpf) -> Result<()> {
    for name in PROGRAMS {
        program(ebpf, name)?.pin(pins.program(name)).with_context(|| format!("pin program {name}"))?;
    }
    Ok(())
}

fn program<'a>(ebpf: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name).ok_or_else(|| anyhow!("program {name}: not in the BPF object"))
}
