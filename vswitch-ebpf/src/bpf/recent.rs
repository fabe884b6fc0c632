//! May the FDB's last answer be used again? What each CPU remembers of it, and what makes it forget.
//!
//! An answer holds as long as `CHANGES` says what it said before the FDB was asked: whoever changes the FDB changes that
//! number afterwards. It holds for as long as a stamp may go unrenewed at most ([`Settings::refresh`]), so that whatever was
//! done behind our back (`bpftool map update`) shows within a second; and not beyond the entry's own time.

use core::arch::asm;

use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, Recent, Settings, Stamp, fdb_flags},
    tables::Tables as _,
};

use super::maps::{CHANGES, FDB, Maps, RECENT};

/// The entry, if this CPU remembers it.
#[inline(always)]
pub(crate) fn get(key: FdbKey, now: Stamp) -> Option<FdbEntry> {
    let recent = element(key)?;
    let holds = recent.key == key.word() && recent.changes == changes() && now < recent.until;
    holds.then_some(recent.entry)
}

/// The entry as it is in the FDB; remembers it.
#[inline(always)]
pub(crate) fn ask(key: FdbKey, now: Stamp) -> Option<FdbEntry> {
    // Before the FDB is read: a change in between makes the answer void.
    let changes = changes();
    // SAFETY: a copy of one aligned word. If the element was recycled for another address in between, the answer is that
    // address' port: one frame may go astray, no memory does.
    let entry = unsafe { FDB.get(key) }.copied()?;
    // Not over an answer that holds: when there are more conversations than elements, storing each answer would only cost.
    if let Some(recent) = element(key).filter(|recent| recent.changes != changes || recent.until <= now) {
        let Settings { ageing, refresh, .. } = Maps.settings();
        let soon = now + u64::from(refresh);
        let until =
            if entry.has(fdb_flags::STATIC) { soon } else { soon.min(entry.stamp() + u64::from(ageing)) };
        *recent = Recent { key: key.word(), entry, changes, until };
    }
    Some(entry)
}

/// The entry has another stamp.
#[inline(always)]
pub(crate) fn forget(key: FdbKey) {
    if let Some(recent) = element(key) {
        recent.until = 0;
    }
}

/// The entry says something else: no CPU may use what it remembers.
#[inline(always)]
pub(crate) fn forget_all() {
    if let Some(changes) = CHANGES.get_ptr_mut(0) {
        // SAFETY: adds to an aligned element of an array, which is never freed. Assembly, for Rust knows no atomics of BPF.
        unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) changes, in(reg) 1u64, options(nostack)) };
    }
}

#[inline(always)]
fn changes() -> u64 {
    CHANGES.get(0).copied().unwrap_or(0)
}

#[inline(always)]
fn element<'a>(key: FdbKey) -> Option<&'a mut Recent> {
    let recent = RECENT.get_ptr_mut(Recent::element(key.word()))?;
    // SAFETY: this CPU's own element of an array, which is never freed. A program that interrupts this one (a hook nested in a
    // clone) does so outside of any such borrow.
    Some(unsafe { &mut *recent })
}
