//! What was decided for frames like this one? Each CPU keeps its last verdicts, and answers from them without deciding.
//!
//! A verdict follows from the frame's header, its length, the tables and the time, and a record holds all of it: the words of
//! the header and the interface; the longest frame that it is for; the generation of the tables, which whoever changes them
//! raises after the change; and the time up to which what was looked up holds by itself. Whether the target's interface is
//! still the one that was meant is asked each time.
//!
//! Only what is for one receiver is remembered, and drops: what is for many is asked of each of them.

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
#[derive(Clone, Copy, Debug)]
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
    /// [`crate::frame::Frame::wire_len`].
    pub wire_len: u32,
    /// Where the frame is.
    pub hook: Hook,
    /// The tables' generation.
    pub generation: u64,
    /// The time.
    pub now: Stamp,
}

impl Question {
    /// The element of `VERDICTS` that may have the answer. The `secret` is one of the FDB's: nobody can choose addresses that
    /// fall on one another.
    #[inline(always)]
    pub const fn element(&self, secret: u64) -> u32 {
        let [destination, source] = self.words;
        let mixed = (destination ^ source.rotate_left(24) ^ self.hook.word() as u64).wrapping_mul(secret);
        (mixed >> 40) as u32 % RECORDS
    }
}

impl Default for Record {
    /// Good for no frame: its time is over.
    fn default() -> Self {
        Self {
            words: [0; 2],
            generation: 0,
            until: 0,
            hook: 0,
            slot: 0,
            patience: 0,
            reserved: [0; 5],
            verdict: Verdict::host_here(),
        }
    }
}

impl Record {
    /// The verdict for such a frame, if this is it.
    #[inline(always)]
    pub const fn answer(&self, asked: &Question) -> Option<Decision> {
        let [destination, source] = asked.words;
        if self.words[1] != source
            || self.words[0] != destination
            || self.hook != asked.hook.word()
            || self.generation != asked.generation
            || self.until <= asked.now
            || self.verdict.target.longest < asked.wire_len
        {
            return None;
        }
        let from_host = matches!(asked.hook, Hook::SentByHost(_));
        Some(Decision { slot: self.slot, from_host, fdb_full: false, verdict: self.verdict })
    }

    /// Keeps what was decided of a frame, if it may be remembered and this place is free for it.
    #[inline(always)]
    pub fn keep(&mut self, packet: &Packet, asked: &Question) {
        if packet.until <= packet.now || !is_kept(&packet.verdict) {
            return;
        }
        let good = self.generation == asked.generation && self.until > packet.now;
        if good && self.patience > 0 && self.words != asked.words {
            self.patience = self.patience.saturating_sub(1);
            return;
        }
        *self = Self {
            words: asked.words,
            generation: asked.generation,
            until: packet.until,
            hook: asked.hook.word(),
            slot: packet.slot,
            patience: PATIENCE,
            reserved: [0; 5],
            verdict: packet.verdict,
        };
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
