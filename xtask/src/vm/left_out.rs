//! Which tests do not run on which kernel, and why? And which ones has CI time for?

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::{Level, kernel::Kernel, quietly};

/// A test that does not run in the emulator.
pub(crate) struct LeftOut {
    /// `None`: on all.
    pub(crate) kernel: Option<Kernel>,
    /// The test binary.
    pub(crate) target: &'static str,
    pub(crate) test: &'static str,
    pub(crate) why: &'static str,
}

/// What `--quick` has time for: the programs load, look up and flood as specified; every kind of port and the host reach each
/// other, also after somebody has interfered; modes are macvlan's; an upgrade costs no frame; all goes away again.
const QUICK: [(&str, &[&str]); 2] = [
    (
        "kernel",
        &[
            "budget::no_program_outgrows_its_budget",
            "the_programs_are_the_model",
            "whoever_comes_before_an_uplinks_stack_has_a_clone",
        ],
    ),
    (
        "net",
        &[
            "hitless::an_upgrade_costs_no_frame",
            "hostile_clsact::",
            "lifecycle::down_leaves_nothing",
            "modes_oracle::behind_a_switch_that_reflects",
            "netkit::",
            "traffic::ping_passes_between_all_kinds_of_ports",
        ],
    ),
];

const SPEED: &str = "measures speed, which an emulated CPU has not";
const CPU_TIME: &str = "measures CPU time, of which an emulated CPU takes many times as much";
const RENAMES: &str = "no interface that is up can be renamed before Linux 6.2";

const LEFT_OUT: [LeftOut; 10] = [
    everywhere("kernel", "budget::the_time_of_a_decision", SPEED),
    everywhere(
        "net",
        "traffic_speed::tcp_between_veths_comes_up_to_a_linux_bridge_in_one_round_of_four",
        SPEED,
    ),
    everywhere("net", "quiet::looking_costs_next_to_nothing", CPU_TIME),
    everywhere("net", "costs::", CPU_TIME),
    everywhere("net", "service::", "there is no systemd in the machine"),
    on_one(Kernel::V6_1, "netkit::", "there is no netkit before Linux 6.7"),
    on_one(
        Kernel::V6_1,
        "checksums::contents_and_checksums_are_right_on_every_path_with_any_offloads",
        "no socket sends a UDP super-frame by an interface without checksum offload before Linux 6.11",
    ),
    on_one(Kernel::V6_1, "lifecycle_ports::a_port_that_takes_a_missing_ports_name_keeps_its_own", RENAMES),
    on_one(Kernel::V6_1, "lifecycle_ports::a_renamed_interface_stays_a_port", RENAMES),
    on_one(Kernel::V6_12, "hostile_clsact::", "there are no clsact filters of ours from Linux 6.6 on"),
];

const fn everywhere(target: &'static str, test: &'static str, why: &'static str) -> LeftOut {
    LeftOut { kernel: None, target, test, why }
}

const fn on_one(kernel: Kernel, test: &'static str, why: &'static str) -> LeftOut {
    LeftOut { kernel: Some(kernel), target: "net", test, why }
}

pub(crate) fn on(kernel: Kernel) -> impl Iterator<Item = &'static LeftOut> {
    LEFT_OUT.iter().filter(move |left_out| left_out.kernel.is_none_or(|only| only == kernel))
}

/// The tests of a level that `--quick` runs.
pub(crate) fn quick(level: &Level) -> impl Iterator<Item = &'static str> {
    QUICK.iter().filter(|(target, _)| *target == level.target).flat_map(|(_, tests)| tests.iter().copied())
}

/// Fails if the lists name a test that does not exist, or more than one: libtest would say nothing.
pub(crate) fn check(tests: &[(&Level, PathBuf)]) -> Result<()> {
    for (level, binary) in tests {
        let listed = quietly(
            std::process::Command::new(binary).args(["--list", "--format", "terse"]),
            "list the tests",
        )?;
        let listed = String::from_utf8(listed).context("the tests' names")?;
        let names: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        let count = |part: &str| names.iter().filter(|name| name.contains(part)).count();
        for LeftOut { test, .. } in LEFT_OUT.iter().filter(|left_out| left_out.target == level.target) {
            // A whole module may be named.
            if count(test) != 1 && !(test.ends_with("::") && count(test) > 0) {
                bail!("{} tests are called {test}, which is to be left out: see vm/left_out.rs", count(test));
            }
        }
        if let Some(test) = quick(level).find(|test| count(test) == 0) {
            bail!("no test is called {test}, which `--quick` is to run: see vm/left_out.rs");
        }
    }
    Ok(())
}
