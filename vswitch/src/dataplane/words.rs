//! Words that this process and the programs share in memory, each changed by atomic operations alone: no system call changes
//! a word while they change another.

use std::{
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

/// An array of words, mapped into memory.
pub(super) struct Words(MmapRaw);

impl Words {
    /// Of a map that has been compared with its spec: so many elements of one word.
    pub(super) fn new(map: &MapData, count: u32) -> Result<Self> {
        let bytes = count as usize * size_of::<u64>();
        let mapped = MmapOptions::new().len(bytes).map_raw(&map.fd().as_fd());
        Ok(Self(mapped.context("map words of the switch into memory")?))
    }

    /// The words.
    pub(super) fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, lives as long as `self`, and is changed by atomic operations alone: ours and
        // the programs'.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() / size_of::<u64>()) }
    }
}

/// How often anything was changed that a remembered verdict may follow from.
pub(super) struct Generation(Words);

impl Generation {
    /// Of the map `GENERATION`.
    pub(super) fn new(map: &MapData) -> Result<Self> {
        Words::new(map, 1).map(Self)
    }

    /// Makes all remembered verdicts forgotten. After the change that they do not know of; from then on each CPU decides by
    /// it.
    pub(super) fn raise(&self) {
        for word in self.0.all() {
            word.fetch_add(1, Ordering::SeqCst);
        }
    }
}
