//! What does an FDB look like that a test has filled?

use std::collections::BTreeMap;

use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey},
    fdb::{Set, Shape, WAYS, Way, second_is_better},
};

/// Adds entries to the sets of an FDB that are not empty, by the dataplane's rule.
///
/// # Panics
///
/// There is no room for one.
pub fn fill(
    sets: &mut BTreeMap<u32, Set>,
    shape: Shape,
    entries: impl IntoIterator<Item = (FdbKey, FdbEntry)>,
) {
    for (key, entry) in entries {
        let free = |set: u32| sets.get(&set).map_or(Some(0), Set::first_free).unwrap_or(WAYS);
        let [first, second] = shape.places(key.word());
        let place = if second_is_better(free(first), free(second)) { second } else { first };
        let set = sets.entry(place).or_default();
        let way = set.first_free().expect("room in one of two sets");
        set.ways[way] = Way { key: key.word(), entry };
    }
}
