//! The counters: what came in by each port, what became of it, and what went out.

use core::hint::black_box;

use vswitch_ebpf::{
    abi::{Counters, DROP_REASONS},
    verdict::{Decision, DropReason},
};

use super::maps::COUNTERS;

/// A frame, as the receive counters know it.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// Whose they are.
    slot: u16,
    /// Bytes.
    len: u32,
    /// Whether its source address found no room in the FDB.
    fdb_full: bool,
}

impl Arrival {
    /// Of the frame that a decision is about.
    #[inline(always)]
    pub(crate) const fn of(decision: &Decision, len: u32) -> Self {
        Self { slot: decision.counted(), len, fdb_full: decision.fdb_full }
    }

    /// Counts it, and what became of it.
    #[inline(always)]
    pub(crate) fn count(&self, fate: impl FnOnce(&mut Counters)) {
        change(self.slot, |counters| {
            counters.rx_packets += 1;
            counters.rx_bytes += u64::from(self.len);
            counters.fdb_full += u64::from(self.fdb_full);
            fate(counters);
        });
    }

    /// Counts it as dropped.
    #[inline(always)]
    pub(crate) fn count_drop(&self, reason: DropReason) {
        self.count(|counters| {
            // The compiler knows the largest reason and would leave out the bound that the verifier needs to see.
            let index = usize::from(black_box(reason as u8)) % DROP_REASONS;
            if let Some(drops) = counters.drops.get_mut(index) {
                *drops += 1;
            }
        });
    }
}

/// Counts a frame that leaves by a port, or for the host.
#[inline(always)]
pub(crate) fn sent(slot: u16, len: u32) {
    change(slot, |counters| {
        counters.tx_packets += 1;
        counters.tx_bytes += u64::from(len);
    });
}

/// Counts a copy that could not be sent.
#[inline(always)]
pub(crate) fn tx_error(slot: u16) {
    change(slot, |counters| counters.tx_errors += 1);
}

#[inline(always)]
fn change(slot: u16, change: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(u32::from(slot)) {
        // SAFETY: this CPU's own element of an array, which is never freed; a program is not preempted by another one
        // that counts on the same CPU except by a hook nested in a clone, outside any such borrow.
        change(unsafe { &mut *counters });
    }
}
