//! How is it waited until no program runs any more that may have read what has been taken away? Programs run as readers of RCU
//! (XDP and tc below softirq), and two system calls wait for these.

use std::{io, os::fd::AsRawFd as _};

use super::{raw, sys};

/// Waits until no program runs any more that did when this was called. About 10 ms.
///
/// # Errors
///
/// It is not known whether one still does.
pub(crate) fn await_programs() -> io::Result<()> {
    // Where CPUs are left alone (nohz_full=), the first one is refused.
    membarrier().or_else(|_refused| map_in_map())
}

/// synchronize_rcu() of kernel/sched/membarrier.c.
fn membarrier() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
    // SAFETY: the system call takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Who changes a map of maps is to know that no program uses the old one any more: synchronize_rcu() of
/// maybe_wait_bpf_programs() in kernel/bpf/syscall.c, since Linux 4.20.
fn map_in_map() -> io::Result<()> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
    let inner = raw::create("grace", BPF_MAP_TYPE_ARRAY, 8, 1, None)?;
    let outer = raw::create("grace", BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 1, Some(&inner))?;
    sys::update(&outer, &0u32, &inner.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::skip::skipped;

    /// That a system call waits for RCU can be seen by its time alone: another change of a map takes some microseconds.
    #[test]
    fn either_way_waits_for_a_grace_period() {
        if skipped("either_way_waits_for_a_grace_period") {
            return;
        }
        let least = |wait: &dyn Fn() -> io::Result<()>| {
            let times = (0..10).map(|_| {
                let start = Instant::now();
                wait().map(|()| start.elapsed())
            });
            times.collect::<io::Result<Vec<_>>>().map(|times| times.into_iter().min().unwrap())
        };
        let by_maps = least(&map_in_map).unwrap();
        // Refused where the second one is needed.
        let by_membarrier = least(&membarrier).unwrap_or(by_maps);
        println!("a grace period: {by_maps:?} by a map of maps, {by_membarrier:?} by membarrier");
        assert!(
            by_maps >= by_membarrier / 4,
            "{by_maps:?} by a map of maps, {by_membarrier:?} by membarrier"
        );
        let map = raw::create("no_grace", 2, 8, 1, None).unwrap();
        let without = least(&|| sys::update(&map, &0u32, &0u64)).unwrap();
        assert!(
            without < by_maps && without < Duration::from_millis(1),
            "{without:?} without, {by_maps:?} with"
        );
    }
}
