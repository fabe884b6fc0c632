//! How does one change of the tables reach the kernel?

use anyhow::{Context as _, Result, bail};
use vswitch_ebpf::abi::{FdbEntry, FdbKey, HOST_SLOT, LISTED, List, MEMBERS_MAX, SourceKey, lists};

use super::{
    Dataplane, await_programs,
    fdb::Full,
    image::{Bound, Listeners, Write},
};

/// Rows are written one behind the other in one half of the map, until that is full; then all go to the other half. So a row
/// that is used no longer is left alone until then, and for a grace period.
const HALF: u32 = MEMBERS_MAX / 2;

/// Whose row it is.
#[derive(Clone, Copy)]
enum Owner {
    List(u32),
    Sender(SourceKey),
}

impl Dataplane {
    /// Makes one change. The caller has the switch's lock.
    pub(crate) fn write(&mut self, write: &Write) -> Result<()> {
        let now = self.now();
        match write {
            Write::Settings(settings) => self.maps.change(|tables| tables.set_settings(*settings)),
            Write::Port(slot, port) => {
                let known = port.ifindex != 0 && self.maps.tables().port(*slot)?.ifindex == port.ifindex;
                // What another interface was is nothing to this one.
                if !known {
                    self.maps.set_down(*slot, false);
                }
                self.maps.change(|tables| tables.set_port(*slot, *port))
            }
            Write::Enter(ifindex, slot) => self.maps.change(|tables| tables.set_slot(*ifindex, *slot)),
            Write::Leave(ifindex) => self.maps.change(|tables| tables.clear_slot(*ifindex)),
            Write::Bind(key, Bound { slot, flags }) => {
                self.set_entry(*key, FdbEntry::new(*slot, *flags, now))
            }
            Write::Teach(key, slot) => self.set_entry(*key, FdbEntry::new(*slot, 0, now)),
            Write::Forget(keys) => self.maps.change(|tables| tables.fdb.del(keys.iter().copied())).map(drop),
            Write::Sweep => self.sweep(),
            Write::List(mac, slot) => {
                let key = SourceKey { mac: *mac, slot: *slot };
                self.maps.change(|tables| tables.set_source(key, LISTED))
            }
            Write::Unlist(mac, slot) => {
                let key = SourceKey { mac: *mac, slot: *slot };
                self.maps.change(|tables| tables.clear_source(key))
            }
            Write::Listeners(mac, Listeners { slots, nodst }) => {
                let key = SourceKey { mac: *mac, slot: HOST_SLOT };
                if slots.is_empty() {
                    return self.maps.change(|tables| tables.clear_source(key));
                }
                self.set_row(Owner::Sender(key), slots, *nodst)
            }
            Write::Domain(slots) => self.set_row(Owner::List(lists::DOMAIN), slots, false),
            Write::Uplinks(slots) => self.set_row(Owner::List(lists::UPLINKS), slots, false),
        }
    }

    /// Says whether a port's interface is down or has no carrier.
    pub(crate) fn set_down(&self, slot: u16, down: bool) {
        self.maps.set_down(slot, down);
    }

    /// Says that what the programs remember is to be decided anew: others have taken their place.
    pub(super) fn raise(&self) {
        self.maps.raise();
    }

    /// Adds or replaces an entry of the FDB. Aged ones make room for it.
    fn set_entry(&mut self, key: FdbKey, entry: FdbEntry) -> Result<()> {
        let mut done = self.maps.change(|tables| tables.fdb.set(key, entry))?;
        if done == Err(Full) {
            self.sweep()?;
            done = self.maps.change(|tables| tables.fdb.set(key, entry))?;
        }
        if done == Err(Full) {
            bail!(
                "fdb {}: the FDB is full ({} entries): delete some (vswitch fdb flush) or start the switch with a larger --fdb-max",
                key.mac,
                self.fdb_max()
            );
        }
        Ok(())
    }

    /// Removes entries past their ageing time. They do not forward any more; this makes room.
    fn sweep(&mut self) -> Result<()> {
        let (now, ageing) = (self.now(), self.settings()?.ageing);
        self.maps.change(|tables| tables.fdb.sweep(now, ageing))
    }

    /// Makes a list's members those: in a new row, which then takes the place of the old one in one step.
    fn set_row(&mut self, owner: Owner, slots: &[u16], nodst: bool) -> Result<()> {
        let length = u16::try_from(slots.len())?;
        let end = self.ledger.identity()?.rows;
        let (side, mut first) = (end / HALF, end);
        if end + u32::from(length) >= (side + 1) * HALF {
            // Who walks a row of the last turn there must have come to its end.
            await_programs().context("wait for the programs that run")?;
            let mut next = (1 - side) * HALF;
            for (owner, list) in self.rows()? {
                let slots = self.maps.tables().members(list)?;
                self.put_row(owner, next, &slots, list.nodst())?;
                next += list.len();
            }
            first = next;
        }
        self.put_row(owner, first, slots, nodst)
    }

    fn put_row(&mut self, owner: Owner, first: u32, slots: &[u16], nodst: bool) -> Result<()> {
        let length = u16::try_from(slots.len())?;
        let identity = self.ledger.identity()?;
        // Before it is used: whoever comes after a crash begins behind it.
        let rows = first + u32::from(length);
        self.ledger.set_identity(super::ledger::Identity { rows, ..identity })?;
        let list = List::new(first, length);
        let list = if nodst { list.with_nodst() } else { list };
        self.maps.change(|tables| {
            tables.set_members(first, slots)?;
            match owner {
                Owner::List(number) => tables.set_list(number, list),
                Owner::Sender(key) => tables.set_source(key, list.0),
            }
        })
    }

    /// All rows that are used.
    fn rows(&self) -> Result<Vec<(Owner, List)>> {
        let tables = self.maps.tables();
        let mut rows = Vec::new();
        for number in 0..lists::COUNT {
            rows.push((Owner::List(number), tables.list(number)?));
        }
        let senders = tables.sources()?.into_iter().filter(|(key, _)| key.slot == HOST_SLOT);
        rows.extend(senders.map(|(key, list)| (Owner::Sender(key), List(list))));
        Ok(rows)
    }
}
