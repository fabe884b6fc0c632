//! What a decision may look up or change: the seam between the pure path and the BPF maps.

use crate::abi::{FdbEntry, FdbKey, Port, Settings, SourceKey, Stamp};

/// The switch's state. The BPF side implements it over maps, host tests over collections.
pub trait Tables {
    /// What holds for the whole switch.
    fn settings(&self) -> Settings;

    /// The slot of the port with this interface, if it is a member.
    fn slot_of(&self, ifindex: u32) -> Option<u16>;

    /// The port in a slot; `None` if the slot is free or its interface is missing.
    fn port(&self, slot: u16) -> Option<Port>;

    /// Takes [`crate::abi::port_flags::DOWN`] from a port: it has just sent a frame.
    fn revive(&self, slot: u16);

    /// The FDB's entry for an address.
    fn fdb(&self, key: FdbKey) -> Option<FdbEntry>;

    /// Says that the entry for an address will be asked for soon: a CPU that waits for one cache line can wait for another.
    fn fdb_ahead(&self, key: FdbKey);

    /// What [`crate::abi::listed`] says of a sender and a port; 0: nothing.
    fn listed(&self, key: SourceKey) -> u32;

    /// Adds an entry that [`Tables::fdb`] did not find. If another CPU was first, its entry stays.
    /// Returns whether there was room.
    fn fdb_insert(&self, key: FdbKey, entry: FdbEntry) -> bool;

    /// Lets the entry `old`, which [`Tables::fdb`] found, say something else. If it is gone or another one by now, it stays so.
    fn fdb_replace(&self, key: FdbKey, old: FdbEntry, new: FdbEntry);

    /// The time.
    fn now(&self) -> Stamp;
}
