//! The verdicts that this CPU remembers: asked before a decision, told after it.
//!
//! A record is this CPU's own. Programs run with softirqs off and are not preempted by one another, except where one clones
//! a frame and the clone meets another; no record is being read or written then.

use vswitch_ebpf::{
    frame::Frame,
    memory::{Question, Record},
    packet::{Hook, Packet},
    tables::Look as _,
};

use super::{
    atomic,
    fdb::FDB_SECRET,
    maps::{GENERATION, Maps, VERDICTS},
};

/// What to ask about a frame. One without a header is asked about as what nothing is remembered of: from and to broadcast. Not
/// as an option, for what that leaves unwritten makes the verifier stumble (6.18: "verifier bug: stack slot 13").
#[inline(always)]
pub(crate) fn question(frame: &impl Frame, hook: Hook) -> Question {
    Question { words: frame.words().unwrap_or([u64::MAX; 2]), hook }
}

/// What was decided for frames like this one.
#[inline(always)]
pub(crate) fn recall(asked: &Question, frame: &impl Frame) -> Option<&'static Record> {
    // SAFETY: this CPU's own, see above; an element of an array is never freed.
    let record = unsafe { &*record(asked)? };
    let good = record.is_about(asked) && record.is_good(frame.wire_len(), generation(), Maps.now());
    good.then_some(record)
}

/// As [`recall`], at tc: the target's interface is still there.
#[inline(always)]
pub(crate) fn recall_present(asked: &Question, frame: &impl Frame) -> Option<&'static Record> {
    let record = recall(asked, frame)?;
    match record.elsewhere() {
        Some(slot) if Maps.is_gone(slot) => None,
        Some(_) | None => Some(record),
    }
}

/// The tables' generation. Asked before a decision looks anything up: what is changed from then on makes it a stale one.
#[inline(always)]
pub(crate) fn generation() -> u64 {
    GENERATION.get_ptr(0).map_or(0, atomic::read)
}

/// Keeps what was decided.
#[inline(always)]
pub(crate) fn keep(packet: &Packet, asked: &Question, generation: u64) {
    if let Some(record) = record(asked) {
        // SAFETY: as in `recall`.
        unsafe { &mut *record }.keep(packet, asked, generation);
    }
}

#[inline(always)]
fn record(asked: &Question) -> Option<*mut Record> {
    VERDICTS.get_ptr_mut(asked.element(FDB_SECRET.load()))
}
