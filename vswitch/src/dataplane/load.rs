//! How do the programs and maps of the embedded object get into the kernel?

use std::io;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    EbpfLoader,
    programs::{ProgramError, SchedClassifier, Xdp},
    util::KernelVersion,
};
use vswitch_ebpf::fdb::Shape;

use super::{clock::Clock, pins::Pins, programs, spec};
use crate::{net::words, privileges::with_reserve};

/// The dataplane, as `cargo xtask build` compiled it; empty in a host-only build.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vswitch.o"));

/// Never attached: it tells the time.
const CLOCK: &str = "vswitch_clock";

pub(super) const PROGRAMS: [&str; 3] = ["vswitch_xdp", "vswitch_in", "vswitch_out"];

/// The first kernel with `bpf_loop`, by which the programs flood.
const OLDEST: KernelVersion = KernelVersion::new(5, 17, 0);

/// The first kernel with a `bpf_redirect_peer` that makes a frame the far end's own. Stable ones have it too, from some
/// release on; doing it twice does no harm.
const SCRUBBING_PEER: KernelVersion = KernelVersion::new(6, 15, 0);

/// Loads the object: new maps, but those that are pinned already and checked, and new programs that use them. Pins all, and
/// tells how its clock goes.
pub(super) fn load_new(pins: &Pins, fdb: Shape, pinned: &[&str]) -> Result<Clock> {
    let mut ebpf = load(pins, fdb, pinned, false)?;
    for name in spec::names().filter(|name| !pinned.contains(name)) {
        let map = ebpf.map(name).ok_or_else(|| anyhow!("map {name}: not in the BPF object"))?;
        map.pin(pins.map(name)).with_context(|| format!("pin map {name}"))?;
        pins.protect_map(name)?;
    }
    spec::make_ledger(pins)?;
    pin_programs(pins, &mut ebpf)?;
    programs::set_mark(pins, false)?;
    let clock: &mut SchedClassifier = program(&mut ebpf, CLOCK)?.try_into()?;
    clock.load().map_err(|err| refused(&format!("program {CLOCK}"), err.into()))?;
    Clock::set_by(clock)
}

/// Tells this build's object from any other's (FNV-1a): what is pinned says whose it is.
pub(super) fn object_hash() -> u64 {
    OBJECT
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Loads the object's programs for the maps of a switch that is up.
pub(super) fn load_again(pins: &Pins, fdb: Shape, log_packets: bool) -> Result<aya::Ebpf> {
    let all: Vec<_> = spec::names().collect();
    load(pins, fdb, &all, log_packets)
}

fn load(pins: &Pins, fdb: Shape, pinned: &[&str], log_packets: bool) -> Result<aya::Ebpf> {
    if OBJECT.is_empty() {
        bail!("this binary was built without its BPF object: build it with `cargo xtask build`");
    }
    if let Ok(version) = KernelVersion::current() {
        supported(version)?;
    }
    with_reserve(|| load_object(pins, fdb, pinned, log_packets))
}

fn load_object(pins: &Pins, fdb: Shape, pinned: &[&str], log_packets: bool) -> Result<aya::Ebpf> {
    let mask = fdb.sets() - 1;
    let log_packets: &u8 = if log_packets { &1 } else { &0 };
    let old_peer = KernelVersion::current().is_ok_and(|version| version < SCRUBBING_PEER);
    let peer_keeps_type: &u8 = if old_peer { &1 } else { &0 };
    let mut loader = EbpfLoader::new();
    for name in pinned {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader
        .map_max_entries("FDB", fdb.sets())
        .override_global("FDB_MASK", &mask, true)
        .override_global("FDB_MAX", &fdb.max, true)
        .override_global("FDB_SECRET", &fdb.secret, true)
        .override_global("LOG_PACKETS", log_packets, true)
        .override_global("PEER_KEEPS_TYPE", peer_keeps_type, true)
        .load(OBJECT)
        .map_err(|err| refused("the maps", err.into()))?;
    for name in ["vswitch_in", "vswitch_out"] {
        let program: &mut SchedClassifier = program(&mut ebpf, name)?.try_into()?;
        program.load().map_err(|err| refused(&format!("program {name}"), err.into()))?;
    }
    let program: &mut Xdp = program(&mut ebpf, "vswitch_xdp")?.try_into()?;
    program.load().map_err(|err| refused("program vswitch_xdp", err.into()))?;
    Ok(ebpf)
}

fn supported(version: KernelVersion) -> Result<()> {
    if version < OLDEST {
        bail!(
            "kernel: too old for the dataplane, which needs Linux 5.17: boot a newer one (`uname -r` shows this one)"
        );
    }
    Ok(())
}

/// One line for what may be a thousand of the verifier's.
fn refused(what: &str, err: anyhow::Error) -> anyhow::Error {
    let log = match err.downcast_ref::<ProgramError>() {
        Some(ProgramError::LoadError { verifier_log, .. }) => verifier_log.to_string(),
        _ => String::new(),
    };
    let errno =
        err.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
    match meaning(errno, &log) {
        Some(why) => anyhow!("load {what}: {why}"),
        None => err.context(format!("load {what}")),
    }
}

fn meaning(errno: Option<i32>, log: &str) -> Option<String> {
    Some(match errno? {
        libc::EPERM if log.is_empty() => {
            "not permitted: needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run as root (in a container, give it those)"
                .to_owned()
        }
        libc::ENOMEM | libc::ENOBUFS => {
            "the kernel has not enough memory: a smaller --fdb-max needs less".to_owned()
        }
        libc::E2BIG if log.is_empty() => "more than this kernel allows: use a smaller --fdb-max".to_owned(),
        libc::ENOSYS => "this kernel has no BPF: boot one with CONFIG_BPF_SYSCALL".to_owned(),
        errno => {
            // The last line is the verdict; after it comes what the verifier counted.
            let verdict =
                log.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("processed "));
            match verdict {
                Some(verdict) => format!(
                    "this kernel's verifier refuses it ({verdict}): please report this line with the output of `uname -r`"
                ),
                None => format!(
                    "this kernel refuses it ({}): please report it with the output of `uname -r`",
                    words(errno)
                ),
            }
        }
    })
}

/// Lets the pins of the programs, from which ports are attached, name these ones.
pub(super) fn repin_programs(pins: &Pins, ebpf: &mut aya::Ebpf) -> Result<()> {
    for name in PROGRAMS {
        let pin = pins.program(name);
        let fresh = pins.program(&format!("new-{name}"));
        // Somebody may have died between the two steps.
        let _none = std::fs::remove_file(&fresh);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_bpf_loop_is_too_old() {
        assert!(supported(KernelVersion::new(5, 17, 0)).is_ok());
        let text = supported(KernelVersion::new(5, 16, 20)).unwrap_err().to_string();
        assert!(text.starts_with("kernel: too old for the dataplane, which needs Linux 5.17: "), "{text}");
    }

    #[test]
    fn a_thousand_lines_of_the_verifier_become_one() {
        let log = format!(
            "{}R4 offset is outside of the packet\nprocessed 812 insns (limit 1000000)\n\n",
            "0: (b7)\n".repeat(1000)
        );
        assert_eq!(
            meaning(Some(libc::EACCES), &log).unwrap(),
            "this kernel's verifier refuses it (R4 offset is outside of the packet): please report this line with the output of `uname -r`"
        );
        assert_eq!(
            meaning(Some(libc::EINVAL), "").unwrap(),
            "this kernel refuses it (the kernel rejects this value): please report it with the output of `uname -r`"
        );
    }

    #[test]
    fn memory_and_capabilities_have_their_words() {
        assert_eq!(
            meaning(Some(libc::ENOMEM), "").unwrap(),
            "the kernel has not enough memory: a smaller --fdb-max needs less"
        );
        assert!(meaning(Some(libc::EPERM), "").unwrap().starts_with("not permitted: needs CAP_BPF"));
        assert_eq!(meaning(None, ""), None);
    }
}
