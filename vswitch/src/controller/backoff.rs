//! When may be tried again what has failed, or what somebody undoes again and again?

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);

/// After so long it counts as new.
const CALM: Duration = Duration::from_secs(60);

/// At once, then after 1, 2, 4, 8 and 10 s. For each thing that is tried, by its words.
#[derive(Debug, Default)]
pub(super) struct Backoff(HashMap<String, (u32, Instant)>);

impl Backoff {
    /// Whether it may be tried now: then it counts as tried.
    pub(super) fn may(&mut self, what: &str, now: Instant) -> bool {
        self.0.retain(|_, (_, last)| now.duration_since(*last) < CALM);
        let Some((tries, last)) = self.0.get_mut(what) else {
            self.0.insert(what.to_owned(), (1, now));
            return true;
        };
        let pause = Duration::from_secs(1 << (*tries - 1).min(4)).min(LONGEST);
        let may = now.duration_since(*last) >= pause;
        if may {
            (*tries, *last) = (*tries + 1, now);
        }
        may
    }

    /// It has come to a good end: the next time is the first.
    pub(super) fn done(&mut self, what: &str) {
        self.0.remove(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_ten_seconds_and_end_with_calm() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let tried: Vec<u64> = (0..40).filter(|s| backoff.may("x", start + Duration::from_secs(*s))).collect();
        assert_eq!(tried, [0, 1, 3, 7, 15, 25, 35]);
        assert!(backoff.may("y", start), "another thing");
        assert!(!backoff.may("x", start + Duration::from_secs(36)));
        let calm = start + Duration::from_secs(35) + CALM;
        assert!(backoff.may("x", calm) && backoff.may("x", calm + Duration::from_secs(1)));
        backoff.done("x");
        assert!(backoff.may("x", calm + Duration::from_secs(1)));
    }
}
