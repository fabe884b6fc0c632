//! How is the real decision driven without a kernel? `Tables` over collections, filled from a model.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use bytemuck::Zeroable as _;
use vswitch::config::PORT_FLAGS;
use vswitch_ebpf::{
    abi::{
        FdbEntry, FdbKey, HOST_SLOT, LISTED, List, Port, Settings, SourceKey, Stamp, fdb_flags, mode,
        port_flags, settings_flags,
    },
    forward::{Learned, Left, Lessons, decide},
    frame::{self, ETH_P_PAUSE, MacAddr},
    memory::{Question, Record},
    packet::{Hook, Packet},
    policy::{host_receives, reached, receives},
    tables::{Change, Look},
    verdict::{Action, Decision, Members, Verdict},
};

use crate::{
    frame::Mac,
    model::{self, Kind, Member, Mode, Model, Outcome, Receiver, slot_of},
};

/// The state of a switch as the dataplane's maps hold it.
#[derive(Clone)]
pub struct HostTables {
    pub settings: Settings,
    pub ports: BTreeMap<u16, Port>,
    /// The ports that are down.
    pub down: RefCell<BTreeSet<u16>>,
    pub sources: BTreeMap<SourceKey, u64>,
    pub fdb: RefCell<BTreeMap<FdbKey, FdbEntry>>,
    pub fdb_max: usize,
    pub now: Cell<Stamp>,
    pub generation: Cell<u64>,
    /// By [`Question::element`].
    pub records: RefCell<BTreeMap<u32, Record>>,
    /// How many frames were answered from memory.
    pub recalled: Cell<u64>,
    /// Whether who changes anything makes what was decided forgotten. Off, to see that a test shows it.
    pub forgets: Cell<bool>,
}

/// Of memory's hash.
const SECRET: u64 = 0x0123_4567_89ab_cdef;

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
            wire: only(|port| port.uplink),
            passthru: only(|port| port.mode == Mode::Passthru),
        };
        Self {
            settings,
            ports,
            down: RefCell::new(down(model)),
            sources: abi_sources(model),
            fdb: RefCell::new(abi_fdb(model)),
            fdb_max: model.fdb_max,
            now: Cell::new(model.now),
            generation: Cell::new(0),
            records: RefCell::default(),
            recalled: Cell::new(0),
            forgets: Cell::new(true),
        }
    }
}

impl HostTables {
    /// What the dataplane itself changes becomes what it is in the model.
    pub fn follow(&mut self, model: &Model) {
        self.fdb = RefCell::new(abi_fdb(model));
        self.down = RefCell::new(down(model));
        self.now.set(model.now);
        self.forget();
    }

    /// Becomes what the switch is after a change, as userspace makes it: then what was decided is forgotten.
    pub fn become_like(&mut self, after: &Self) {
        let (records, generation) = (self.records.take(), self.generation.get());
        let (recalled, forgets) = (self.recalled.get(), self.forgets.get());
        *self = after.clone();
        (self.records, self.generation) = (RefCell::new(records), Cell::new(generation));
        (self.recalled, self.forgets) = (Cell::new(recalled), Cell::new(forgets));
        self.forget();
    }

    /// What the programs do: from memory, or by the real decision. What either says of one frame, the other must.
    pub fn decide(&self, from: Member, frame: &model::Frame) -> Packet {
        self.take(&Header(frame), hook(from))
    }

    /// As [`HostTables::decide`]; an error if memory, XDP and tc do not say the same.
    pub fn answer(&self, from: Member, frame: &model::Frame) -> Result<Packet, String> {
        self.said_by_all(&Header(frame), hook(from))
    }

    /// What is remembered for such a frame.
    pub fn remembered(&self, from: Member, frame: &model::Frame) -> Option<Decision> {
        self.recall(&Header(frame), hook(from))
    }

    /// What XDP says, where that needs no change.
    pub fn foresee(&self, from: Member, frame: &model::Frame) -> Option<Packet> {
        self.decided(&Header(frame), &Left, hook(from))
    }

    /// As [`HostTables::decide`], of any bytes.
    pub fn take(&self, frame: &impl frame::Frame, hook: Hook) -> Packet {
        self.said_by_all(frame, hook).unwrap_or_else(|difference| panic!("{difference}"))
    }

    fn said_by_all(&self, frame: &impl frame::Frame, hook: Hook) -> Result<Packet, String> {
        let generation = self.generation.get();
        let recalled = self.recall(frame, hook);
        // What XDP says, where that needs no change.
        let foreseen = self.decided(frame, &Left, hook);
        let packet = self.decided(frame, &Learned(self), hook).expect("the sender is a member");
        if let Some(foreseen) = foreseen {
            same("XDP's decision and tc's", &foreseen.decision(), &packet.decision())?;
        }
        if let Some(recalled) = recalled {
            same("what is remembered and what is decided", &recalled, &packet.decision())?;
            if foreseen.is_none() {
                return Err("what is remembered keeps a frame from changing the tables".to_owned());
            }
            self.recalled.set(self.recalled.get() + 1);
        }
        if let Some(asked) = question(frame, hook) {
            self.keep(&packet, &asked, generation);
        }
        Ok(packet)
    }

    fn recall(&self, frame: &impl frame::Frame, hook: Hook) -> Option<Decision> {
        let asked = question(frame, hook)?;
        let records = self.records.borrow();
        let record = records.get(&asked.element(SECRET)).filter(|record| record.is_about(&asked))?;
        let good = record.is_good(frame.wire_len(), self.generation.get(), self.now.get());
        good.then(|| record.decision(hook))
    }

    fn decided(&self, frame: &impl frame::Frame, lessons: &impl Lessons, hook: Hook) -> Option<Packet> {
        let mut packet = Packet::zeroed();
        decide(&mut packet, frame, self, lessons, hook).then_some(packet)
    }

    fn keep(&self, packet: &Packet, asked: &Question, generation: u64) {
        let mut records = self.records.borrow_mut();
        records.entry(asked.element(SECRET)).or_insert_with(Record::zeroed).keep(packet, asked, generation);
    }

    /// Who receives the frame, with lists walked as the programs do.
    pub fn outcome(&self, packet: &Packet) -> Outcome {
        let Decision { slot, verdict, fdb_full, .. } = packet.decision();
        let here = if packet.from_wire() { Receiver::Host { uplink: slot } } else { Receiver::HostHere };
        let target = verdict.target.slot;
        let one = match verdict.action {
            Action::Forward => Some(Receiver::Port(target)),
            Action::Host => Some(Receiver::Host { uplink: target }),
            Action::HostHere => Some(here),
            Action::Drop | Action::Flood => None,
        };
        let mut receivers: BTreeSet<_> = one.into_iter().collect();
        let dropped = match (verdict.action, verdict.list) {
            (Action::Drop, _) => Some(verdict.reason),
            (_, Members::Nobody) => None,
            (_, list) => {
                receivers.extend(self.members(packet, list));
                reached(packet, !receivers.is_empty()).err()
            }
        };
        Outcome { receivers, dropped: dropped.map(|reason| reason.name()), fdb_full }
    }

    /// The members of a list that may have the frame.
    fn members(&self, packet: &Packet, list: Members) -> Vec<Receiver> {
        let is_member = |slot: u16, port: &Port| match list {
            Members::Nobody => false,
            Members::Domain => true,
            Members::Uplinks => port.flags & port_flags::UPLINK != 0,
            Members::Listeners => self.sources.contains_key(&SourceKey { mac: packet.source().mac, slot }),
        };
        let members = self.ports.iter().filter(|&(&slot, port)| is_member(slot, port));
        members
            .flat_map(|(&slot, port)| {
                let port_has = receives(self, packet, slot, port).then_some(Receiver::Port(slot));
                let host_has = host_receives(packet, slot, port).then_some(Receiver::Host { uplink: slot });
                port_has.into_iter().chain(host_has)
            })
            .collect()
    }
}

fn question(frame: &impl frame::Frame, hook: Hook) -> Option<Question> {
    frame.words().map(|words| Question { words, hook })
}

fn same(what: &str, one: &Decision, other: &Decision) -> Result<(), String> {
    let (one, other) = (said(one), said(other));
    if one == other { Ok(()) } else { Err(format!("{what} differ: {one:?} and {other:?}")) }
}

/// All of a decision that means anything.
fn said(decision: &Decision) -> impl PartialEq + std::fmt::Debug + use<> {
    let Decision { slot, from_host, fdb_full, verdict } = *decision;
    let Verdict { action, reason, list, target, .. } = verdict;
    let why = (action == Action::Drop).then_some(reason);
    let target = matches!(action, Action::Forward | Action::Host).then_some(target);
    (slot, from_host, fdb_full, action, why, list, target)
}

impl Look for HostTables {
    fn settings(&self) -> Settings {
        self.settings
    }

    fn slot_of(&self, ifindex: u32) -> Option<u16> {
        self.ports.iter().find(|(_, port)| port.ifindex == ifindex).map(|(&slot, _)| slot)
    }

    fn port(&self, slot: u16) -> Option<&Port> {
        self.ports.get(&slot)
    }

    fn is_down(&self, slot: u16) -> bool {
        self.down.borrow().contains(&slot)
    }

    fn is_gone(&self, _slot: u16) -> bool {
        false
    }

    fn listed(&self, key: SourceKey) -> u64 {
        self.sources.get(&key).copied().unwrap_or(0)
    }

    fn fdb(&self, key: FdbKey) -> Option<FdbEntry> {
        self.fdb.borrow().get(&key).copied()
    }

    fn fdb_ahead(&self, _key: FdbKey) {}

    fn now(&self) -> Stamp {
        self.now.get()
    }
}

impl Change for HostTables {
    fn revive(&self, slot: u16) {
        self.down.borrow_mut().remove(&slot);
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

    fn fdb_replace(&self, key: FdbKey, old: FdbEntry, new: FdbEntry) {
        assert_eq!(self.fdb.borrow_mut().insert(key, new), Some(old), "what was found a moment ago");
    }

    fn forget(&self) {
        self.generation.set(self.generation.get() + u64::from(self.forgets.get()));
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

    fn length(&self) -> u32 {
        self.0.len
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

/// An FDB as the specification sees it, which knows nothing of [`fdb_flags::RESTLESS`].
pub fn settled(fdb: &BTreeMap<FdbKey, FdbEntry>) -> BTreeMap<FdbKey, FdbEntry> {
    let settle =
        |entry: &FdbEntry| FdbEntry::new(entry.slot(), entry.flags() & !fdb_flags::RESTLESS, entry.stamp());
    fdb.iter().map(|(key, entry)| (*key, settle(entry))).collect()
}

/// By sender and port, and by sender all of its ports: rows of members one behind the other.
fn abi_sources(model: &Model) -> BTreeMap<SourceKey, u64> {
    let mut sources = BTreeMap::new();
    for &(slot, mac) in &model.sources {
        let mac = MacAddr(mac);
        sources.insert(SourceKey { mac, slot }, LISTED);
        let all = sources.entry(SourceKey { mac, slot: HOST_SLOT }).or_default();
        let list = List(*all);
        let longer = List::new(0, u16::try_from(list.len() + 1).unwrap());
        let nodst = list.nodst() || model.ports[&slot].nodst;
        *all = if nodst { longer.with_nodst() } else { longer }.0;
    }
    sources
}

fn down(model: &Model) -> BTreeSet<u16> {
    model.ports.iter().filter(|(_, port)| port.down).map(|(&slot, _)| slot).collect()
}

fn abi_port(slot: u16, port: &model::Port) -> Port {
    let uplink = if port.uplink { port_flags::UPLINK } else { 0 };
    let flags = port.flags().map(flag_bit).fold(uplink, |all, flag| all | flag);
    Port { ifindex: ifindex(slot), mtu: port.mtu, flags, mode: abi_mode(port.mode), ..Port::default() }
}

/// The bit of [`port_flags`] by which userspace passes on a flag of this name.
fn flag_bit(name: &str) -> u32 {
    let flag = PORT_FLAGS.iter().find(|flag| flag.json_key() == name);
    flag.expect("a flag that the switch has, too").bit
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
