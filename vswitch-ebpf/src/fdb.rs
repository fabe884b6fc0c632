//! Where in the FDB is an address?
//!
//! The FDB is what a switch chip has: a table of sets, with eight ways each. An address has its place in one of two sets that
//! follow from a hash. Looking one up is one cache line, most of the time, and no call, where a hash map of the kernel's
//! takes a call and three lines. Both sides change single words of it, atomically, and neither ever holds a lock.
//!
//! A way is free while its key is 0, and says nothing while its entry is 0. Who takes a way puts the key in first (by compare
//! and exchange), and then looks at all ways that the key may have. If another one has it, too, whoever looked gives the way
//! back; if not, it puts the entry in. Two that look so cannot both miss the other: each has put its key in before, so at most
//! one way of a key ever gets an entry, and a way that has one is never given back by who took it. Programs that gave way to
//! one another try once more. Who reads looks at the key once more after the entry: what it has found was the key's own.
//!
//! Userspace, one process at a time, may put its entry in the place of one that is there. A way of the key that has none yet
//! it takes away: whoever wanted to give it one writes to a [`TOMBSTONE`].
//!
//! Userspace alone frees what had an entry. It puts a tombstone in the key's place, waits until no program runs any more that may have found
//! the key and may yet write, and empties the way. So nobody writes what is known of one address to the way of another.

use bytemuck::{Pod, Zeroable};

use crate::abi::{FdbEntry, FdbKey};

/// Ways of a set: two cache lines, the first of which is filled first.
pub const WAYS: usize = 8;

/// In the place of a key that is gone: the broadcast address, which is no station's.
pub const TOMBSTONE: u64 = u64::MAX;

/// Whether a new key goes into the second of its two sets, by the number of the first free way of each ([`WAYS`] if there is
/// none): when the first line of the first is full and the second set is emptier. With that, sets fill alike, and most keys
/// are where they are looked for first.
#[inline(always)]
pub const fn second_is_better(first: usize, second: usize) -> bool {
    first >= WAYS / 2 && second < first
}

/// Room for one address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Way {
    /// [`FdbKey::word`]; 0 where the way is free, which is no station's either; or [`TOMBSTONE`].
    pub key: u64,
    /// What is known of the address; 0: nothing.
    pub entry: FdbEntry,
}

impl Way {
    /// The address and what is known of it, if the way is used.
    pub fn known(self) -> Option<(FdbKey, FdbEntry)> {
        let known = !matches!(self.key, 0 | TOMBSTONE) && self.entry != FdbEntry::default();
        known.then(|| (FdbKey::from_word(self.key), self.entry))
    }
}

/// Element of the map `FDB`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Set {
    /// The ways, filled from the first on.
    pub ways: [Way; WAYS],
}

impl Set {
    /// The number of the first free way.
    pub fn first_free(&self) -> Option<usize> {
        self.ways.iter().position(|way| way.key == 0)
    }

    /// The entries of the set.
    pub fn entries(&self) -> impl Iterator<Item = (FdbKey, FdbEntry)> {
        self.ways.iter().filter_map(|way| way.known())
    }
}

/// How large an FDB is, and how its addresses are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The most entries that it may hold.
    pub max: u32,
    /// A secret odd number: nobody can choose addresses that fall into the same sets.
    pub secret: u64,
}

impl Shape {
    /// Elements of the map `FDB`: two ways or more for each entry that there may be, so that the FDB is full before both
    /// sets of an address are.
    #[inline(always)]
    pub const fn sets(self) -> u32 {
        let sets = self.max.div_ceil(WAYS as u32 / 2).next_power_of_two();
        if sets < 2 { 2 } else { sets }
    }

    /// The two elements of the map that a key may be in, the first choice first.
    #[inline(always)]
    pub const fn places(self, key: u64) -> [u32; 2] {
        places(key, self.secret, self.sets().wrapping_sub(1))
    }
}

/// As [`Shape::places`], where `mask` is one less than the number of sets.
///
/// Multiplied by a secret, so that few keys collide whichever they are (Dietzfelbinger et al., "A Reliable Randomized
/// Algorithm for the Closest-Pair Problem", 1997); folded and multiplied again, so that addresses that follow on one another
/// are spread whatever the secret.
#[inline(always)]
pub const fn places(key: u64, secret: u64, mask: u32) -> [u32; 2] {
    const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
    let product = key.wrapping_mul(secret);
    let hash = (product ^ product >> 32).wrapping_mul(GOLDEN_RATIO);
    let first = (hash >> 40) as u32 & mask;
    let second = (hash >> 16) as u32 & mask;
    [first, if first == second { second ^ 1 } else { second }]
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a wrong index must stop the test"
)]
mod tests {
    use super::*;

    const SECRET: u64 = 0x0123_4567_89ab_cdef;

    fn key(number: u32) -> u64 {
        let [a, b, c, d] = number.to_be_bytes();
        FdbKey { mac: crate::frame::MacAddr([2, 0, a, b, c, d]), vlan: 0 }.word()
    }

    /// Fills an FDB with addresses that follow on one another, by the rule of the dataplane; returns how many found no room.
    fn homeless(shape: Shape) -> usize {
        let mut used = vec![0; shape.sets() as usize];
        let mut homeless = 0;
        for number in 0..shape.max {
            let [first, second] = shape.places(key(number)).map(|set| set as usize);
            let better = if second_is_better(used[first], used[second]) { second } else { first };
            if used[better] < WAYS {
                used[better] += 1;
            } else {
                homeless += 1;
            }
        }
        homeless
    }

    #[test]
    fn as_many_entries_as_are_promised_find_room() {
        for max in [1, 2, 3, 8, 16, 100, 1000, 4096, 65_536, 262_144] {
            for secret in [1, 3, SECRET, SECRET << 24 | 1, u64::MAX] {
                assert_eq!(homeless(Shape { max, secret }), 0, "{max} with {secret:x}");
            }
        }
    }

    #[test]
    fn places_are_two_and_within_the_table() {
        for max in [1, 3, 16, 65_536, 1 << 24] {
            let shape = Shape { max, secret: SECRET };
            for number in 0..1000 {
                let [first, second] = shape.places(key(number));
                assert!(first < shape.sets() && second < shape.sets(), "{max}: {number}");
                assert_ne!(first, second, "{max}: {number}");
            }
        }
        assert_eq!([1, 8, 9, 65_536].map(|max| Shape { max, secret: 1 }.sets()), [2, 2, 4, 16_384]);
    }

    #[test]
    fn a_set_lists_what_is_whole() {
        let entry = FdbEntry::new(3, 0, 9);
        let mut set = Set::default();
        set.ways[0] = Way { key: key(1), entry: FdbEntry::default() };
        set.ways[1] = Way { key: 0, entry };
        set.ways[2] = Way { key: TOMBSTONE, entry };
        set.ways[7] = Way { key: key(2), entry };
        let all: Vec<_> = set.entries().collect();
        assert_eq!(all, [(FdbKey::from_word(key(2)), entry)]);
        assert_eq!((all[0].0.word(), set.first_free()), (key(2), Some(1)));
    }
}
