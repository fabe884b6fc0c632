//! How much of a CPU's time did the frames take? The generator's, and that of soft interrupts that were put off.

use std::{fs, path::PathBuf, time::Duration};

/// The kernel thread that does a CPU's soft interrupts when they become too many at once.
#[derive(Clone, Debug)]
pub(super) struct Deferred(Option<PathBuf>);

/// The CPU time of the calling thread and of [`Deferred`] at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuTime {
    thread: Duration,
    deferred: Duration,
}

impl Deferred {
    pub(super) fn of(cpu: usize) -> Self {
        let name = format!("ksoftirqd/{cpu}");
        let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let found = processes
            .map(|entry| entry.path())
            .find(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name));
        Self(found.map(|path| path.join("schedstat")))
    }

    /// Zero where it cannot be seen, as in a container.
    fn time(&self) -> Duration {
        let text = self.0.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let first = text.as_deref().and_then(|text| text.split_whitespace().next());
        Duration::from_nanos(first.and_then(|word| word.parse().ok()).unwrap_or(0))
    }
}

impl CpuTime {
    pub(super) fn now(deferred: &Deferred) -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of ours; the clock exists always.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        let thread = Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_nanos(nanos);
        Self { thread, deferred: deferred.time() }
    }

    pub(super) fn since(&self, earlier: &Self) -> Duration {
        self.thread.saturating_sub(earlier.thread) + self.deferred.saturating_sub(earlier.deferred)
    }
}
