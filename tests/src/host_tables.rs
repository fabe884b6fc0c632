//! How is the real decision driven without a kernel? `Tables` over collections, filled from a model.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use vswitch_ebpf::{
    abi::{
        FdbEntry, FdbKey, HOST_SLOT, Port, Settings, SourceKey, Stamp, fdb_flags, listed, mode, port_flags,
        settings_flags,
    },
    egress::flooded,
    forward::{Decision, decide},
    frame::{self, ETH_P_PAUSE, MacAddr},
    ingress::{Hook, Ingress},
    policy::{floods_to, floods_to_host},
    tables::Tables,
    verdict::Action,
};

use crate::{
    frame::Mac,
    model::{self, Kind, Member, Mode, Model, Outcome, Receiver, slot_of},
};

/// The state of a switch as the dataplane's maps hold it.
#[derive(Clone)]
pub struct HostTables {
    pub settings: Settings,
    pub ports: RefCell<BTreeMap<u16, Port>>,
    pub sources: BTreeMap<SourceKey, u32>,
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
        let only = |which: fn(&model::Port) -> bool| {
            let mut slots = model.ports.iter().filter(|(_, port)| which(port)).map(|(&slot, _)| slot);
            slots.next().filter(|_| slots.next().is_none()).unwrap_or(HOST_SLOT)
        };
        let flags = [
            (model.host_access, settings_flags::HOST_ACCESS),
            (model.compat, settings_flags::MACVLAN_COMPAT),
            (model.has_stations(), settings_flags::STATIONS),
            (model.ports.values().any(|port| port.mode == Mode::Source), settings_flags::SOURCES),
        ];
        let settings = Settings {
            ageing: model.ageing.try_into().unwrap(),
            refresh: model.refresh.try_into().unwrap(),
            flags: all(&flags),
            slots: ports.last_key_value().map_or(1, |(&slot, _)| slot + 1),
            wire: only(|port| port.uplink),
            passthru: only(|port| port.mode == Mode::Passthru),
            reserved: 0,
        };
        Self {
            settings,
            ports: RefCell::new(ports),
            sources: abi_sources(model),
            fdb: RefCell::new(abi_fdb(model)),
            fdb_max: model.fdb_max,
            now: Cell::new(model.now),
        }
    }
}

impl HostTables {
    /// What the dataplane itself changes becomes what it is in the model.
    pub fn follow(&mut self, model: &Model) {
        self.fdb = RefCell::new(abi_fdb(model));
        self.now.set(model.now);
        for (slot, port) in self.ports.get_mut() {
            let down = model.ports[slot].down;
            port.flags = port.flags & !port_flags::DOWN | if down { port_flags::DOWN } else { 0 };
        }
    }

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
            Action::HostHere => (BTreeSet::from([stack_of(decision.ingress())]), None),
            Action::Drop => (BTreeSet::new(), Some(verdict.reason.name())),
            Action::Flood => self.flood(decision),
        };
        Outcome { receivers, dropped, fdb_full: decision.fdb_full }
    }

    fn flood(&self, decision: &Decision) -> (BTreeSet<Receiver>, Option<&'static str>) {
        let flood = decision.flood();
        let slots = 1..self.settings.slots;
        let port = |slot: u16| self.ports.borrow().get(&slot).copied().unwrap_or_default();
        let ports = slots.clone().filter(|&slot| floods_to(self, &flood, slot, &port(slot)));
        let ports: Vec<_> = ports.map(Receiver::Port).collect();
        let hosts = slots.filter(|&slot| floods_to_host(&flood, slot, &port(slot)));
        let hosts: Vec<_> = hosts.map(|uplink| Receiver::Host { uplink }).collect();
        let fate = flooded(decision.facts.origin.kind, ports.len().try_into().unwrap(), !hosts.is_empty());
        (ports.into_iter().chain(hosts).collect(), fate.err().map(|reason| reason.name()))
    }
}

fn stack_of(ingress: &Ingress) -> Receiver {
    if ingress.from_wire() { Receiver::Host { uplink: ingress.slot } } else { Receiver::HostHere }
}

impl Tables for HostTables {
    fn settings(&self) -> Settings {
        self.settings
    }

    fn slot_of(&self, ifindex: u32) -> Option<u16> {
        self.ports.borrow().iter().find(|(_, port)| port.ifindex == ifindex).map(|(&slot, _)| slot)
    }

    fn port(&self, slot: u16) -> Option<Port> {
        self.ports.borrow().get(&slot).copied()
    }

    fn revive(&self, slot: u16) {
        self.ports.borrow_mut().entry(slot).and_modify(|port| port.flags &= !port_flags::DOWN);
    }

    fn listed(&self, key: SourceKey) -> u32 {
        self.sources.get(&key).copied().unwrap_or(0)
    }

    fn fdb(&self, key: FdbKey) -> Option<FdbEntry> {
        self.fdb.borrow().get(&key).copied()
    }

    fn fdb_ahead(&self, _key: FdbKey) {}

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

    fn fdb_replace(&self, key: FdbKey, old: FdbEntry, new: FdbEntry) {
        assert_eq!(self.fdb.borrow_mut().insert(key, new), Some(old), "what was found a moment ago");
    }

    fn now(&self) -> Stamp {
        self.now.get()
    }
}

/// A frame of which only the Ethernet header exists.
struct Header<'a>(&'a model::Frame);

impl frame::Frame for Header<'_> {
    fn words(&self) -> Option<[u64; 2]> {
        let bytes = header(self.0);
        let len = bytes.len().min(usize::try_from(self.0.len).ok()?);
        bytes.get(..len)?.words()
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
    let ethertype = if frame.pause { ETH_P_PAUSE } else { crate::frame::ETHERTYPE };
    bytes[12..].copy_from_slice(&ethertype.to_be_bytes());
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

/// By sender and port, and by sender what its ports say together.
fn abi_sources(model: &Model) -> BTreeMap<SourceKey, u32> {
    let mut sources = BTreeMap::new();
    for &(slot, mac) in &model.sources {
        let mac = MacAddr(mac);
        let nodst = if model.ports[&slot].nodst { listed::NODST } else { 0 };
        sources.insert(SourceKey { mac, slot }, listed::BY_PORT);
        *sources.entry(SourceKey { mac, slot: HOST_SLOT }).or_default() |= listed::BY_PORT | nodst;
    }
    sources
}

fn abi_port(slot: u16, port: &model::Port) -> Port {
    let model::Port {
        uplink,
        mode,
        nodst,
        down,
        mtu,
        hairpin,
        isolated,
        learning,
        flood,
        mcast_flood,
        bcast_flood,
    } = *port;
    let flags = [
        (uplink, port_flags::UPLINK),
        (nodst, port_flags::NODST),
        (down, port_flags::DOWN),
        (hairpin, port_flags::HAIRPIN),
        (isolated, port_flags::ISOLATED),
        (learning, port_flags::LEARNING),
        (flood, port_flags::FLOOD),
        (mcast_flood, port_flags::MCAST_FLOOD),
        (bcast_flood, port_flags::BCAST_FLOOD),
    ];
    Port { ifindex: ifindex(slot), mtu, flags: all(&flags), mode: abi_mode(mode), ..Port::default() }
}

const fn abi_mode(mode: Mode) -> u8 {
    match mode {
        Mode::Bridge => mode::BRIDGE,
        Mode::Vepa => mode::VEPA,
        Mode::Private => mode::PRIVATE,
        Mode::Passthru => mode::PASSTHRU,
        Mode::Source => mode::SOURCE,
    }
}

fn all(flags: &[(bool, u32)]) -> u32 {
    flags.iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag)
}
