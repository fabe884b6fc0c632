//! How fast do frames of the generator pass a contestant, and where did each of them go?

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    contestants::{Contestant, Rival, Terms},
    counters::{Snapshot, backlog_drops},
    generator::{BATCH, Generator, Load},
    lab::{Room, port},
    measure::{Ledger, Run, Trial},
    scenarios::entrance,
};

/// Frames a second beyond which a figure is a mistake, and would make the next run endless.
const MOST: f64 = 3e7;
/// The shortest run.
const LEAST: u32 = 1 << 8;
/// How many frames show how fast a contestant is.
const WARM_UP: u32 = 1 << 12;
/// How long frames may be on their way after the last was sent.
const PATIENCE: Duration = Duration::from_millis(500);

/// A destination that nobody has.
const NOBODY: [u8; 6] = [0x02, 0xee, 0, 0, 0, 1];

/// Half of what a CPU's backlog has room for (net.core.netdev_max_backlog).
const BACKLOG: u32 = 500;

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

/// `copies`: how many are to receive each frame.
pub(super) fn make(
    rival: Rival,
    generator: &mut Generator,
    terms: Terms,
    (bytes, addresses, copies): (usize, u32, u32),
) -> Result<Frames> {
    let mut load = Load {
        sources: addresses,
        destinations: addresses,
        ..Load::new(entrance(generator, &rival, 0)?, bytes)
    };
    if copies > 1 {
        load.to = Some(NOBODY);
        // A CPU's backlog has room for a thousand.
        load.batch = (BACKLOG / copies).clamp(1, BATCH);
    } else if rival.contestant != Contestant::Macvlan {
        // Where the destinations are. For hairpin, behind the port that the frames come from.
        let teacher = if terms.hairpin { load.entrance } else { entrance(generator, &rival, 1)? };
        let lesson = Load { reverse: true, entrance: teacher, destinations: 1, ..load };
        generator.send(&lesson, addresses)?;
    }
    Ok(Frames { rival, load, copies, to_xdp: terms.to_xdp, hairpin: terms.hairpin, rate: 0.0 })
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
        let ledger = self.settled(count, &before)?;
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
        if self.copies == 0 && !self.rival.contestant.is_vswitch() {
            // It counts no such drop, but its ports count: what came in by one and left by none was dropped in between.
            let entered = at_switch.of(&port(0)).received;
            ledger.drop_for(
                "in the switch: came in by a port, left by none",
                entered.saturating_sub(at_switch.sent()),
            );
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

    /// Where the frames went, once each has arrived somewhere.
    fn settled(&self, count: u32, before: &Counted) -> Result<Ledger> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ledger = self.ledger(count, before, &self.counters()?);
            if ledger.unaccounted == 0 || Instant::now() > deadline {
                return Ok(ledger);
            }
            thread::sleep(Duration::from_millis(1));
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
