//! How is the real decision driven without a kernel? `Tables` over collections, filled from a model.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, HOST_SLOT, Port, Settings, Stamp, fdb_flags, port_flags, settings_flags},
    egress::flooded,
    forward::{Decision, decide},
    frame::{self, MacAddr},
    ingress::Hook,
    policy::{floods_to, floods_to_host},
    tables::Tables,
    verdict::Action,
};

use crate::{
    frame::Mac,
    model::{self, Kind, Member, Model, Outcome, Receiver, slot_of},
};

/// The state of a switch as the dataplane's maps hold it.
#[derive(Clone)]
pub struct HostTables {
    pub settings: Settings,
    pub ports: BTreeMap<u16, Port>,
    pub fdb: RefCell<BTreeMap<FdbKey, FdbEntry>>,
    pub fdb_max: usize,
    pub now: Cell<Stamp>,
}

/// The interface of the port in a slot, in every test.
pub fn ifindex(slot: u16) -> u32 {
    100 + u32::from(slot)
}

/// The program that sees the frames of this member.
pub fn hook(from: Member) -> Hook {
    match from {
        Member::Port(slot) => Hook::Received(ifindex(slot)),
        Member::Host { uplink } => Hook::SentByHost(ifindex(uplink)),
    }
}

impl From<&Model> for HostTables {
    fn from(model: &Model) -> Self {
        let ports: BTreeMap<_, _> =
            model.ports.iter().map(|(&slot, port)| (slot, abi_port(slot, port))).collect();
        let flag = if model.host_access { settings_flags::HOST_ACCESS } else { 0 };
        let settings = Settings {
            ageing: model.ageing.try_into().unwrap(),
            refresh: model.refresh.try_into().unwrap(),
            flags: flag,
            host_uplink: model.host_uplink.unwrap_or(HOST_SLOT),
            slots: ports.last_key_value().map_or(1, |(&slot, _)| slot + 1),
        };
        let fdb = RefCell::new(abi_fdb(model));
        Self { settings, ports, fdb, fdb_max: model.fdb_max, now: Cell::new(model.now) }
    }
}

impl HostTables {
    /// The real decision.
    pub fn decide(&self, from: Member, frame: &model::Frame) -> Decision {
        decide(&Header(frame), self, hook(from)).expect("the sender is a member")
    }

    /// Who receives the frame, with floods expanded as the programs do.
    pub fn outcome(&self, decision: &Decision) -> Outcome {
        let verdict = decision.verdict;
        let (receivers, dropped) = match verdict.action {
            Action::Forward => (BTreeSet::from([Receiver::Port(verdict.target.slot)]), None),
            Action::Host => (BTreeSet::from([Receiver::Host { uplink: verdict.target.slot }]), None),
            Action::HostHere => (BTreeSet::from([Receiver::HostHere]), None),
            Action::Drop => (BTreeSet::new(), Some(verdict.reason.name())),
            Action::Flood => self.flood(decision),
        };
        Outcome { receivers, dropped, fdb_full: decision.fdb_full }
    }

    fn flood(&self, decision: &Decision) -> (BTreeSet<Receiver>, Option<&'static str>) {
        let flood = decision.flood();
        let mut receivers: BTreeSet<_> = (1..self.settings.slots)
            .filter(|slot| floods_to(&flood, *slot, &self.ports.get(slot).copied().unwrap_or_default()))
            .map(Receiver::Port)
            .collect();
        let ports = receivers.len().try_into().unwrap();
        let uplink = self.settings.host_uplink;
        let to_host = floods_to_host(&flood, uplink);
        if to_host {
            receivers.insert(Receiver::Host { uplink });
        }
        (receivers, flooded(ports, to_host).err().map(|reason| reason.name()))
    }
}

impl Tables for HostTables {
    fn settings(&self) -> Settings {
        self.settings
    }

    fn slot_of(&self, ifindex: u32) -> Option<u16> {
        self.ports.iter().find(|(_, port)| port.ifindex == ifindex).map(|(&slot, _)| slot)
    }

    fn port(&self, slot: u16) -> Option<Port> {
        self.ports.get(&slot).copied()
    }

    fn fdb(&self, key: FdbKey) -> Option<FdbEntry> {
        self.fdb.borrow().get(&key).copied()
    }

    fn fdb_insert(&self, key: FdbKey, entry: FdbEntry) -> bool {
        let mut fdb = self.fdb.borrow_mut();
        let room = fdb.len() < self.fdb_max;
        if room {
            assert_eq!(
                fdb.insert(key, entry),
                None,
                "inserted over an entry: the kernel would keep the old one"
            );
        }
        room
    }

    fn fdb_update(&self, key: FdbKey, entry: FdbEntry) {
        self.fdb.borrow_mut().entry(key).and_modify(|old| *old = entry);
    }

    fn now(&self) -> Stamp {
        self.now.get()
    }
}

/// A frame of which only the Ethernet header exists.
struct Header<'a>(&'a model::Frame);

impl frame::Frame for Header<'_> {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let bytes = header(self.0);
        let len = bytes.len().min(usize::try_from(self.0.len).ok()?);
        bytes[..len].get(offset..)?.first_chunk().copied()
    }

    fn wire_len(&self) -> u32 {
        if self.0.gso { 0 } else { self.0.len }
    }
}

/// The Ethernet header's bytes.
pub fn header(frame: &model::Frame) -> [u8; 14] {
    let mut bytes = [0; 14];
    bytes[..6].copy_from_slice(&frame.dst);
    bytes[6..12].copy_from_slice(&frame.src);
    bytes[12..].copy_from_slice(&crate::frame::ETHERTYPE.to_be_bytes());
    bytes
}

/// The key of an address while the switch is not VLAN-aware.
pub const fn key(mac: Mac) -> FdbKey {
    FdbKey { mac: MacAddr(mac), vlan: 0 }
}

/// A model's FDB in the dataplane's words.
pub fn abi_fdb(model: &Model) -> BTreeMap<FdbKey, FdbEntry> {
    model.fdb.iter().map(|(&mac, entry)| (key(mac), abi_entry(entry))).collect()
}

fn abi_entry(entry: &model::Entry) -> FdbEntry {
    let kind = match entry.kind {
        Kind::Learned => 0,
        Kind::Static => fdb_flags::STATIC,
        Kind::Sticky => fdb_flags::STICKY,
        Kind::StickyStatic => fdb_flags::STATIC | fdb_flags::STICKY,
        Kind::Local => fdb_flags::LOCAL,
    };
    let host = match entry.at {
        Member::Port(_) => 0,
        Member::Host { .. } => fdb_flags::HOST,
    };
    FdbEntry::new(slot_of(entry.at), kind | host, entry.seen)
}

fn abi_port(slot: u16, port: &model::Port) -> Port {
    let model::Port { uplink, mtu, hairpin, isolated, learning, flood, mcast_flood, bcast_flood } = *port;
    let flags = [
        (uplink, port_flags::UPLINK),
        (hairpin, port_flags::HAIRPIN),
        (isolated, port_flags::ISOLATED),
        (learning, port_flags::LEARNING),
        (flood, port_flags::FLOOD),
        (mcast_flood, port_flags::MCAST_FLOOD),
        (bcast_flood, port_flags::BCAST_FLOOD),
    ];
    let flags = flags.iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
    Port { ifindex: ifindex(slot), mtu, flags, ..Port::default() }
}
