//! Which unit tests does a run without root leave out?

use std::io::Write as _;

/// Whether the run lacks what the test needs. That is said, or a failure where nothing may be left out.
pub(crate) fn skipped(test: &str) -> bool {
    // SAFETY: geteuid takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return false;
    }
    assert!(
        std::env::var("VSWITCH_REQUIRE").as_deref() != Ok("all"),
        "{test}: needs root, and VSWITCH_REQUIRE=all"
    );
    // The test harness captures eprintln! of a passing test; a skip must be seen.
    let _ = std::io::stderr().write_all(format!("SKIPPED {test}: needs root\n").as_bytes());
    true
}
