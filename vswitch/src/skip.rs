//! Which unit tests does a run without root leave out?

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
    eprintln!("SKIPPED {test}: needs root");
    true
}
