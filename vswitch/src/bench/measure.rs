//! How is one run measured, and what do several runs say? Rates at the receiver, a ledger of every frame, a median.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use super::{
    contestants::{Contestant, Rival},
    counters::{Snapshot, backlog_drops},
    generator::{Generator, Load},
    lab::Room,
};

/// Frames a second beyond which a figure is a mistake, and would make the next run endless.
const MOST: f64 = 3e7;
/// The shortest run.
const LEAST: u32 = 1 << 12;
/// How many frames show how fast a contestant is.
const WARM_UP: u32 = 1 << 14;
/// How long frames may be on their way after the last was sent.
const PATIENCE: Duration = Duration::from_millis(500);

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

/// What one run found: a value for each metric of its scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) values: Vec<f64>,
    pub(super) ledger: Ledger,
}

/// Median, least and most of several runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// Something that can be measured again and again.
pub(super) trait Trial {
    /// One run of about that length.
    fn run(&mut self, generator: &mut Generator, time: Duration) -> Result<Run>;
}

/// A stream of frames through a contestant.
pub(super) struct Frames {
    pub(super) rival: Rival,
    pub(super) load: Load,
    /// How many receive each frame; none where all are to be dropped.
    pub(super) copies: u32,
    /// Whether the receiver is an XDP program; a stack counts the frame once more, as of no known protocol.
    pub(super) to_xdp: bool,
    /// Whether the sender's own far end is the receiver.
    pub(super) hairpin: bool,
    /// Frames per second, as far as is known.
    pub(super) rate: f64,
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

impl Spread {
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle).copied().unwrap_or_default();
        let lower = sorted.get(middle.saturating_sub(1)).copied().unwrap_or(upper);
        let median = if sorted.len().is_multiple_of(2) { f64::midpoint(lower, upper) } else { upper };
        Self { median, min: *min, max: *max }
    }

    /// How far apart the runs are, as a part of the median.
    pub(super) fn width(&self) -> f64 {
        if self.median > 0.0 { (self.max - self.min) / self.median } else { 0.0 }
    }
}

impl Frames {
    /// The room whose interfaces count what has arrived.
    fn receiver(&self) -> &Room {
        let lab = &self.rival.lab;
        if self.rival.contestant == Contestant::Generator {
            &lab.switch
        } else if self.hairpin {
            &lab.sender
        } else {
            &lab.receiver
        }
    }

    /// Sends so many frames and follows each.
    pub(super) fn send(&self, generator: &mut Generator, count: u32) -> Result<(f64, Ledger)> {
        let before = self.counters()?;
        let took = generator.send(&self.load, count)?.as_secs_f64().max(1e-6);
        let after = self.settled()?;
        let ledger = self.ledger(count, &before, &after);
        let copies = u64::from(self.copies.max(1));
        let done = if self.copies == 0 {
            u64::from(count).saturating_sub(ledger.drops.get(RING).copied().unwrap_or_default())
        } else {
            ledger.received / copies
        };
        Ok((done as f64 / took, ledger))
    }

    fn ledger(&self, count: u32, before: &Counted, after: &Counted) -> Ledger {
        let at_switch = after.switch.since(&before.switch);
        let at_receiver = after.receiver.since(&before.receiver);
        let bare_generator = self.rival.contestant == Contestant::Generator;
        let received = at_receiver.received();
        let mut ledger = Ledger { sent: count.into(), received, ..Ledger::default() };
        let copies = u64::from(self.copies.max(1));
        // The generator's ring; a floor's counts as the receiver's own.
        ledger.drop_for(RING, at_switch.receive_drops() * copies);
        if !bare_generator {
            // `bpf_redirect_peer` goes past the receiver's XDP program, to its stack.
            let to_stack = !self.to_xdp
                || matches!(self.rival.contestant, Contestant::VswitchTc | Contestant::FloorTcPeer);
            let of_stack = if to_stack { received } else { 0 };
            let overflows = at_receiver.receive_drops().saturating_sub(of_stack);
            let refused = after.refused.saturating_sub(before.refused);
            ledger.drop_for(
                "the receiver's ring or backlog",
                overflows.max(at_switch.send_drops()).max(refused),
            );
        }
        for (reason, count) in &after.reasons {
            let old = before.reasons.get(reason).copied().unwrap_or_default();
            ledger.drop_for(reason, count.saturating_sub(old) * copies);
        }
        let expected = u64::from(count) * copies;
        ledger.balance(expected);
        if ledger.unaccounted > 0 {
            ledger.drop_for("a CPU's backlog", (after.backlog - before.backlog).min(ledger.unaccounted));
        }
        if self.copies == 0 && !self.rival.contestant.is_vswitch() && received == 0 {
            // It drops all that it gets, as it should, and counts none.
            ledger.balance(expected);
            ledger.drop_for("as it should", ledger.unaccounted);
        }
        ledger.balance(expected);
        ledger
    }

    fn counters(&self) -> Result<Counted> {
        let (mut reasons, mut refused) = (BTreeMap::new(), 0);
        for row in self.rival.stats()? {
            for (reason, count) in row.drops {
                *reasons.entry(format!("vswitch: {reason}")).or_default() += count;
            }
            refused += row.tx.errors;
        }
        Ok(Counted {
            switch: Snapshot::take(&self.rival.lab.switch)?,
            receiver: Snapshot::take(self.receiver())?,
            reasons,
            refused,
            backlog: backlog_drops(),
        })
    }

    /// The counters once they stand still.
    fn settled(&self) -> Result<Counted> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Snapshot::take(self.receiver())?;
        loop {
            thread::sleep(Duration::from_millis(2));
            let now = Snapshot::take(self.receiver())?;
            if now.0 == last.0 || Instant::now() > deadline {
                return self.counters();
            }
            last = now;
        }
    }
}

/// Frames that the generator made and the first veth had no room for: none was lost by a switch.
const RING: &str = "the switch's ring";

/// All counters of a trial at a moment.
struct Counted {
    switch: Snapshot,
    receiver: Snapshot,
    reasons: BTreeMap<String, u64>,
    /// By the kernel, on the way out of our switch: the sending veth counts most of them too.
    refused: u64,
    backlog: u64,
}

impl Trial for Frames {
    fn run(&mut self, generator: &mut Generator, time: Duration) -> Result<Run> {
        let count = if self.rate > 0.0 { (self.rate.min(MOST) * time.as_secs_f64()) as u32 } else { WARM_UP };
        let (rate, ledger) = self.send(generator, count.max(LEAST))?;
        self.rate = rate;
        Ok(Run { values: vec![rate], ledger })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_least_and_most() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[]), Spread::default());
        assert_eq!(Spread::of(&[2.0, 1.0, 3.0]).width(), 1.0);
    }

    #[test]
    fn a_ledger_tells_what_is_missing() {
        let mut ledger = Ledger { sent: 10, received: 7, ..Ledger::default() };
        ledger.drop_for("ring", 2);
        ledger.drop_for("nothing", 0);
        ledger.balance(10);
        assert_eq!((ledger.unaccounted, ledger.drops.len()), (1, 1));
    }
}
