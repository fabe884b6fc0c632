//! How far apart are the CPUs of a sender and a receiver just now? The host of a virtual machine moves them.
//!
//! A cache line's way to the other CPU and back is 50 ns where both share a cache and 320 ns where they do not, and with it
//! bulk TCP is 23 or 11 Gbit/s, whoever switches. Rounds are compared with rounds at the same distance.

use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{cpus, sockets::both};

const TRIPS: u32 = 1000;
/// One that is longer than this was interrupted, and ended; where a CPU has another to do, the other side waits in vain.
const LONGEST: Duration = Duration::from_millis(20);
/// What is farther by more than this factor is elsewhere.
const ELSEWHERE: f64 = 2.0;

/// Nanoseconds there and back; none where there is but one CPU.
pub(super) fn now() -> Result<Option<f64>> {
    if cpus::all().len() < 2 {
        return Ok(None);
    }
    let line = AtomicU32::new(0);
    let (took, ()) = both(
        || {
            let started = Instant::now();
            for trip in 0..TRIPS {
                line.store(2 * trip + 1, Ordering::Release);
                if !arrives(&line, 2 * trip + 2, started) {
                    break;
                }
            }
            Ok(started.elapsed())
        },
        |_| {
            let started = Instant::now();
            for trip in 0..TRIPS {
                if !arrives(&line, 2 * trip + 1, started) {
                    break;
                }
                line.store(2 * trip + 2, Ordering::Release);
            }
            Ok(())
        },
    )?;
    Ok((took < LONGEST).then(|| took.as_secs_f64() * 1e9 / f64::from(TRIPS)))
}

fn arrives(line: &AtomicU32, wanted: u32, started: Instant) -> bool {
    while line.load(Ordering::Acquire) != wanted {
        if started.elapsed() > LONGEST {
            return false;
        }
        spin_loop();
    }
    true
}

/// Where most rounds were, and which of them were there. One whose distance is not known is.
pub(super) fn common(rounds: &[Option<f64>]) -> (Option<f64>, Vec<bool>) {
    let mut known: Vec<f64> = rounds.iter().flatten().copied().collect();
    known.sort_by(f64::total_cmp);
    let Some(middle) = known.get(known.len() / 2).copied() else { return (None, vec![true; rounds.len()]) };
    let here = |distance: f64| distance < middle * ELSEWHERE && middle < distance * ELSEWHERE;
    (Some(middle), rounds.iter().map(|round| round.is_none_or(here)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_at_another_distance_are_told_apart() {
        let rounds = [Some(320.0), Some(52.0), None, Some(340.0), Some(318.0)];
        assert_eq!(common(&rounds), (Some(320.0), vec![true, false, true, true, true]));
        assert_eq!(common(&[None, None]), (None, vec![true, true]));
    }
}
