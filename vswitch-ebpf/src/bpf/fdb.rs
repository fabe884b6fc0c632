//! The FDB's words as the programs read and change them: what [`vswitch_ebpf::fdb`] says, with the kernel's atomics.
//!
//! What is rare is a global function to the verifier, which looks at it once and not after each path that leads to it.

use aya_ebpf::Global;
use vswitch_ebpf::{
    abi::FdbEntry,
    fdb::{WAYS, Way, places, second_is_better},
};

use super::{
    atomic::{add, exchange, read},
    maps::{FDB, FDB_USED},
};

/// One less than the number of sets. Set by the loader, as the following two: read-only data, constants to the verifier.
#[unsafe(no_mangle)]
static FDB_MASK: Global<u32> = Global::new(0);

/// The most entries that the FDB may hold.
#[unsafe(no_mangle)]
static FDB_MAX: Global<u32> = Global::new(1);

/// What keys are multiplied by.
#[unsafe(no_mangle)]
pub(super) static FDB_SECRET: Global<u64> = Global::new(1);

/// The entry of a key.
#[inline(always)]
pub(crate) fn get(key: u64) -> Option<FdbEntry> {
    let [first, second] = places(key, FDB_SECRET.load(), FDB_MASK.load());
    let entry = match entry_in(first, key) {
        Some(entry) => entry,
        None => vswitch_fdb_second(second, key),
    };
    (entry != 0).then_some(FdbEntry(entry))
}

/// Makes the CPU fetch the line that a key is most likely in.
#[inline(always)]
pub(crate) fn touch(key: u64) {
    let [first, _] = places(key, FDB_SECRET.load(), FDB_MASK.load());
    if let Some(set) = FDB.get_ptr(first) {
        read(set.cast());
    }
}

/// What the second set says of a key; 0: nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_fdb_second(set: u32, key: u64) -> u64 {
    entry_in(set, key).unwrap_or(0)
}

/// What is known of a key, if the set has it.
#[inline(always)]
fn entry_in(set: u32, key: u64) -> Option<u64> {
    each_way_of(set, &mut |way| {
        if read(key_of(way)) != key {
            return None;
        }
        let entry = read(entry_of(way));
        // Userspace may have freed the way, and another CPU taken it, in between.
        Some(if read(key_of(way)) == key { entry } else { 0 })
    })
}

/// Adds an entry; 0 if there is no room. If another CPU or userspace was first, or is at it, theirs stays.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_fdb_insert(key: u64, entry: u64) -> i32 {
    let Some(used) = FDB_USED.get_ptr_mut(0) else { return 0 };
    if read(used) >= u64::from(FDB_MAX.load()) {
        return 0;
    }
    match vswitch_fdb_take(key, entry, 0) {
        // Two that gave way to one another now want the same way, and one gets it.
        AGAIN => i32::from(vswitch_fdb_take(key, entry, 1) != NO_ROOM),
        done => i32::from(done != NO_ROOM),
    }
}

const NO_ROOM: i32 = 0;
const DONE: i32 = 1;
const AGAIN: i32 = 2;

/// Tries to give a key a way: at first in the better of its two sets, `again` in the first one that has room.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_fdb_take(key: u64, entry: u64, again: u32) -> i32 {
    let Some(used) = FDB_USED.get_ptr_mut(0) else { return NO_ROOM };
    let [first, second] = places(key, FDB_SECRET.load(), FDB_MASK.load());
    let free = first_free(first);
    let better = if again == 0 { second_is_better(free, first_free(second)) } else { free == WAYS };
    let done = each_way_of(if better { second } else { first }, &mut |way| {
        // Most are another key's: seen without taking the cache line from other CPUs.
        let there = match read(key_of(way)) {
            0 => exchange(key_of(way), 0, key),
            there => there,
        };
        if there != 0 {
            return (there == key).then_some(DONE);
        }
        add(used, 1);
        // An exchange that succeeds is a full barrier: who has put the key elsewhere by now is seen, or sees this.
        if vswitch_fdb_ways(first, second, key) == 1 {
            exchange(entry_of(way), 0, entry);
            return Some(DONE);
        }
        if exchange(key_of(way), key, 0) == key {
            add(used, 1u64.wrapping_neg());
        }
        // Nobody's, if all that saw each other gave way.
        Some(if vswitch_fdb_ways(first, second, key) == 0 { AGAIN } else { DONE })
    });
    done.unwrap_or(NO_ROOM)
}

/// How many ways of two sets have a key.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_fdb_ways(first: u32, second: u32, key: u64) -> i32 {
    let mut ways = 0;
    for set in [first, second] {
        each_way_of(set, &mut |way| {
            ways += i32::from(read(key_of(way)) == key);
            None::<()>
        });
    }
    ways
}

#[inline(always)]
fn first_free(set: u32) -> usize {
    let mut number = 0;
    each_way_of(set, &mut |way| {
        let is_free = read(key_of(way)) == 0;
        number += usize::from(!is_free);
        is_free.then_some(())
    });
    number
}

/// Replaces the entry `old` of a key. If it is another one by now, it stays. Always 0: the verifier wants a value.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_fdb_replace(key: u64, old: u64, new: u64) -> i32 {
    each_way(key, |way| {
        let is_it = read(key_of(way)) == key;
        if is_it {
            exchange(entry_of(way), old, new);
        }
        is_it.then_some(())
    });
    0
}

/// Looks at the ways that a key may have, in the order in which they are taken, until one is what is looked for.
#[inline(always)]
fn each_way<T>(key: u64, mut look: impl FnMut(*mut Way) -> Option<T>) -> Option<T> {
    let [first, second] = places(key, FDB_SECRET.load(), FDB_MASK.load());
    match each_way_of(first, &mut look) {
        Some(found) => Some(found),
        None => each_way_of(second, &mut look),
    }
}

#[inline(always)]
fn each_way_of<T>(set: u32, look: &mut impl FnMut(*mut Way) -> Option<T>) -> Option<T> {
    let first: *mut Way = FDB.get_ptr_mut(set)?.cast();
    for number in 0..WAYS {
        // SAFETY: a set is an array of so many ways.
        let found = look(unsafe { first.add(number) });
        if found.is_some() {
            return found;
        }
    }
    None
}

#[inline(always)]
fn key_of(way: *mut Way) -> *mut u64 {
    // SAFETY: no memory is touched; the pointer is to an element of a map, which is never freed.
    unsafe { &raw mut (*way).key }
}

#[inline(always)]
fn entry_of(way: *mut Way) -> *mut u64 {
    // SAFETY: as above; an entry is one word.
    unsafe { (&raw mut (*way).entry).cast() }
}
