//! How long does a test wait for what must happen? Longer where the CPU is emulated, see `cargo xtask vm`.

use std::{
    env, fs,
    sync::LazyLock,
    time::{Duration, Instant},
};

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

/// Tells how long something takes on a machine that does nothing else meanwhile.
#[derive(Debug)]
pub struct Stopwatch {
    start: Instant,
    stalled: Option<Duration>,
}

impl Stopwatch {
    /// Starts it.
    pub fn start() -> Self {
        Self { start: Instant::now(), stalled: stalled() }
    }

    /// The time since then.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// That of it in which no process of the machine waited for a CPU; all of it where the kernel does not tell.
    pub fn alone(&self) -> Duration {
        let elapsed = self.elapsed();
        let waited = stalled().zip(self.stalled).map_or(Duration::ZERO, |(now, before)| now - before);
        elapsed.saturating_sub(waited)
    }
}

/// The time so far in which some process waited for a CPU (Documentation/accounting/psi.rst).
fn stalled() -> Option<Duration> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().next()?.split("total=").nth(1)?.parse().ok()?;
    Some(Duration::from_micros(total))
}
