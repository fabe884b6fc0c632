//! Which switches and frames are tried? Generators for the property tests, and a way to print what they made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use vswitch_ebpf::abi::port_flags;

use crate::{
    change::{Change, change, slowed},
    frame::{BROADCAST, MULTICAST, Mac, colons, link_local},
    host_tables::HostTables,
    model::{Entry, FLAGS, Frame, Kind, Member, Mode, Model, PLAIN, Port, slot_of},
};

/// A switch, and what happens to it.
#[derive(Clone)]
pub struct Case {
    pub model: Model,
    /// Ports that XDP delivers to, and veths whose peer is in another namespace: how, not whether, a frame is delivered.
    pub xdp: BTreeSet<u16>,
    pub peer: BTreeSet<u16>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy)]
pub struct Step {
    /// What userspace changes before the frame.
    pub change: Option<Change>,
    /// Time that passes before the frame.
    pub after: u64,
    pub from: Member,
    pub frame: Frame,
}

/// The most entries that an FDB has room for in any case.
pub const FDB_MAX: usize = 32;

const MAX_PORTS: u16 = 8;
const MAX_UPLINKS: usize = 3;
const START: u64 = 1 << 20;

impl Case {
    /// The state of the dataplane that this switch is to be.
    pub fn tables(&self) -> HostTables {
        self.tables_of(&self.model)
    }

    /// The same of what the switch has become.
    pub fn tables_of(&self, model: &Model) -> HostTables {
        let mut tables = HostTables::from(model);
        for (slot, port) in &mut tables.ports {
            port.flags |= if self.xdp.contains(slot) { port_flags::XDP } else { 0 };
            port.flags |= if self.peer.contains(slot) { port_flags::PEER } else { 0 };
        }
        tables
    }

    /// The same case with every time `unit` times as long, and no age within half a unit of a limit: for a clock that
    /// does not stand still while a test looks.
    pub fn slowed(mut self, unit: u64) -> Self {
        let model = &mut self.model;
        model.now *= unit;
        model.ageing = slowed(model.ageing, unit);
        model.refresh = slowed(model.refresh, unit);
        model.fdb.values_mut().for_each(|entry| entry.seen *= unit);
        for step in &mut self.steps {
            step.after *= unit;
            step.change = step.change.map(|change| change.slowed(unit));
        }
        self
    }
}

/// Any switch with 1 to 8 ports and up to 3 uplinks, and 3 to 64 frames: each comes again twice, the last time often after a
/// change; and some come back at once.
///
/// Without unions and options of proptest's: each makes further dice of half of those that are left, and of what a fuzzer
/// throws (`fuzz::decide`) nothing would be left soon.
pub fn case() -> impl Strategy<Value = Case> {
    let ports = prop::collection::vec((port(), rarely(10), rarely(3), rarely(3)), 1..=usize::from(MAX_PORTS));
    let uplinks = prop::collection::vec(any::<Index>(), 0..=MAX_UPLINKS);
    let fdb = prop::collection::vec((station(), any::<Index>(), kind(), 0u64..7), 0..8);
    let sources = prop::collection::vec((any::<Index>(), station()), 0..6);
    let back = (rarely(4), any::<Index>()).prop_map(|(back, by)| back.then_some(by));
    let change = (rarely(2), change()).prop_map(|(is, change)| is.then_some(change));
    let step = (select(vec![0, 0, 1, 2, 3]), any::<Index>(), frame(), back, change);
    let steps = prop::collection::vec(step, 1..=12);
    (ports, uplinks, modes(), fdb, sources, switch(), steps).prop_map(
        |(ports, uplinks, modes, fdb, sources, model, steps)| {
            let slots: Vec<u16> = (1..).take(ports.len()).collect();
            let uplinks: BTreeSet<u16> = uplinks.iter().map(|uplink| *uplink.get(&slots)).collect();
            let mut case = Case { model, xdp: BTreeSet::new(), peer: BTreeSet::new(), steps: Vec::new() };
            for (&slot, (port, missing, xdp, peer)) in slots.iter().zip(ports) {
                // Frames must come from somewhere: the first port is never missing.
                if slot == 1 || !missing {
                    case.model.ports.insert(slot, Port { uplink: uplinks.contains(&slot), ..port });
                }
                case.xdp.extend(xdp.then_some(slot));
                case.peer.extend(peer.then_some(slot));
            }
            case.model.give_modes(&modes);
            case.model.give_lists(&sources);
            let model = &mut case.model;
            let places: Vec<Member> = members(slots.iter().copied(), &uplinks).collect();
            for (mac, place, kind, age) in fdb {
                let at = *place.get(&places);
                // A local entry is the host's that neither moves nor ages: the FDB has no other word for either.
                let kind = match (at, kind) {
                    (Member::Port(_), Kind::Local) => Kind::StickyStatic,
                    (Member::Host { .. }, Kind::StickyStatic) => Kind::Local,
                    (_, kind) => kind,
                };
                model.fdb.insert(mac, Entry { at, kind, seen: START - age });
            }
            model.fdb_max = model.fdb_max.min(FDB_MAX - model.fdb.len()) + model.fdb.len();
            let senders = places.iter().filter(|member| model.ports.contains_key(&slot_of(**member)));
            let senders: Vec<&Member> = senders.collect();
            let hosts: Vec<u16> = uplinks.into_iter().filter(|slot| model.ports.contains_key(slot)).collect();
            case.steps = steps
                .into_iter()
                .flat_map(|(after, sender, frame, back, change)| {
                    // An adjacent switch may send back what it has just had.
                    let back = back.filter(|_| !hosts.is_empty()).map(|back| Member::Port(*back.get(&hosts)));
                    let sent = Step { change: None, after, from: **sender.get(&senders), frame };
                    let again = Step { after: 0, ..sent };
                    let back = back.map(|from| Step { from, ..again });
                    [sent, again, Step { change, ..again }].into_iter().chain(back)
                })
                .collect();
            case
        },
    )
}

impl Model {
    /// Gives the downlinks these modes in turn. With a passthru port there is no other.
    fn give_modes(&mut self, modes: &[Mode]) {
        let downlinks = self.ports.iter_mut().filter(|(_, port)| !port.uplink);
        for ((_, port), &mode) in downlinks.zip(modes.iter().cycle()) {
            port.mode = mode;
        }
        for port in self.ports.values_mut() {
            port.fit_mode();
        }
        let passthru = self.ports.iter().find(|(_, port)| port.mode == Mode::Passthru).map(|(&slot, _)| slot);
        if let Some(passthru) = passthru {
            self.ports.retain(|&slot, port| port.uplink || slot == passthru);
        }
    }

    fn give_lists(&mut self, lists: &[(Index, Mac)]) {
        let ports = self.ports.iter().filter(|(_, port)| port.mode == Mode::Source);
        let ports: Vec<u16> = ports.map(|(&slot, _)| slot).collect();
        if !ports.is_empty() {
            self.sources = lists.iter().map(|(port, mac)| (*port.get(&ports), *mac)).collect();
        }
    }
}

/// A switch without ports.
fn switch() -> impl Strategy<Value = Model> {
    let room = (rarely(4), 0..3usize).prop_map(|(little, room)| if little { room } else { FDB_MAX });
    let ageing = select(vec![(0, 1), (1, 1), (4, 2), (4, 1), (1000, 2)]);
    (room, ageing, any::<bool>(), rarely(3)).prop_map(|(fdb_max, (ageing, refresh), host_access, compat)| {
        Model {
            ports: BTreeMap::new(),
            fdb: BTreeMap::new(),
            fdb_max,
            ageing,
            refresh,
            now: START,
            host_access,
            compat,
            sources: BTreeSet::new(),
        }
    })
}

/// The modes of the downlinks, in turn.
fn modes() -> impl Strategy<Value = Vec<Mode>> {
    let mode = select(vec![Mode::Bridge, Mode::Bridge, Mode::Vepa, Mode::Private, Mode::Source]);
    (0..12, prop::collection::vec(mode, 1..=usize::from(MAX_PORTS))).prop_map(|(which, modes)| match which {
        0 => vec![Mode::Passthru],
        1..=3 => vec![Mode::Bridge],
        _ => modes,
    })
}

fn members(slots: impl Iterator<Item = u16>, uplinks: &BTreeSet<u16>) -> impl Iterator<Item = Member> {
    slots.map(Member::Port).chain(uplinks.iter().map(|&uplink| Member::Host { uplink }))
}

fn port() -> impl Strategy<Value = Port> {
    let mtu = select(vec![1500, 1500, 1500, 576]);
    let unusual = FLAGS.map(|_| rarely(4));
    (mtu, rarely(6), unusual).prop_map(|(mtu, down, unusual)| {
        let mut port = Port { mtu, down, ..PLAIN };
        for ((_, flag), unusual) in FLAGS.into_iter().zip(unusual) {
            *flag(&mut port) ^= unusual;
        }
        port
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let reserved = select(vec![0, 1, 0xe, 0xf, 0x10]).prop_map(link_local);
    let dst = (0..15, station(), reserved).prop_map(|(which, station, reserved)| match which {
        0 => reserved,
        1 | 2 => BROADCAST,
        3 | 4 => MULTICAST,
        _ => station,
    });
    let no_station = select(vec![[0; 6], MULTICAST, BROADCAST, link_local(0xe)]);
    let src = (rarely(25), station(), no_station);
    let src = src.prop_map(|(wrong, station, no_station)| if wrong { no_station } else { station });
    let len = select(vec![60, 60, 60, 60, 60, 60, 14, 594, 595, 1518, 1519, 13]);
    (dst, src, len, rarely(8), rarely(12)).prop_map(|(dst, src, len, gso, pause)| Frame {
        dst,
        src,
        len,
        gso,
        pause,
    })
}

/// So few that most frames meet an entry.
fn station() -> impl Strategy<Value = Mac> {
    (1u8..=6).prop_map(|n| [2, 0, 0, 0, 0, n])
}

fn kind() -> impl Strategy<Value = Kind> {
    (0..14).prop_map(|which| match which {
        0..6 => Kind::Learned,
        6 | 7 => Kind::Static,
        8 => Kind::Sticky,
        9..12 => Kind::StickyStatic,
        _ => Kind::Local,
    })
}

fn rarely(one_in: u8) -> impl Strategy<Value = bool> {
    (1..=one_in).prop_map(move |n| n == one_in)
}

/// proptest prints a failing case by this.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:?}", self.model)?;
        writeln!(f, "  xdp {:?} peer {:?}", self.xdp, self.peer)?;
        self.steps.iter().enumerate().try_for_each(|(n, step)| writeln!(f, "  frame {n}: {step:?}"))
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { change, after, from, frame: Frame { dst, src, len, gso, pause } } = self;
        if let Some(change) = change {
            write!(f, "{change:?}, then ")?;
        }
        let gso = if *gso { " gso" } else { "" };
        let pause = if *pause { " pause" } else { "" };
        write!(f, "+{after} from {from:?}: {} > {} length {len}{gso}{pause}", colons(*src), colons(*dst))
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ports, fdb, fdb_max, ageing, refresh, now, host_access, compat, sources } = self;
        writeln!(
            f,
            "switch at {now}: ageing {ageing} refresh {refresh} host access {host_access} compat {compat}"
        )?;
        for (slot, port) in ports {
            let states = [(port.uplink, "uplink"), (port.down, "down")];
            let states = states.into_iter().filter(|(is, _)| *is).map(|(_, name)| name);
            let words: Vec<_> = states.chain(port.flags()).collect();
            let lists = sources.iter().filter(|(by, _)| by == slot).map(|(_, mac)| colons(*mac));
            let lists = lists.collect::<Vec<_>>().join(" ");
            writeln!(f, "  port {slot}: {:?} mtu {} {} {lists}", port.mode, port.mtu, words.join(" "))?;
        }
        for (mac, entry) in fdb {
            let age = now.saturating_sub(entry.seen);
            writeln!(f, "  {} at {:?} {:?} age {age}", colons(*mac), entry.at, entry.kind)?;
        }
        write!(f, "  room for {fdb_max} entries")
    }
}
