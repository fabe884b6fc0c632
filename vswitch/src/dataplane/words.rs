//! Which single words do this process and the programs change at the same time? Those of maps that are mapped into its memory:
//! no system call changes a word of an element.

use std::{
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};
use vswitch_ebpf::abi::port_state;

/// The elements of an array of words.
pub(super) struct Words(MmapRaw);

impl Words {
    /// Of a map that has been compared with what this build means, and has so many elements.
    pub(super) fn new(map: &MapData, count: u32) -> Result<Self> {
        let bytes = count as usize * size_of::<AtomicU64>();
        let mapped = MmapOptions::new().len(bytes).map_raw(&map.fd().as_fd());
        Ok(Self(mapped.context("map words into memory")?))
    }

    /// One of them.
    pub(super) fn word(&self, index: u32) -> Option<&AtomicU64> {
        let at = index as usize * size_of::<AtomicU64>();
        // SAFETY: within the mapping, as is compared here, which begins at a page and lives as long as `self`; words that others
        // change by atomic operations alone.
        (at < self.0.len()).then(|| unsafe { &*self.0.as_ptr().add(at).cast::<AtomicU64>() })
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..).map_while(|index| self.word(index))
    }

    /// Says that what was decided up to now may follow no more: all that has changed is to be seen before.
    pub(super) fn raise(&self) {
        if let Some(generation) = self.word(0) {
            generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Says whether the interface of the port in a slot is down. Returns whether that is new.
    pub(super) fn set_down(&self, slot: u16, down: bool) -> bool {
        let Some(state) = self.word(slot.into()) else { return false };
        let bit = u64::from(port_state::DOWN);
        let before = if down {
            state.fetch_or(bit, Ordering::SeqCst)
        } else {
            state.fetch_and(!bit, Ordering::SeqCst)
        };
        (before & bit != 0) != down
    }
}
