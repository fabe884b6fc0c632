//! What was it measured on? The machine, the kernel, the build, and what was done the same for all.

use std::fs;

use serde::Serialize;

use super::{
    Pair,
    contestants::ovs,
    cpus::{self, cpu_of, generator_cpu},
    iperf3, sockets,
};
use vswitch::view::BUILD;

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
            format!(
                "socket senders on CPU {}, receivers on CPU {}; they poll: nobody sleeps, so that no wake-up is measured",
                cpu_of(0),
                cpu_of(1),
            ),
            format!(
                "TCP: Reno, buffers of {} KiB at both ends; one flow lasts, several are new ones in each run",
                sockets::BUFFER >> 10
            ),
            "veth pairs with default offloads; GRO on at every end (NAPI)".to_owned(),
            "vswitch-xdp switches tx checksumming of the far ends off, as XDP ports need".to_owned(),
            "bridge: STP and multicast snooping off; ageing 300 s for all that learn".to_owned(),
            "frame sizes count the 4 bytes of checksum that end a frame on a wire".to_owned(),
            "in a run they take turns of 5 to 20 ms, forwards and backwards; a warm-up round is not counted"
                .to_owned(),
            "what the distance of the two CPUs decides, how long a cache line takes there and back, is of rounds at one distance; JSON has it as cpu_distance"
                .to_owned(),
            "a ratio is the median of the ratios within each round of runs; the interval after it contains the true one with 95 %"
                .to_owned(),
            "frames/s and datagrams/s are by the sending CPU's own time: other work on the machine is not counted; TCP and latency go by the clock on the wall"
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
        if !iperf3::installed() {
            terms.push("iperf3: not installed: no second opinion".to_owned());
        }
        terms.push(format!("ovs: {}: left out", ovs::absent()));
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cpus: cpus::all().len(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            vswitch: format!("{} ({BUILD})", env!("CARGO_PKG_VERSION")),
            jit: read("/proc/sys/net/core/bpf_jit_enable").trim() != "0",
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            terms,
        }
    }
}
