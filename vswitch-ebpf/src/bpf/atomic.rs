//! Words that others change at the same time, with the kernel's atomics: Rust knows none of BPF's.

use core::{arch::asm, ptr};

/// Reads a word.
#[inline(always)]
pub(crate) fn read(word: *const u64) -> u64 {
    // SAFETY: an aligned word of a map's element, which is never freed; others change it as a whole.
    unsafe { ptr::read_volatile(word) }
}

/// Replaces a word that is `old`. Returns what it was. A full barrier.
#[inline(always)]
pub(crate) fn exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let found;
    // SAFETY: as in `read`; what is expected and what was found is in r0 (BPF_CMPXCHG, Linux 5.12).
    unsafe {
        asm!("r0 = cmpxchg_64({} + 0, r0, {})", in(reg) word, in(reg) new, inout("r0") old => found, options(nostack));
    }
    found
}

/// Adds to a word.
#[inline(always)]
pub(crate) fn add(word: *mut u64, value: u64) {
    // SAFETY: as in `read`.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) word, in(reg) value, options(nostack)) };
}

/// Keeps those bits of a word that are in `value`, too.
#[inline(always)]
pub(crate) fn and(word: *mut u64, value: u64) {
    // SAFETY: as in `read`.
    unsafe { asm!("lock *(u64 *)({} + 0) &= {}", in(reg) word, in(reg) value, options(nostack)) };
}
