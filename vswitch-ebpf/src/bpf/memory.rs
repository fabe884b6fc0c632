//! The verdicts that this CPU remembers: asked before a decision, told after it.
//!
//! A record is this CPU's own. Programs run with softirqs off and are not preempted by one another, except where one clones
//! a frame and the clone meets another; no record is being read or written then.

use vswitch_ebpf::{
    frame::Frame,
    memory::{Question, Record},
    packet::{Hook, Packet},
    tables::Look as _,
    verdict::{Action, Decision},
};

use super::{
    atomic,
    fdb::FDB_SECRET,
    maps::{GENERATION, Maps, VERDICTS},
};

/// What to ask about a frame; `None` if it has no header. Before anything is looked up: what is changed from now on
/// makes the answer a stale one.
#[inline(always)]
pub(crate) fn question(frame: &impl Frame, hook: Hook) -> Option<Question> {
    let words = frame.words()?;
    let generation = atomic::read(GENERATION.get_ptr(0)?);
    Some(Question { words, wire_len: frame.wire_len(), hook, generation, now: Maps.now() })
}

/// What was decided for frames like this one.
#[inline(always)]
pub(crate) fn recall(asked: &Question) -> Option<Decision> {
    // SAFETY: this CPU's own, see above; an element of an array is never freed.
    unsafe { &*record(asked)? }.answer(asked)
}

/// As [`recall`], at tc: the target's interface is still there.
#[inline(always)]
pub(crate) fn recall_present(asked: &Question) -> Option<Decision> {
    let decision = recall(asked)?;
    let elsewhere = !matches!(decision.verdict.action, Action::Drop) && !decision.stays();
    if elsewhere && Maps.is_gone(decision.verdict.target.slot) { None } else { Some(decision) }
}

/// Keeps what was decided.
#[inline(always)]
pub(crate) fn keep(packet: &Packet, asked: &Question) {
    if let Some(record) = record(asked) {
        // SAFETY: as in `recall`.
        unsafe { &mut *record }.keep(packet, asked);
    }
}

#[inline(always)]
fn record(asked: &Question) -> Option<*mut Record> {
    VERDICTS.get_ptr_mut(asked.element(FDB_SECRET.load()))
}
