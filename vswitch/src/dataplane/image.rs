//! What do the programs read? All tables of a switch as one value, as they are or as they shall be; and one change of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, HOST_SLOT, List, Port, Settings, fdb_flags, lists},
    frame::MacAddr,
};

use super::Dataplane;

/// All tables that a decision follows from, but for what frames teach; and what the uplinks' NICs must let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) settings: Settings,
    /// By slot.
    pub(crate) ports: BTreeMap<u16, Port>,
    /// Slots, by interface.
    pub(crate) interfaces: BTreeMap<u32, u16>,
    /// What does not age.
    pub(crate) fdb: BTreeMap<FdbKey, Bound>,
    /// Which port in source mode lists which sender.
    pub(crate) sources: BTreeSet<(MacAddr, u16)>,
    /// Who may have a frame for many: the slots of all ports that have an interface, in order.
    pub(crate) domain: Vec<u16>,
    /// Those of them that are uplinks'.
    pub(crate) uplinks: Vec<u16>,
    /// Who listens to each sender.
    pub(crate) listeners: BTreeMap<MacAddr, Listeners>,
    /// Of the tables as they are: what ages, with its slot.
    pub(crate) learned: Vec<(FdbKey, u16)>,
    /// Of the tables as they shall be: the uplinks' NICs, by slot.
    pub(crate) nics: BTreeMap<u16, Nic>,
}

/// An FDB entry that does not age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) slot: u16,
    /// [`fdb_flags`].
    pub(crate) flags: u8,
}

/// The ports that list a sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listeners {
    /// In order.
    pub(crate) slots: Vec<u16>,
    /// Whether its frames go to one of them alone.
    pub(crate) nodst: bool,
}

/// What an uplink's NIC must receive besides what is for the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nic {
    /// Everything; then there are no filters.
    pub(crate) promiscuous: bool,
    /// These stations' frames.
    pub(crate) filters: BTreeSet<MacAddr>,
}

/// One change of the tables. There is no other way to change them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Settings(Settings),
    /// All zero: the slot is free.
    Port(u16, Port),
    /// Frames of an interface enter by a slot.
    Enter(u32, u16),
    /// Frames of an interface are none of the switch's business.
    Leave(u32),
    /// An FDB entry that does not age.
    Bind(FdbKey, Bound),
    /// An FDB entry as if it had been learned now.
    Teach(FdbKey, u16),
    /// FDB entries that are no more.
    Forget(Vec<FdbKey>),
    /// FDB entries that are past their time are no more.
    Sweep,
    /// A port lists a sender.
    List(MacAddr, u16),
    Unlist(MacAddr, u16),
    /// Who listens to a sender.
    Listeners(MacAddr, Listeners),
    /// Who may have a frame for many.
    Domain(Vec<u16>),
    /// Which are uplinks.
    Uplinks(Vec<u16>),
}

impl Image {
    /// Whether a port's interface is there.
    pub(crate) fn is_present(&self, slot: u16) -> bool {
        self.ports.get(&slot).is_some_and(|port| port.ifindex != 0)
    }
}

impl Bound {
    pub(crate) fn is_local(self) -> bool {
        self.flags & fdb_flags::LOCAL == fdb_flags::LOCAL
    }
}

impl Dataplane {
    /// The tables as they are.
    pub(crate) fn image(&self) -> Result<Image> {
        let tables = self.maps.tables();
        let mut image = Image {
            settings: tables.settings()?,
            domain: tables.members(tables.list(lists::DOMAIN)?)?,
            uplinks: tables.members(tables.list(lists::UPLINKS)?)?,
            ..Image::default()
        };
        for (slot, port) in (0..).zip(tables.all_ports()?) {
            if slot != HOST_SLOT && port != Port::default() {
                image.ports.insert(slot, port);
            }
        }
        image.interfaces = tables.interfaces()?.collect();
        self.read_fdb(&mut image)?;
        for (key, value) in tables.sources()? {
            if key.slot == HOST_SLOT {
                let list = List(value);
                let listeners = Listeners { slots: tables.members(list)?, nodst: list.nodst() };
                image.listeners.insert(key.mac, listeners);
            } else {
                image.sources.insert((key.mac, key.slot));
            }
        }
        Ok(image)
    }

    /// The FDB as it is now, which frames change at any time.
    pub(crate) fn read_fdb(&self, image: &mut Image) -> Result<()> {
        image.fdb.clear();
        image.learned.clear();
        for (key, entry) in self.fdb_entries()? {
            let (slot, flags) = (entry.slot(), entry.flags() & fdb_flags::LOCAL);
            if flags & fdb_flags::STATIC == 0 {
                image.learned.push((key, slot));
            } else {
                image.fdb.insert(key, Bound { slot, flags });
            }
        }
        Ok(())
    }

    /// The FDB's entry of an address.
    pub(crate) fn fdb_entry(&self, key: FdbKey) -> Result<Option<FdbEntry>> {
        self.maps.tables().fdb.get(key)
    }

    /// All entries of the FDB, in no order.
    pub(crate) fn fdb_entries(&self) -> Result<Vec<(FdbKey, FdbEntry)>> {
        self.maps.tables().fdb.all()
    }
}
