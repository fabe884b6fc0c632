//! The FDB as userspace reads and changes it. Who may only read does so by system calls; who may change it has it in memory
//! that is shared with the programs, as no system call changes a word of an element while they change another.

#[cfg(not(test))]
use std::sync::atomic::AtomicU64;
use std::{
    os::fd::AsFd as _,
    sync::atomic::{Ordering, fence},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, IterableMap as _, Map, MapData};
use memmap2::{MmapOptions, MmapRaw};
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, Stamp},
    fdb::{Set, Shape, TOMBSTONE, WAYS, Way, second_is_better},
};

#[cfg(test)]
use self::interleavings::{Word as AtomicU64, await_programs};
#[cfg(not(test))]
use super::grace::await_programs;
use super::{maps::Wire, sys};

#[cfg(test)]
#[path = "fdb_interleavings.rs"]
mod interleavings;

/// The FDB of a switch.
pub(crate) struct Fdb {
    sets: Array<MapData, Wire<Set>>,
    shape: Shape,
    /// Where it may be changed.
    shared: Option<Shared>,
}

/// The maps `FDB` and `FDB_USED` as this process and the programs share them.
///
/// Who takes a way stores its key and then loads other keys. Acquire and release let the load be answered before the store is
/// seen (not on x86, where an exchange is a full barrier), and then two that take a way for the same key miss each other. So
/// there is a full barrier in between: of ours, the fence in [`Shared::set`]; of the programs', the exchange by which they
/// store, which BPF orders as the kernel does those that return a value and succeed (Documentation/atomic_t.txt, ORDERING).
/// Elsewhere acquire and release do.
struct Shared {
    sets: MmapRaw,
    used: MmapRaw,
}

/// So many tombstones at most wait for one another.
const TOGETHER: usize = 32;

/// There is no room for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Fdb {
    /// Of maps that have been compared with what this build means, and have as many elements as the shape says. `used` where
    /// it is to be changed.
    pub(super) fn new(sets: MapData, used: Option<MapData>, shape: Shape) -> Result<Self> {
        let shared = used.map(|used| Shared::new(&sets, &used, shape)).transpose();
        let shared = shared.context("map the FDB into memory")?;
        Ok(Self { sets: Array::try_from(Map::Array(sets))?, shape, shared })
    }

    /// How large it is, and how its addresses are spread.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// The most entries that it holds.
    pub(crate) fn max(&self) -> u32 {
        self.shape.max
    }

    /// The entry of a key.
    pub(crate) fn get(&self, key: FdbKey) -> Result<Option<FdbEntry>> {
        for set in self.shape.places(key.word()) {
            let set = self.sets.get(&set, 0).context("read the FDB")?.0;
            if let Some((_, entry)) = set.entries().find(|(there, _)| *there == key) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// All entries, in no order.
    pub(crate) fn all(&self) -> Result<Vec<(FdbKey, FdbEntry)>> {
        match &self.shared {
            // A command does it several times, and the kernel would copy empty sets.
            Some(shared) => Ok(shared.entries(self.shape)),
            None => all(self.sets.map(), self.shape.sets()),
        }
    }

    /// Adds or replaces an entry. The caller has the switch's lock.
    pub(super) fn set(&mut self, key: FdbKey, entry: FdbEntry) -> Result<Result<(), Full>> {
        Ok(self.shared()?.set(self.shape, key.word(), entry.0))
    }

    /// Removes entries; returns how many there were. The caller has the switch's lock.
    ///
    /// A few leave tombstones, until there are more or room is short: to free them takes a grace period, about 10 ms, for
    /// which a port that is deleted need not wait.
    pub(crate) fn del(&mut self, keys: impl IntoIterator<Item = FdbKey>) -> Result<u64> {
        let shared = self.shared()?;
        let (mut entries, mut left) = (0, false);
        for key in keys {
            while let Some(way) = shared.find(self.shape, key.word()) {
                // Not what another address has that took the way meanwhile: it was not this one's for good.
                if way.becomes(key.word(), TOMBSTONE) {
                    entries += u64::from(way.entry.swap(0, Ordering::AcqRel) != 0);
                    left = true;
                }
            }
        }
        if left {
            let is_dead = |way: &&SharedWay| way.key.load(Ordering::Acquire) == TOMBSTONE;
            let dead: Vec<_> = shared.all_ways(self.shape).filter(is_dead).collect();
            let room = u64::from(self.shape.max).saturating_sub(shared.used().load(Ordering::Relaxed));
            if dead.len() >= TOGETHER || room < TOGETHER as u64 {
                shared.free(&dead)?;
            }
        }
        Ok(entries)
    }

    /// Removes entries past their ageing time, and what was left by whoever was killed between two steps: tombstones, keys
    /// without an entry, a wrong count. The caller has the switch's lock.
    pub(super) fn sweep(&mut self, now: Stamp, ageing: u32) -> Result<()> {
        let shared = self.shared()?;
        let used = shared.used();
        let before = used.load(Ordering::Acquire);
        let mut keys = 0;
        let mut dead = Vec::new();
        for way in shared.all_ways(self.shape) {
            let (key, entry) = (way.key.load(Ordering::Acquire), way.entry.load(Ordering::Acquire));
            if key == 0 {
                continue;
            }
            keys += 1;
            let aged = FdbEntry(entry).expired(now, ageing) || entry == 0;
            // Not if the address has spoken since.
            let gone = || way.entry.compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if (key == TOMBSTONE || aged && gone()) && way.becomes(key, TOMBSTONE) {
                dead.push(way);
            }
        }
        if before != keys {
            // Only where nobody has learned meanwhile is it known who counts wrong.
            let _learned = used.compare_exchange(before, keys, Ordering::AcqRel, Ordering::Acquire);
        }
        shared.free(&dead)
    }

    fn shared(&self) -> Result<&Shared> {
        self.shared.as_ref().context("the switch is open for reading only")
    }
}

/// The shape of a new FDB.
pub(super) fn shape(max: u32) -> Result<Shape> {
    let secret = getrandom::u64().context("choose a secret for the FDB")? | 1;
    Ok(Shape { max, secret })
}

/// All entries of an FDB whose shape is lost, too.
pub(super) fn all(sets: &MapData, count: u32) -> Result<Vec<(FdbKey, FdbEntry)>> {
    let sets = sys::entries::<u32, Set>(sets.fd().as_fd(), count).context("read the FDB")?;
    Ok(sets.iter().flat_map(|(_, set)| set.entries().collect::<Vec<_>>()).collect())
}

/// [`Way`], as others change it at the same time.
#[repr(C)]
struct SharedWay {
    key: AtomicU64,
    entry: AtomicU64,
}

const _: () = assert!(size_of::<SharedWay>() == size_of::<Way>());

impl SharedWay {
    /// Gives it another key in the place of its own, if it still has that.
    fn becomes(&self, own: u64, key: u64) -> bool {
        self.key.compare_exchange(own, key, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

fn first_free(set: &[SharedWay]) -> usize {
    set.iter().position(|way| way.key.load(Ordering::Acquire) == 0).unwrap_or(WAYS)
}

impl Shared {
    fn new(sets: &MapData, used: &MapData, shape: Shape) -> Result<Self> {
        let map = |map: &MapData, bytes| MmapOptions::new().len(bytes).map_raw(&map.fd().as_fd());
        Ok(Self {
            sets: map(sets, shape.sets() as usize * size_of::<Set>())?,
            used: map(used, size_of::<u64>())?,
        })
    }

    /// Adds or replaces an entry, while programs may learn the same address. The caller has the switch's lock.
    fn set(&self, shape: Shape, key: u64, entry: u64) -> Result<(), Full> {
        loop {
            if let Some(way) = self.settled(shape, key) {
                way.entry.store(entry, Ordering::Release);
                return Ok(());
            }
            if self.used().load(Ordering::Relaxed) >= u64::from(shape.max) {
                return Err(Full);
            }
            let [first, second] = shape.places(key).map(|set| self.ways_of(set));
            let set = if second_is_better(first_free(first), first_free(second)) { second } else { first };
            let Some(way) = set.get(first_free(set)) else { return Err(Full) };
            if way.key.compare_exchange(0, key, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                // Somebody learned an address a moment ago: maybe this one.
                continue;
            }
            self.used().fetch_add(1, Ordering::Relaxed);
            // Put in, then looked for: of two that do so, one sees the other (see `vswitch_ebpf::fdb`). The fence is for
            // machines where the look could be answered before others see what was put in.
            fence(Ordering::SeqCst);
            if self.ways(shape, key).filter(|way| way.key.load(Ordering::SeqCst) == key).count() > 1 {
                if way.becomes(key, 0) {
                    self.used().fetch_sub(1, Ordering::Relaxed);
                }
                continue;
            }
            way.entry.store(entry, Ordering::Release);
            return Ok(());
        }
    }

    /// The way of a key that has one for good: with an entry. Those without are taken from whoever is about to give them one,
    /// which then says nothing, or was killed before it could.
    fn settled(&self, shape: Shape, key: u64) -> Option<&SharedWay> {
        let mut settled = None;
        for way in self.ways(shape, key).filter(|way| way.key.load(Ordering::Acquire) == key) {
            if way.entry.load(Ordering::Acquire) == 0 {
                let _given_back = way.becomes(key, TOMBSTONE);
            } else {
                settled = Some(way);
            }
        }
        settled
    }

    fn used(&self) -> &AtomicU64 {
        // SAFETY: the mapping begins at a page, holds this word, lives as long as `self`, and is changed by atomic operations
        // alone: ours and the programs'.
        unsafe { &*self.used.as_ptr().cast::<AtomicU64>() }
    }

    /// The ways of a set of the shape that the mapping was made for.
    fn ways_of(&self, set: u32) -> &[SharedWay] {
        let at = set as usize * size_of::<Set>();
        assert!(at + size_of::<Set>() <= self.sets.len(), "a set within the table");
        // SAFETY: within the mapping, as was just compared, which begins at a page and lives as long as `self`; words that
        // others change by atomic operations alone. `SharedWay` has the layout of `Way`.
        unsafe { std::slice::from_raw_parts(self.sets.as_ptr().add(at).cast(), WAYS) }
    }

    /// The ways that a key may have, in the order in which they are taken.
    fn ways(&self, shape: Shape, key: u64) -> impl Iterator<Item = &SharedWay> {
        shape.places(key).into_iter().flat_map(|set| self.ways_of(set))
    }

    fn all_ways(&self, shape: Shape) -> impl Iterator<Item = &SharedWay> {
        (0..shape.sets()).flat_map(|set| self.ways_of(set))
    }

    fn entries(&self, shape: Shape) -> Vec<(FdbKey, FdbEntry)> {
        let entry = |way: &SharedWay| {
            let key = way.key.load(Ordering::Acquire);
            let entry = FdbEntry(way.entry.load(Ordering::Acquire));
            // Not the entry of a key that has taken the way in between.
            Way { key, entry }.known().filter(|_| way.key.load(Ordering::Acquire) == key)
        };
        self.all_ways(shape).filter_map(entry).collect()
    }

    /// Makes room of tombstones.
    fn free(&self, dead: &[&SharedWay]) -> Result<()> {
        if dead.is_empty() {
            return Ok(());
        }
        await_programs().context("wait for the programs that run")?;
        for way in dead {
            way.entry.store(0, Ordering::Release);
            way.key.store(0, Ordering::Release);
            self.used().fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn find(&self, shape: Shape, key: u64) -> Option<&SharedWay> {
        self.ways(shape, key).find(|way| way.key.load(Ordering::Acquire) == key)
    }
}
