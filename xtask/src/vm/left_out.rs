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

const LEFT_OUT: [LeftOut; 1] = [LeftOut {
    kernel: None,
    target: "net",
    test: "traffic_speed::tcp_between_veths_is_as_fast_as_through_a_linux_bridge",
    why: "measures speed, which an emulated CPU has not",
}];

/// Of level 3, what CI has time for.
pub(crate) const QUICK: [&str; 1] = ["lifecycle::"];

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
            if count(test) != 1 {
                bail!("{} tests are called {test}, which is to be left out: see vm/left_out.rs", count(test));
            }
        }
        if level.target == "net"
            && let Some(test) = QUICK.iter().find(|test| count(test) == 0)
        {
            bail!("no test is called {test}, which CI is to run: see vm/left_out.rs");
        }
    }
    Ok(())
}
