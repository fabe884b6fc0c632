//! How do the dataplane's time stamps and the user's seconds follow from each other?
//!
//! The dataplane stamps in ticks (`jiffies_64`), of which the kernel tells userspace nothing. Both it and CLOCK_MONOTONIC_COARSE
//! go forward in the same interrupt (`tick_do_update_jiffies64`), by CLOCK_MONOTONIC: one look at both tells for always.

use std::io;

use anyhow::{Context as _, Result, bail};
use aya::{TestRun as _, TestRunOptions, programs::SchedClassifier};
use vswitch_ebpf::abi::Stamp;

use super::ledger::Identity;

/// What a stamp means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// [`Identity::tick`].
    pub(super) tick: u32,
    /// [`Identity::epoch`].
    pub(super) epoch: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { tick: 1_000_000, epoch: 0 }
    }
}

const SECOND: u64 = 1_000_000_000;

impl Clock {
    /// Asks the object's program `vswitch_clock` for the time.
    pub(super) fn set_by(program: &SchedClassifier) -> Result<Self> {
        let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of ours.
        if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) } != 0 {
            return Err(io::Error::last_os_error()).context("ask for the length of a tick");
        }
        let tick = u32::try_from(resolution.tv_nsec).context("the length of a tick")?;
        // The tick may come between the two looks, but not always.
        for _ in 0..100 {
            let before = coarse();
            let stamp = ask(program)?;
            if coarse() == before {
                let epoch = before.wrapping_sub_unsigned(stamp.wrapping_mul(tick.into()));
                return Ok(Self { tick, epoch });
            }
        }
        bail!("the kernel's clock does not stand still for a look at it: try again")
    }

    /// The clock of a switch that is up.
    pub(super) fn of(identity: &Identity) -> Self {
        // 0: a switch that its maker left unfinished, which nobody asks for the time.
        Self { tick: identity.tick.max(1), epoch: identity.epoch }
    }

    /// The time.
    pub(super) fn now(self) -> Stamp {
        let since = coarse().wrapping_sub(self.epoch).unsigned_abs();
        // To the nearest: the interrupt is late by more or by less.
        (since + u64::from(self.tick) / 2) / u64::from(self.tick)
    }

    /// Ticks in so many seconds, rounded up.
    pub(crate) fn stamps(self, seconds: u32) -> u32 {
        let stamps = (u64::from(seconds) * SECOND).div_ceil(self.tick.into());
        u32::try_from(stamps).unwrap_or(u32::MAX)
    }

    /// Seconds in so many ticks, rounded to the nearest.
    pub(super) fn seconds(self, stamps: u64) -> u64 {
        (stamps.saturating_mul(self.tick.into()).saturating_add(SECOND / 2)) / SECOND
    }
}

/// CLOCK_MONOTONIC at the last tick, in nanoseconds.
fn coarse() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours. The clock exists always (Linux 2.6.32).
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    now.tv_sec * SECOND.cast_signed() + now.tv_nsec
}

fn ask(program: &SchedClassifier) -> Result<Stamp> {
    // `cb` in `struct __sk_buff` (linux/bpf.h), in words.
    const CB: usize = 12;
    let frame = [0; 14];
    let mut after = [0u32; 48];
    program
        .test_run(TestRunOptions {
            data_in: Some(&frame),
            ctx_out: Some(bytemuck::cast_slice_mut(&mut after)),
            ..TestRunOptions::default()
        })
        .context("ask the dataplane for the time")?;
    Ok(u64::from(after[CB]) | u64::from(after[CB + 1]) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_ticks() {
        let clock = Clock { tick: 4_000_000, epoch: 0 };
        assert_eq!((clock.stamps(300), clock.seconds(75_000)), (75_000, 300));
        let odd = Clock { tick: 3_333_333, ..clock };
        assert_eq!((odd.stamps(1), odd.seconds(301), odd.seconds(449)), (301, 1, 1));
        assert_eq!(clock.stamps(u32::MAX), u32::MAX, "more than a stamp holds is for ever");
    }

    #[test]
    fn time_passes() {
        let clock = Clock { tick: 1_000_000, epoch: coarse() - 4_294_667_296_000_000 };
        let stamp = clock.now();
        assert!((4_294_667_296..4_294_668_296).contains(&stamp), "{stamp}");
    }
}
