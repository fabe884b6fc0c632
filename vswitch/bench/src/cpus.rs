//! Which CPU does a busy thread have?

use std::{mem, sync::OnceLock};

use anyhow::Result;

use vswitch::net::Refused;

/// The CPUs that this process may use, as it began.
pub(super) fn all() -> &'static [usize] {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    CPUS.get_or_init(|| {
        // SAFETY: a plain set of bits, for which all zeroes is the empty set.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the set is ours, of the size that is given.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        // SAFETY: CPU_ISSET reads a bit within the set.
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
    })
}

/// The CPU of the n-th busy thread.
pub(super) fn cpu_of(number: usize) -> usize {
    let cpus = all();
    cpus.get(number % cpus.len().max(1)).copied().unwrap_or(0)
}

/// Not the first, which gets most hard interrupts.
pub(super) fn generator_cpu() -> usize {
    cpu_of(1)
}

/// Keeps the calling thread, and those that it starts from now on, on one CPU.
pub(super) fn pin(cpu: usize) -> Result<()> {
    // SAFETY: a plain set of bits, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is ours and outlives both calls; CPU_SET bounds the index by its size.
    let done = unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    // In a container that may not use that CPU the scheduler chooses.
    if done < 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
        return Err(Refused::last(format!("stay on CPU {cpu}")).into());
    }
    Ok(())
}
