//! What was decided for frames like this one? Each CPU keeps its last verdicts, and answers from them without deciding.
//!
//! A verdict follows from the frame's header, its length, the tables and the time, and a record holds all of it: the words of
//! the header and the interface; the longest frame that it is for; the generation of the tables, which whoever changes them
//! raises after the change; and the time up to which what was looked up holds by itself. Whether the target's interface is
//! still the one that was meant is asked each time.
//!
//! Only what is for one receiver is remembered, and drops: what is for many is asked of each of them.

use bytemuck::Zeroable;

use crate::{
    abi::Stamp,
    packet::{Hook, Packet},
    verdict::{Action, Decision, DropReason, Members, Verdict},
};

/// Records that each CPU has.
pub const RECORDS: u32 = 1024;

/// How many frames of others a record that is good outlasts in its place: where more flows pass than there are records, most
/// would be written and never read.
const PATIENCE: u8 = 8;

/// A verdict, and for which frames it is good: one cache line, the element of the per-CPU map `VERDICTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Record {
    /// [`crate::frame::Frame::words`].
    words: [u64; 2],
    /// The tables' generation before the decision began.
    generation: u64,
    /// [`Packet::until`].
    until: Stamp,
    /// [`Hook::word`].
    hook: u32,
    /// The port that the frames enter by.
    slot: u16,
    /// How many more frames of others it outlasts.
    patience: u8,
    /// Explicit padding, zero.
    reserved: [u8; 5],
    /// What was decided.
    verdict: Verdict,
}

/// What is asked of a record.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// [`crate::frame::Frame::words`].
    pub words: [u64; 2],
    /// Where the frame is.
    pub hook: Hook,
}

impl Question {
    /// The element of `VERDICTS` that may have the answer. The `secret` is one of the FDB's: nobody can choose addresses that
    /// fall on one another.
    #[inline(always)]
    pub const fn element(&self, secret: u64) -> u32 {
        let [destination, source] = self.words;
        // Shifted: else an answer would meet what it answers.
        let mixed = (destination ^ source << 7 ^ self.hook.word() as u64).wrapping_mul(secret);
        (mixed >> 40) as u32 % RECORDS
    }
}

impl Record {
    /// Whether it is about such frames.
    #[inline(always)]
    pub const fn is_about(&self, asked: &Question) -> bool {
        let [destination, source] = asked.words;
        self.words[1] == source && self.words[0] == destination && self.hook == asked.hook.word()
    }

    /// Whether its verdict is good for frames of this [`crate::frame::Frame::wire_len`], while the tables' generation is this
    /// one, at this time.
    #[inline(always)]
    pub const fn is_good(&self, wire_len: u32, generation: u64, now: Stamp) -> bool {
        self.generation == generation && now < self.until && wire_len <= self.verdict.target.longest
    }

    /// Where a frame goes that it is about and good for: the target's slot, unless that is where it is going anyway.
    #[inline(always)]
    pub const fn elsewhere(&self) -> Option<u16> {
        let slot = self.verdict.target.slot;
        if matches!(self.verdict.action, Action::Drop) || slot == self.slot { None } else { Some(slot) }
    }

    /// What was decided.
    #[inline(always)]
    pub const fn decision(&self, hook: Hook) -> Decision {
        let from_host = matches!(hook, Hook::SentByHost(_));
        Decision { slot: self.slot, from_host, fdb_full: false, verdict: self.verdict }
    }

    /// Keeps what was decided of a frame, if it may be remembered and this place is free for it. The `generation` is that of
    /// before the decision.
    #[inline(always)]
    pub fn keep(&mut self, packet: &Packet, asked: &Question, generation: u64) {
        if packet.until <= packet.now || !is_kept(&packet.verdict) {
            return;
        }
        let good = self.generation == generation && packet.now < self.until;
        if good && self.patience > 0 && !self.is_about(asked) {
            self.patience = self.patience.saturating_sub(1);
            return;
        }
        self.words = asked.words;
        self.generation = generation;
        self.until = packet.until;
        self.hook = asked.hook.word();
        self.slot = packet.slot;
        self.patience = PATIENCE;
        // Part by part, as they were written: a CPU does not pass on what is read in other sizes than it was written in.
        let Verdict { action, reason, list, reserved, target } = packet.verdict;
        (self.verdict.action, self.verdict.reason) = (action, reason);
        (self.verdict.list, self.verdict.reserved) = (list, reserved);
        self.verdict.target = target;
        if matches!(action, Action::Drop) {
            self.verdict.target.longest = u32::MAX;
        }
    }
}

/// Whether a verdict is of the kind that is remembered, and depends on a frame's length no more than by its being too long.
#[inline(always)]
const fn is_kept(verdict: &Verdict) -> bool {
    match verdict.action {
        Action::Forward | Action::Host => matches!(verdict.list, Members::Nobody),
        Action::Drop => !matches!(verdict.reason, DropReason::MtuExceeded),
        Action::Flood | Action::HostHere => false,
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "test code: what does not hold must stop the test")]
mod tests;
