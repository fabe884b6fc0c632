//! Is what a CPU remembers forgotten on every CPU when it must be, and by nobody else's doing?

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use vswitch_ebpf::{
    abi::{FdbEntry, Stamp, fdb_flags},
    verdict::DropReason,
};
use vswitch_tests::{
    cases::Case,
    frame::{Mac, UNKNOWN},
    host_tables::{abi_fdb, key, settled},
    model::{Entry, Frame, Kind, Member, Mode, Model, Outcome, PLAIN, Port, Receiver, slot_of},
    require,
};

use crate::{
    STATION,
    fdb::{cpus, on},
    in_namespace, needs,
    object::{Fdb, Object, Program},
    run::XDP_PASS,
};

const HOST: Mac = [2, 0, 0, 0, 0, 0xff];

/// Stamps in which nothing ages and nothing is renewed while a test runs.
const LONG: Stamp = 400_000;

/// The slots that a frame was sent to, the host's 0 among them, or why it went nowhere.
type Fate = Result<BTreeSet<u16>, &'static str>;

/// A flow that is remembered, and what makes it fare otherwise.
struct Row {
    name: &'static str,
    from: Member,
    dst: Mac,
    before: fn(&mut Model),
    change: fn(&mut Model),
}

const ROW: Row = Row { name: "", from: Member::Port(2), dst: UNKNOWN, before: |_| (), change: |_| () };

/// Each table that userspace changes, and each kind of word in it.
const ROWS: [Row; 17] = [
    Row { name: "goes down", change: |model| port(model, 3).down = true, ..ROW },
    Row {
        name: "comes up",
        before: |model| {
            port(model, 3).down = true;
            learned(model, UNKNOWN).kind = Kind::Static;
        },
        change: |model| port(model, 3).down = false,
        ..ROW
    },
    Row {
        name: "isolated",
        before: |model| port(model, 2).isolated = true,
        change: |model| port(model, 3).isolated = true,
        ..ROW
    },
    Row {
        name: "hairpin",
        before: |model| learned(model, UNKNOWN).at = Member::Port(2),
        change: |model| port(model, 2).hairpin = true,
        ..ROW
    },
    Row {
        name: "learning",
        before: |model| {
            (port(model, 2).mode, port(model, 2).learning) = (Mode::Private, false);
            *learned(model, STATION) = Entry { at: Member::Port(4), kind: Kind::Static, seen: model.now };
        },
        change: |model| port(model, 2).learning = true,
        ..ROW
    },
    Row { name: "mode", change: |model| port(model, 3).mode = Mode::Private, ..ROW },
    Row { name: "mtu", change: |model| port(model, 3).mtu = 576, ..ROW },
    Row {
        name: "gone",
        change: |model| {
            model.ports.remove(&3);
        },
        ..ROW
    },
    Row { name: "host access", dst: HOST, change: |model| model.host_access = false, ..ROW },
    Row {
        name: "host access, of the host",
        from: Member::Host { uplink: 1 },
        change: |model| model.host_access = false,
        ..ROW
    },
    Row { name: "compat", dst: HOST, change: |model| model.compat = true, ..ROW },
    Row { name: "ageing", change: |model| model.ageing = 0, ..ROW },
    Row {
        name: "the wire",
        before: |model| port(model, 2).mode = Mode::Private,
        change: |model| port(model, 4).uplink = true,
        ..ROW
    },
    Row {
        name: "passthru",
        from: Member::Port(1),
        before: |model| {
            model.ports.retain(|&slot, _| slot < 3);
            learned(model, UNKNOWN).at = Member::Port(1);
        },
        change: |model| port(model, 2).mode = Mode::Passthru,
        ..ROW
    },
    Row {
        name: "a list of senders",
        before: |model| port(model, 4).mode = Mode::Source,
        change: |model| {
            model.sources.insert((4, STATION));
        },
        ..ROW
    },
    Row { name: "fdb set", change: |model| learned(model, UNKNOWN).at = Member::Port(4), ..ROW },
    Row {
        name: "fdb del",
        change: |model| {
            model.fdb.remove(&UNKNOWN);
        },
        ..ROW
    },
];

#[test]
fn what_userspace_changes_holds_on_every_cpu_when_it_says_so() {
    require!(&needs());
    in_namespace(|mut object| {
        let cpus = cpus();
        for (row, xdp) in ROWS.iter().flat_map(|row| [(row, false), (row, true)]) {
            let flow = Flow { xdp, ..Flow::to(row.from, row.dst) };
            let mut before = model(&object, row.from);
            (row.before)(&mut before);
            let mut after = before.clone();
            (row.change)(&mut after);
            let [old, new] = [&before, &after].map(|model| flow.specified(model));
            assert_ne!(old, new, "{}", row.name);

            set_up(&mut object, &before, xdp);
            flow.is(&mut object, &cpus, &old, row.name);
            object.quietly(|object| put(object, &after, xdp));
            flow.is(&mut object, &cpus, &old, &format!("{}, remembered", row.name));
            object.forget();
            flow.is(&mut object, &cpus, &new, &format!("{}, forgotten", row.name));
        }
    });
}

/// What a frame itself makes of the tables, on whichever CPU.
#[test]
fn what_a_frame_changes_holds_on_every_cpu() {
    require!(&needs());
    in_namespace(|mut object| {
        let from_three = Flow::of(UNKNOWN, Member::Port(3), STATION);
        let from_four = Flow::of(UNKNOWN, Member::Port(4), STATION);
        let from_host = Flow::of(UNKNOWN, Member::Host { uplink: 1 }, STATION);
        let borrowed = Flow::of(STATION, Member::Port(4), UNKNOWN);
        let flow = Flow::to(Member::Port(2), UNKNOWN);
        let as_it_was: fn(&mut Model) = |_| ();
        let down: fn(&mut Model) = |model| {
            port(model, 3).down = true;
            learned(model, UNKNOWN).kind = Kind::Static;
        };
        let cpus = cpus();
        for (what, before, speaks) in [
            ("moves", as_it_was, from_four),
            ("moves to the host", as_it_was, from_host),
            ("revives", down, from_three),
            ("the sender moves", as_it_was, borrowed),
        ] {
            for &cpu in &cpus {
                let mut model = model(&object, flow.from);
                before(&mut model);
                let old = flow.specified(&model);
                set_up(&mut object, &model, false);
                flow.is(&mut object, &cpus, &old, what);
                object.quietly(|object| object.set_fdb(&Fdb::new()));
                flow.is(&mut object, &cpus, &old, &format!("{what}, remembered"));
                object.quietly(|object| object.set_fdb(&abi_fdb(&model)));

                on(cpu, || drop(speaks.fate(&mut object)));
                model.send(speaks.from, &speaks.frame);
                let new = flow.specified(&model);
                // The sender is where it was before as soon as it speaks itself.
                assert_eq!(old == new, speaks == borrowed, "{what}");
                flow.is(&mut object, &cpus, &new, &format!("{what} on CPU {cpu}"));
                model.send(flow.from, &flow.frame);
                let place = |entry: &FdbEntry| (entry.slot(), entry.flags());
                let places = |fdb: &Fdb| fdb.values().map(place).collect::<Vec<_>>();
                assert_eq!(places(&settled(&object.fdb())), places(&abi_fdb(&model)), "{what}");
            }
        }
    });
}

/// The kernel says so by itself, and no generation.
#[test]
fn an_interface_that_is_gone_has_nothing_from_memory() {
    require!(&needs());
    in_namespace(|mut object| {
        let (cpus, model) = (cpus(), model(&object, Member::Port(2)));
        let flows = [false, true].map(|xdp| Flow { xdp, ..Flow::to(Member::Port(2), UNKNOWN) });
        set_up(&mut object, &model, true);
        for flow in flows {
            flow.is(&mut object, &cpus, &Ok([3].into()), "there");
        }
        let generation = object.generation();
        // A child of this thread is in this thread's namespace.
        let gone = Command::new("ip").args(["link", "delete", "port3"]).status().unwrap();
        assert!(gone.success());
        for flow in flows {
            flow.is(&mut object, &cpus, &Err("port_down"), "gone");
        }
        assert_eq!(object.generation(), generation);
    });
}

#[test]
fn a_longer_frame_than_is_remembered_is_decided_anew() {
    require!(&needs());
    in_namespace(|mut object| {
        let (cpus, mut model) = (cpus(), model(&object, Member::Port(2)));
        for isolated in [false, true] {
            for slot in [2, 3] {
                port(&mut model, slot).isolated = isolated;
            }
            for xdp in [false, true] {
                set_up(&mut object, &model, xdp);
                for len in [60, 1518, 1519, 60, 1519, 1519, 1518] {
                    let flow = Flow::to(Member::Port(2), UNKNOWN);
                    let flow = Flow { xdp, frame: Frame { len, ..flow.frame }, ..flow };
                    let fate = flow.specified(&model);
                    assert_eq!(fate.is_err(), isolated || len > 1518);
                    flow.is(&mut object, &cpus, &fate, &format!("length {len}"));
                }
            }
        }
    });
}

/// Who moves an address with each frame makes others' verdicts forgotten once.
#[test]
fn a_restless_address_costs_nobody_else_anything() {
    require!(&needs());
    in_namespace(|mut object| {
        let cpus = cpus();
        let model = model(&object, Member::Port(2));
        let flow = Flow::to(Member::Port(2), UNKNOWN);
        let restless = [3, 4].map(|slot| Flow::of(RESTLESS, Member::Port(slot), STATION));
        set_up(&mut object, &model, false);
        let before = object.generation();
        on(cpus[0], || {
            for n in 0..10_000 {
                object.run(Program::Ingress, slot_of(restless[n % 2].from), &restless[n % 2].frame, 0);
                object.run(Program::Ingress, slot_of(flow.from), &flow.frame, 0);
            }
        });
        assert_eq!(object.generation() - before, 1, "generations in 10,000 moves");
        object.quietly(|object| object.set_fdb(&Fdb::new()));
        flow.is(&mut object, &cpus[..1], &Ok([3].into()), "remembered all the while");

        // The same work on another CPU, with moves and without, in turn.
        set_up(&mut object, &model, false);
        let [mut peace, mut attack] = [Vec::new(), Vec::new()];
        for _ in 0..7 {
            peace.push(time_beside(&object, &cpus, flow, [restless[0]; 2]));
            attack.push(time_beside(&object, &cpus, flow, restless));
        }
        let least = |times: &[Duration]| times.iter().min().unwrap().as_nanos();
        let (peace, attack) = (least(&peace), least(&attack));
        println!(
            "a remembered frame beside one that moves nothing: {peace} ns, beside a move a frame: {attack} ns"
        );
    });
}

/// Nor does one that waits until it is taken for settled: its moves are as rare as renewals.
#[test]
fn an_address_moves_no_more_than_once_a_refresh_to_others_cost() {
    require!(&needs());
    in_namespace(|mut object| {
        let refresh = 50;
        let model = Model { refresh, ..model(&object, Member::Port(2)) };
        set_up(&mut object, &model, false);
        let restless = [3, 4].map(|slot| Flow::of(RESTLESS, Member::Port(slot), STATION));
        let (before, start) = (object.generation(), object.now());
        let mut settled = 0;
        while object.now() < start + 10 * refresh {
            let Flow { from, frame, .. } = restless[settled % 2];
            object.run(Program::Ingress, slot_of(from), &frame, 0);
            settled += usize::from(!object.fdb()[&key(RESTLESS)].has(fdb_flags::RESTLESS));
        }
        let raised = object.generation() - before;
        let most = (object.now() - start) / refresh + 1;
        assert!((2..=most).contains(&raised), "{raised} generations, {most} at most");
    });
}

const RESTLESS: Mac = [2, 0, 0, 0, 0, 0x66];

/// The time of a remembered frame while another CPU, if there is one, works on these two in turn.
fn time_beside(object: &Object, cpus: &[usize], flow: Flow, others: [Flow; 2]) -> Duration {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            on(cpus[cpus.len() - 1], || {
                for other in others.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                    object.run(Program::Ingress, slot_of(other.from), &other.frame, 0);
                }
            });
        });
        let mut time = Duration::ZERO;
        on(cpus[0], || time = object.repeat(Program::Ingress, slot_of(flow.from), &flow.frame, 0, 300_000).1);
        done.store(true, Ordering::Relaxed);
        time
    })
}

/// Frames of one kind, by tc alone or by XDP and then, if that leaves them, tc.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    from: Member,
    frame: Frame,
    xdp: bool,
}

impl Flow {
    fn of(src: Mac, from: Member, dst: Mac) -> Self {
        Self { from, frame: Frame { dst, src, len: 1000, gso: false, pause: false }, xdp: false }
    }

    fn to(from: Member, dst: Mac) -> Self {
        Self::of(STATION, from, dst)
    }

    /// What becomes of such frames on each CPU, each time.
    fn is(&self, object: &mut Object, cpus: &[usize], fate: &Fate, when: &str) {
        for (&cpu, time) in cpus.iter().flat_map(|cpu| (0..3).map(move |time| (cpu, time))) {
            on(cpu, || {
                let (xdp, now) = (self.xdp, self.fate(object));
                assert_eq!(&now, fate, "{when}: frame {time} on CPU {cpu} of {cpus:?}, XDP {xdp}");
            });
        }
    }

    fn fate(&self, object: &mut Object) -> Fate {
        let (slot, frame) = (slot_of(self.from), &self.frame);
        object.counted();
        match self.from {
            Member::Port(_) if self.xdp && object.run(Program::Xdp, slot, frame, 0).code != XDP_PASS => {}
            Member::Port(_) => drop(object.run(Program::Ingress, slot, frame, 0)),
            Member::Host { .. } => drop(object.run(Program::Egress, slot, frame, 0)),
        }
        let counted = object.counted();
        let is_why =
            |reason: &DropReason| counted.values().any(|counters| counters.drops[*reason as usize] > 0);
        match DropReason::ALL.into_iter().find(is_why) {
            Some(reason) => Err(reason.name()),
            None => Ok(counted
                .iter()
                .filter(|(_, counters)| counters.tx_packets > 0)
                .map(|(slot, _)| *slot)
                .collect()),
        }
    }

    fn specified(&self, model: &Model) -> Fate {
        let Outcome { receivers, dropped, .. } = model.clone().send(self.from, &self.frame);
        let slot = |receiver: &Receiver| match receiver {
            Receiver::Port(slot) => *slot,
            Receiver::Host { .. } | Receiver::HostHere => 0,
        };
        dropped.map_or_else(|| Ok(receivers.iter().map(slot).collect()), Err)
    }
}

/// An uplink and three ports; who sends is where it sends from, UNKNOWN in slot 3, and the host where it is.
fn model(object: &Object, from: Member) -> Model {
    let now = object.now();
    let ports = (1..=4).map(|slot| (slot, Port { uplink: slot == 1, ..PLAIN }));
    let learned = |at| Entry { at, kind: Kind::Learned, seen: now };
    let host = Entry { at: Member::Host { uplink: 1 }, kind: Kind::Local, seen: now };
    Model {
        fdb: BTreeMap::from([(STATION, learned(from)), (UNKNOWN, learned(Member::Port(3))), (HOST, host)]),
        ageing: LONG,
        refresh: LONG / 2,
        now,
        ..Model::plain(ports)
    }
}

fn port(model: &mut Model, slot: u16) -> &mut Port {
    model.ports.get_mut(&slot).unwrap()
}

fn learned(model: &mut Model, mac: Mac) -> &mut Entry {
    model.fdb.get_mut(&mac).unwrap()
}

fn set_up(object: &mut Object, model: &Model, xdp: bool) {
    let case = case(model, xdp);
    object.configure(&case.tables());
    object.set_fdb(&abi_fdb(model));
}

/// Makes the kernel's switch this one.
fn put(object: &mut Object, model: &Model, xdp: bool) {
    object.change(&case(model, xdp).tables());
    object.set_fdb(&abi_fdb(model));
}

fn case(model: &Model, xdp: bool) -> Case {
    let xdp = if xdp { model.ports.keys().copied().collect() } else { BTreeSet::new() };
    Case { model: model.clone(), xdp, peer: BTreeSet::new(), steps: Vec::new() }
}
