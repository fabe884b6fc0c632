//! Level 1: does the decision do what the specification says? No privileges, no kernel.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::test_runner::TestCaseError;
use vswitch::config::PORT_FLAGS;
use vswitch_ebpf::verdict::DropReason;
use vswitch_tests::{
    cases::{Case, Step, case},
    dice::dice,
    frame::{BROADCAST, MULTICAST, Mac, link_local},
    lock_step::{Taken, in_lock_step},
    model::{Entry, FLAGS, Frame, Kind, Member, Mode, Model, Origin, Outcome, PLAIN, Port, Receiver},
};

/// How often each kind of outcome was seen.
type Coverage = BTreeMap<String, u32>;

#[test]
fn the_decision_is_the_model() {
    let seen = RefCell::new(Coverage::new());
    let [same, fresh] = dice(12_000, 4000, "model");
    fresh.throw(&case(), |case| counted(&case, &mut Coverage::new()));
    same.throw(&case(), |case| counted(&case, &mut seen.borrow_mut()));

    let seen = seen.into_inner();
    let reasons = DropReason::ALL.map(|reason| format!("drop {}", reason.name()));
    let outcomes = ["to a port", "to several ports", "to ports and host", "to the host alone", "to the link"];
    let states = ["learned", "moved", "refreshed", "fdb full", "hairpin", "host to its wire", "aged out"];
    let reflections = REFLECTIONS.map(|(name, ..)| name);
    let wanted = reasons.iter().map(String::as_str).chain(outcomes).chain(states);
    let wanted = wanted.chain(reflections).chain(MODES.map(|(name, _)| name)).chain(["recalled"]);
    let rare: Vec<_> = wanted.filter(|name| seen.get(*name).is_none_or(|&count| count < 100)).collect();
    assert!(rare.is_empty(), "the generated cases hardly show {rare:?}: {seen:#?}");
    println!("{seen:#?}");
}

fn counted(case: &Case, seen: &mut Coverage) -> Result<(), TestCaseError> {
    let step = |taken: &Taken<'_>| {
        for name in names(taken) {
            *seen.entry(name).or_default() += 1;
        }
    };
    in_lock_step(case, step).map_err(TestCaseError::fail)
}

/// What this step was an example of.
fn names(taken: &Taken<'_>) -> Vec<String> {
    let &Taken { before, after, step: &Step { from, ref frame, .. }, outcome, .. } = taken;
    let ports: Vec<_> = outcome.receivers.iter().filter(|r| matches!(r, Receiver::Port(_))).collect();
    let host = outcome.receivers.iter().any(|receiver| matches!(receiver, Receiver::Host { .. }));
    let place = match outcome.dropped {
        Some(reason) => format!("drop {reason}"),
        None if outcome.receivers.contains(&Receiver::HostHere) => "to the link".to_owned(),
        None if ports.is_empty() => "to the host alone".to_owned(),
        None if host => "to ports and host".to_owned(),
        None if ports.len() > 1 => "to several ports".to_owned(),
        None => "to a port".to_owned(),
    };
    let taught = match (before.fdb.get(&frame.src), after.fdb.get(&frame.src)) {
        (None, Some(_)) => "learned",
        (Some(old), Some(new)) if old.at != new.at => "moved",
        (Some(old), Some(new)) if old.seen != new.seen => "refreshed",
        _ => "nothing learned",
    };
    let mut names = vec![place, taught.to_owned()];
    let mut also = |holds: bool, name: &str| names.extend(holds.then(|| name.to_owned()));
    also(outcome.fdb_full, "fdb full");
    also(taken.recalled, "recalled");
    match from {
        Member::Port(slot) => also(outcome.receivers.contains(&Receiver::Port(slot)), "hairpin"),
        Member::Host { uplink } => {
            also(outcome.receivers.contains(&Receiver::Port(uplink)), "host to its wire");
        }
    }
    let aged = before.fdb.get(&frame.dst).is_some_and(|entry| {
        entry.kind == Kind::Learned && before.ageing > 0 && before.now - entry.seen >= before.ageing
    });
    also(aged, "aged out");
    let origin = before.origin(from, frame.src);
    let example = Example { before, from, origin, frame, outcome };
    let who = match origin {
        Origin::Elsewhere | Origin::MovedFrom(_) => None,
        Origin::Sibling(slot) => Some(Some(before.ports[&slot].mode)),
        Origin::Host => Some(None),
    };
    for (name, mode, compat) in REFLECTIONS {
        also(who == Some(mode) && before.compat == compat, name);
    }
    for (name, shows) in MODES {
        also(shows(&example), name);
    }
    names
}

/// A reflection's sender, strictly or in compat mode: the host, or a sibling in this mode.
const REFLECTIONS: [(&str, Option<Mode>, bool); 10] = [
    ("back from the host", None, false),
    ("back from the host, compat", None, true),
    ("back from bridge", Some(Mode::Bridge), false),
    ("back from bridge, compat", Some(Mode::Bridge), true),
    ("back from vepa", Some(Mode::Vepa), false),
    ("back from vepa, compat", Some(Mode::Vepa), true),
    ("back from private", Some(Mode::Private), false),
    ("back from private, compat", Some(Mode::Private), true),
    ("back from source", Some(Mode::Source), false),
    ("back from passthru", Some(Mode::Passthru), false),
];

type Shows = fn(&Example<'_>) -> bool;

/// What it looks like when the modes' rules show.
const MODES: [(&str, Shows); 13] = [
    ("own echo", |e| matches!(e.origin, Origin::Sibling(slot) if e.has(To(slot)))),
    ("from private", |e| e.sender() == Some(Mode::Private)),
    ("from passthru", |e| e.sender() == Some(Mode::Passthru)),
    ("to vepa", |e| e.reaches(Mode::Vepa)),
    ("to private", |e| e.reaches(Mode::Private)),
    ("to passthru", |e| e.reaches(Mode::Passthru)),
    ("to source", |e| e.reaches(Mode::Source)),
    ("consumed by nodst", |e| e.reaches(Mode::Source) && e.ports().all(|port| port.nodst)),
    ("from bridge to source", |e| e.sender() == Some(Mode::Bridge) && e.reaches(Mode::Source)),
    ("from the host to source", |e| matches!(e.from, Member::Host { .. }) && e.reaches(Mode::Source)),
    ("revived", |e| matches!(e.from, Member::Port(slot) if e.before.ports[&slot].down)),
    ("to several stacks", |e| {
        e.outcome.receivers.iter().filter(|to| matches!(to, Receiver::Host { .. })).count() > 1
    }),
    ("pause, compat", |e| e.before.compat && e.frame.pause && e.frame.dst[0] & 1 == 1),
];

struct Example<'a> {
    before: &'a Model,
    from: Member,
    origin: Origin,
    frame: &'a Frame,
    outcome: &'a Outcome,
}

impl Example<'_> {
    fn has(&self, receiver: Receiver) -> bool {
        self.outcome.receivers.contains(&receiver)
    }

    /// The downlinks that have it.
    fn ports(&self) -> impl Iterator<Item = &Port> {
        let port =
            |to: &Receiver| if let Receiver::Port(slot) = to { self.before.ports.get(slot) } else { None };
        self.outcome.receivers.iter().filter_map(port).filter(|port| !port.uplink)
    }

    fn reaches(&self, mode: Mode) -> bool {
        self.ports().any(|port| port.mode == mode)
    }

    /// The mode of the downlink that sends.
    fn sender(&self) -> Option<Mode> {
        let Member::Port(slot) = self.from else { return None };
        Some(self.before.ports[&slot]).filter(|port| !port.uplink).map(|port| port.mode)
    }
}

const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const HOST: Mac = [2, 0, 0, 0, 0, 0xff];

/// One switch that model and decision share: uplink in slot 1, downlinks in 2, 3 and 4, the host's address local.
struct Bench(Case);

impl Bench {
    fn new(change: impl FnOnce(&mut Model)) -> Self {
        let ports = (1..=4).map(|slot| (slot, Port { uplink: slot == 1, ..PLAIN }));
        let local = Entry { at: Member::Host { uplink: 1 }, kind: Kind::Local, seen: 0 };
        let mut model = Model { fdb: BTreeMap::from([(HOST, local)]), fdb_max: 100, ..Model::plain(ports) };
        change(&mut model);
        Self(Case { model, xdp: BTreeSet::new(), peer: BTreeSet::new(), steps: Vec::new() })
    }

    /// Adds a frame and asserts what becomes of it, in the model and in the decision.
    #[track_caller]
    fn sends(&mut self, from: Member, src: Mac, dst: Mac, expected: Result<&[Receiver], &str>) {
        self.after(0, from, src, dst, expected);
    }

    #[track_caller]
    fn after(&mut self, after: u64, from: Member, src: Mac, dst: Mac, expected: Result<&[Receiver], &str>) {
        let frame = Frame { dst, src, len: 60, gso: false, pause: false };
        let Self(case) = self;
        case.steps = vec![Step { change: None, after, from, frame }];
        in_lock_step(case, |_| ()).unwrap_or_else(|error| panic!("{error}"));
        case.model.now += after;
        let outcome = case.model.send(from, &frame);
        let receivers: Vec<_> = outcome.receivers.into_iter().collect();
        assert_eq!(outcome.dropped.map_or(Ok(receivers.as_slice()), Err), expected);
    }
}

const fn port(slot: u16) -> Member {
    Member::Port(slot)
}

const THE_HOST: Member = Member::Host { uplink: 1 };
const TO_HOST: Receiver = Receiver::Host { uplink: 1 };

use Receiver::Port as To;

#[test]
fn a_mac_that_moves_is_followed_by_the_very_next_frame() {
    let mut bench = Bench::new(|_| {});
    bench.sends(port(2), A, BROADCAST, Ok(&[To(1), To(3), To(4), TO_HOST]));
    bench.sends(port(3), B, A, Ok(&[To(2)]));
    bench.sends(port(4), A, B, Ok(&[To(3)]));
    bench.sends(port(3), B, A, Ok(&[To(4)]));
}

#[test]
fn an_entry_stops_forwarding_at_its_ageing_time() {
    let mut bench = Bench::new(|_| {});
    bench.sends(port(2), A, BROADCAST, Ok(&[To(1), To(3), To(4), TO_HOST]));
    bench.after(299, port(3), B, A, Ok(&[To(2)]));
    bench.after(1, port(3), B, A, Ok(&[To(1), To(2), To(4)]));
}

#[test]
fn unknown_unicast_goes_to_ports_with_flood_on_and_never_to_the_host() {
    let mut bench = Bench::new(|model| model.ports.get_mut(&3).unwrap().flood = false);
    bench.sends(port(2), A, B, Ok(&[To(1), To(4)]));
    bench.sends(THE_HOST, HOST, B, Ok(&[To(1), To(2), To(4)]));
}

#[test]
fn host_and_ports_reach_each_other() {
    let mut bench = Bench::new(|model| {
        for port in model.ports.values_mut() {
            (port.mcast_flood, port.bcast_flood) = (false, false);
        }
    });
    bench.sends(port(2), A, HOST, Ok(&[TO_HOST]));
    bench.sends(THE_HOST, HOST, A, Ok(&[To(2)]));
    // The host's own group frames ignore the ports' flood flags.
    bench.sends(THE_HOST, HOST, BROADCAST, Ok(&[To(1), To(2), To(3), To(4)]));
    bench.sends(THE_HOST, HOST, MULTICAST, Ok(&[To(1), To(2), To(3), To(4)]));
    bench.sends(port(2), A, MULTICAST, Ok(&[TO_HOST]));
}

#[test]
fn without_host_access_ports_and_host_meet_on_the_wire_only() {
    let mut bench = Bench::new(|model| model.host_access = false);
    bench.sends(port(2), A, HOST, Ok(&[To(1)]));
    bench.sends(port(2), A, BROADCAST, Ok(&[To(1), To(3), To(4)]));
    bench.sends(THE_HOST, HOST, A, Ok(&[To(1)]));
    bench.sends(port(1), B, BROADCAST, Ok(&[To(2), To(3), To(4), TO_HOST]));
}

/// Then no flag of the switch is left out where flags are thrown, and userspace passes each on as the one that it is.
#[test]
fn the_model_has_the_flags_of_the_switch() {
    assert_eq!(FLAGS.map(|(name, _)| name.to_owned()), PORT_FLAGS.map(|flag| flag.json_key()));
    for (name, flag) in FLAGS {
        let is = PORT_FLAGS.into_iter().find(|flag| flag.json_key() == name).map(|flag| flag.usual);
        assert_eq!(is, Some(*flag(&mut { PLAIN })), "{name}");
    }
}

#[test]
fn isolated_ports_exchange_nothing_and_hairpin_reflects() {
    let mut bench = Bench::new(|model| {
        for slot in [2, 3] {
            model.ports.get_mut(&slot).unwrap().isolated = true;
        }
        model.ports.get_mut(&4).unwrap().hairpin = true;
    });
    bench.sends(port(2), A, BROADCAST, Ok(&[To(1), To(4), TO_HOST]));
    bench.sends(port(3), B, A, Err("isolated"));
    bench.sends(port(2), B, A, Err("same_port"));
    bench.sends(port(4), A, BROADCAST, Ok(&[To(1), To(2), To(3), To(4), TO_HOST]));
    bench.sends(port(4), B, A, Ok(&[To(4)]));
}

#[test]
fn link_local_frames_stay_on_their_link() {
    let mut bench = Bench::new(|_| {});
    bench.sends(port(2), A, link_local(0xe), Ok(&[Receiver::HostHere]));
    bench.sends(port(2), A, link_local(0), Ok(&[Receiver::HostHere]));
    bench.sends(port(2), B, link_local(1), Err("pause"));
    bench.sends(THE_HOST, HOST, link_local(1), Ok(&[To(1)]));
    // The first two taught where A is, the pause frame taught nothing.
    bench.sends(port(3), HOST, A, Ok(&[To(2)]));
    bench.sends(port(3), A, B, Ok(&[To(1), To(2), To(4)]));
}

#[test]
fn a_local_address_stays_and_a_static_one_moves() {
    let fixed = Entry { at: port(2), kind: Kind::Static, seen: 0 };
    let mut bench = Bench::new(|model| {
        model.fdb.insert(A, fixed);
    });
    bench.sends(port(3), B, A, Ok(&[To(2)]));
    bench.sends(port(4), A, HOST, Ok(&[TO_HOST]));
    bench.after(10_000, port(3), B, A, Ok(&[To(4)]));
    bench.sends(port(3), HOST, BROADCAST, Ok(&[To(1), To(2), To(4), TO_HOST]));
    bench.sends(port(2), B, HOST, Ok(&[TO_HOST]));
}
