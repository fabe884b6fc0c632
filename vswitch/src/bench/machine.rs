//! What was it measured on? The machine, the kernel, the build; and on which CPUs.

use std::{fs, mem, sync::OnceLock};

use anyhow::Result;
use serde::Serialize;

use super::{Pair, contestants::ovs_absent};
use crate::{net::Refused, view::BUILD};

/// What a figure is worth nothing without.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processor.
    pub cpu: String,
    /// How many CPUs there are.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// This program.
    pub vswitch: String,
    /// Whether the BPF JIT compiler is on.
    pub jit: bool,
    /// Load of the last minute when it began: what else was running.
    pub load: String,
    /// What was done the same for all.
    pub terms: Vec<String>,
}

impl Machine {
    pub(super) fn here(pair: Option<&Pair>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo").lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        let mut terms = vec![
            format!(
                "the generator and, in its soft interrupts, switch and receiving veth share CPU {}",
                generator_cpu()
            ),
            format!("socket senders on CPU {}, receivers on CPU {}", cpu_of(0), cpu_of(1)),
            "veth pairs with default offloads; GRO on at every end (NAPI)".to_owned(),
            "vswitch-xdp switches tx checksumming of the far ends off, as XDP ports need".to_owned(),
            "bridge: STP and multicast snooping off; ageing 300 s for all that learn".to_owned(),
            "frame sizes count the 4 bytes of checksum that end a frame on a wire".to_owned(),
            "runs in alternation; a warm-up run is not counted".to_owned(),
            "frames/s are frames in a second of that CPU's own time: other work on the machine is not counted; sockets go by the clock on the wall"
                .to_owned(),
        ];
        if let Some(Pair { tx, rx }) = pair {
            terms = vec![
                format!(
                    "from {tx} by its cable to {rx}, which each contestant has in turn, and on to a veth"
                ),
                "frames/s by the time that sending takes".to_owned(),
            ];
        }
        terms.push(format!("ovs: {}: left out", ovs_absent()));
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cpus: cpus().len(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            vswitch: format!("{} ({BUILD})", env!("CARGO_PKG_VERSION")),
            jit: read("/proc/sys/net/core/bpf_jit_enable").trim() != "0",
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            terms,
        }
    }
}

/// The CPUs that this process may use, as it began.
fn cpus() -> &'static [usize] {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    CPUS.get_or_init(|| {
        // SAFETY: a plain set of bits, for which all zeroes is the empty set.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the set is ours, of the size that is given.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        // SAFETY: CPU_ISSET reads a bit within the set.
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
    })
}

/// The CPU of the n-th busy thread.
pub(super) fn cpu_of(number: usize) -> usize {
    let cpus = cpus();
    cpus.get(number % cpus.len().max(1)).copied().unwrap_or(0)
}

/// Not the first, which gets most hard interrupts.
pub(super) fn generator_cpu() -> usize {
    cpu_of(1)
}

/// Keeps the calling thread, and those that it starts from now on, on one CPU.
pub(super) fn pin(cpu: usize) -> Result<()> {
    // SAFETY: a plain set of bits, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is ours and outlives both calls; CPU_SET bounds the index by its size.
    let done = unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    // In a container that may not use that CPU the scheduler chooses.
    if done < 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
        return Err(Refused::last(format!("stay on CPU {cpu}")).into());
    }
    Ok(())
}
