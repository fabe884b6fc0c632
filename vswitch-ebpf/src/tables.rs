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

    /// The FDB's entry for an address. Its stamp may be older than the truth, but not so old that it has expired `now`.
    fn fdb(&self, key: FdbKey, now: Stamp) -> Option<FdbEntry>;

    /// What [`crate::abi::listed`] says of a sender and a port; 0: nothing.
    fn listed(&self, key: SourceKey) -> u32;

    /// Adds an entry that [`Tables::fdb`] did not find. If another CPU was first, its entry stays.
    /// Returns whether there was room.
    fn fdb_insert(&self, key: FdbKey, entry: FdbEntry) -> bool;

    /// Gives an entry that [`Tables::fdb`] found another stamp. If it is gone by now, it stays gone.
    fn fdb_renew(&self, key: FdbKey, entry: FdbEntry);

    /// Lets an entry that [`Tables::fdb`] found say something else. If it is gone by now, it stays gone.
    fn fdb_move(&self, key: FdbKey, entry: FdbEntry);

    /// The time.
    fn now(&self) -> Stamp;
}
