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

const LEFT_OUT: [LeftOut; 5] = [
    LeftOut {
        kernel: None,
        target: "kernel",
        test: "budget::the_time_of_a_decision",
        why: "measures speed, which an emulated CPU has not",
    },
    LeftOut {
        kernel: None,
        target: "net",
        test: "traffic_speed::tcp_between_veths_is_as_fast_as_through_a_linux_bridge",
        why: "measures speed, which an emulated CPU has not",
    },
    LeftOut {
        kernel: None,
        target: "net",
        test: "lifecycle::an_idle_controller_does_nothing",
        why: "measures CPU time, of which an emulated CPU takes many times as much",
    },
    LeftOut {
        kernel: Some(Kernel::V6_1),
        target: "net",
        test: "lifecycle_ports::a_port_that_takes_a_missing_ports_name_is_attached_once",
        why: "no interface that is up can be renamed before Linux 6.2",
    },
    LeftOut {
        kernel: Some(Kernel::V6_1),
        target: "net",
        test: "lifecycle_ports::a_renamed_interface_stays_a_port",
        why: "no interface that is up can be renamed before Linux 6.2",
    },
];

/// Of level 3, what `--quick` has time for: every kind of port and the host reach each other, and all goes away again.
pub(crate) const QUICK: [&str; 3] =
    ["lifecycle::down_leaves_nothing", "netkit::", "traffic::ping_passes_between_all_kinds_of_ports"];

pub(crate) fn on(kernel: Kernel) -> impl Iterator<Item = &'static LeftOut> {
    LEFT_OUT.iter().filter(move |left_out| left_out.kernel.is_none_or(|only| only == kernel))
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
        if level.target == "net"
            && let Some(test) = QUICK.iter().find(|test| count(test) == 0)
        {
            bail!("no test is called {test}, which `--quick` is to run: see vm/left_out.rs");
        }
    }
    Ok(())
}
