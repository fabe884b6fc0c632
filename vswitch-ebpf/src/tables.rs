//! What a decision may look at and what it may change: the seams between the pure path and the BPF maps.

use crate::abi::{FdbEntry, FdbKey, Port, Settings, SourceKey, Stamp};

/// The switch's state, to look at. The BPF side implements it over maps, host tests over collections.
pub trait Look {
    /// What holds for the whole switch.
    fn settings(&self) -> Settings;

    /// The slot of the port with this interface, if it is a member.
    fn slot_of(&self, ifindex: u32) -> Option<u16>;

    /// The port in a slot; `None` if the slot is free or its interface is missing.
    fn port(&self, slot: u16) -> Option<&Port>;

    /// Whether a port is [`crate::abi::port_state::DOWN`].
    fn is_down(&self, slot: u16) -> bool;

    /// Whether a port's interface is gone, and its index perhaps a stranger's by now: nobody has told the switch yet.
    fn is_gone(&self, slot: u16) -> bool;

    /// The FDB's entry for an address.
    fn fdb(&self, key: FdbKey) -> Option<FdbEntry>;

    /// Says that the entry for an address will be asked for soon: a CPU that waits for one cache line can wait for another.
    fn fdb_ahead(&self, key: FdbKey);

    /// What the map `SOURCES` says of a sender, and a port or slot 0; 0: nothing.
    fn listed(&self, key: SourceKey) -> u64;

    /// The time.
    fn now(&self) -> Stamp;
}

/// The switch's state, to change. XDP has none of it: what needs a change it leaves to tc, which would make it twice else.
pub trait Change: Look {
    /// Takes [`crate::abi::port_state::DOWN`] from a port: it has just sent a frame.
    fn revive(&self, slot: u16);

    /// Adds an entry that [`Look::fdb`] did not find. If another CPU was first, its entry stays.
    /// Returns whether there was room.
    fn fdb_insert(&self, key: FdbKey, entry: FdbEntry) -> bool;

    /// Lets the entry `old`, which [`Look::fdb`] found, say something else. If it is gone or another one by now, it stays so.
    fn fdb_replace(&self, key: FdbKey, old: FdbEntry, new: FdbEntry);

    /// Makes all remembered verdicts forgotten, after a change that they may follow from.
    fn forget(&self);
}
