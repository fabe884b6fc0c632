//! How long does a test wait for what must happen? Longer where the CPU is emulated, see `cargo xtask vm`.

use std::{env, sync::LazyLock, time::Duration};

/// How many times as long. What is expected, and when at the earliest, is the same everywhere.
const VARIABLE: &str = "VSWITCH_PATIENCE";

/// The longest wait on this machine for what takes at most `limit` on one of its own.
pub fn patience(limit: Duration) -> Duration {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        let Ok(value) = env::var(VARIABLE) else { return 1 };
        value.parse().unwrap_or_else(|err| panic!("{VARIABLE}={value}: {err}"))
    });
    limit * *FACTOR
}
