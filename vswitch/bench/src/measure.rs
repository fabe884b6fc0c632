//! What is a run, and where did every frame of it go?

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use serde::Serialize;

use super::generator::Generator;

/// Something that can be measured again and again.
pub(super) trait Trial {
    /// One run of about that length.
    fn run(&mut self, generator: &mut Generator, time: Duration) -> Result<Run>;

    /// The first value by iperf3, where it has one to give.
    fn second_opinion(&self) -> Result<Option<f64>> {
        Ok(None)
    }
}

/// What one run found: a value for each metric of its scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) values: Vec<f64>,
    pub(super) ledger: Ledger,
}

/// Where every frame of a run went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Ledger {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// By reason.
    pub(super) drops: BTreeMap<String, u64>,
    /// Sent, and neither received nor dropped for a reason that somebody counted.
    pub(super) unaccounted: u64,
}

impl Ledger {
    /// Adds a drop, unless there is none.
    pub(super) fn drop_for(&mut self, reason: &str, count: u64) {
        if count > 0 {
            *self.drops.entry(reason.to_owned()).or_default() += count;
        }
    }

    /// Sets what is missing.
    pub(super) fn balance(&mut self, expected: u64) {
        let explained = self.received + self.drops.values().sum::<u64>();
        self.unaccounted = expected.saturating_sub(explained);
    }

    /// Adds another run's.
    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.unaccounted += other.unaccounted;
        other.drops.iter().for_each(|(reason, count)| self.drop_for(reason, *count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_tells_what_is_missing() {
        let mut ledger = Ledger { sent: 10, received: 7, ..Ledger::default() };
        ledger.drop_for("ring", 2);
        ledger.drop_for("nothing", 0);
        ledger.balance(10);
        assert_eq!((ledger.unaccounted, ledger.drops.len()), (1, 1));
    }
}
