//! Level 2: do the programs in the kernel do what the specification says? `BPF_PROG_TEST_RUN`; needs root, no network.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a broken lab must stop the test")]

mod budget;
mod fdb;
mod memory;
mod object;
mod run;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use proptest::test_runner::TestCaseError;
use vswitch_ebpf::{
    abi::{PROBES, SWITCHED_MARK, Stamp},
    verdict::DropReason,
};
use vswitch_tests::{
    cases::{Case, Step, case},
    dice::dice,
    frame::{BROADCAST, MULTICAST, Mac, UNKNOWN},
    host_tables::ifindex,
    model::{Entry, Frame, Kind, Member, Model, PLAIN, Port, Receiver},
    require,
    require::Need,
    topo::Netns,
};

use object::{Object, Program, SLOTS};
use run::{Run, TC_DROP, TC_NEXT, TC_REDIRECT, XDP_PASS, XDP_REDIRECT};

/// One unit of a case's time, in stamps: two seconds. A run that takes half of it is void.
const UNIT: Stamp = 2000;
#[derive(Default)]
struct Seen {
    /// How often each program returned what.
    codes: BTreeMap<(Program, i32), u64>,
    /// The frames that floods cloned for each.
    clones: BTreeMap<Receiver, u64>,
}

#[test]
fn the_programs_are_the_model() {
    require!(&needs());
    in_namespace(|object| {
        let (object, seen) = (RefCell::new(object), RefCell::new(Seen::default()));
        let [same, fresh] = dice(2200, 800, "kernel");
        let many = same.cases() >= 1000;
        for dice in [same, fresh] {
            dice.throw(&case(), |case| {
                in_lock_step(&mut object.borrow_mut(), &case.slowed(UNIT), &mut seen.borrow_mut())
            });
        }
        let Seen { codes, clones } = seen.into_inner();
        println!("codes {codes:?}, clones {clones:?}");
        // Fewer cases say less of the generator, and as much of the programs in each.
        if many {
            let both = |slot| [Receiver::Port(slot), Receiver::Host { uplink: slot }];
            let rare = SLOTS.flat_map(both).filter(|receiver| !clones.contains_key(receiver));
            assert_eq!(rare.collect::<Vec<_>>(), [], "everybody had clones");
            assert_eq!(codes.len(), 9, "each program ended in each of its ways: {codes:?}");
        }
        assert_eq!(
            moved_by_interface(),
            clones,
            "frames that left by each port's interface, and that its stack had"
        );
    });
}

/// A frame that the switch sends out of an uplink passes the uplink's own hook once more, on its way. A station cannot pretend
/// that its frames are such.
#[test]
fn a_switched_frame_passes_an_uplink_unseen_and_loses_its_mark() {
    require!(&needs());
    in_namespace(|mut object| {
        let port = |slot| (slot, Port { uplink: slot == 1, ..PLAIN });
        let model = Model::plain((1..=3).map(port));
        let case = Case { model, xdp: BTreeSet::new(), peer: BTreeSet::new(), steps: Vec::new() };
        object.configure(&case.slowed(UNIT).tables());
        let frame = Frame { dst: UNKNOWN, src: STATION, len: 60, gso: false, pause: false };
        for program in [Program::Ingress, Program::Egress] {
            let ran = object.run(program, 1, &frame, SWITCHED_MARK);
            assert_eq!((ran.code, ran.mark), (TC_NEXT, 0), "{program:?}");
        }
        assert!(object.counted().is_empty() && object.fdb().is_empty());
        object.run(Program::Ingress, 2, &frame, SWITCHED_MARK);
        let counted = object.counted();
        assert_eq!((counted[&2].forwarded, counted[&1].tx_packets, counted[&3].tx_packets), (1, 1, 1));
        assert_eq!(object.fdb().len(), 1, "its sender is learned");
    });
}

/// Otherwise the uplink's hook would take a clone for a frame of the host, and switch it a second time.
#[test]
fn clones_for_an_uplink_pass_its_own_hook_unseen() {
    require!(&needs());
    in_namespace(|mut object| {
        let uplinks = [1, 2];
        for slot in uplinks {
            object.attach_egress(&format!("port{slot}"));
        }
        let host = Member::Host { uplink: 1 };
        let port = |slot| (slot, Port { uplink: uplinks.contains(&slot), ..PLAIN });
        let senders = [host, Member::Port(1), Member::Port(2), Member::Port(3), Member::Port(4)];
        let frames = [BROADCAST, MULTICAST, UNKNOWN].map(|dst| Frame {
            dst,
            src: STATION,
            len: 60,
            gso: false,
            pause: false,
        });
        let steps =
            senders.iter().flat_map(|&from| frames.map(|frame| Step { change: None, after: 1, from, frame }));
        let model = Model::plain((1..=4).map(port));
        let case = Case { model, xdp: BTreeSet::new(), peer: BTreeSet::new(), steps: steps.collect() };
        in_lock_step(&mut object, &case.slowed(UNIT), &mut Seen::default())
            .unwrap_or_else(|failure| panic!("{failure}"));
    });
}

/// The stack behind an uplink is offered a copy of its own, between two ports. (Linux 6.1's verifier once took the code for
/// dead that clones for the one before.)
#[test]
fn whoever_comes_before_an_uplinks_stack_has_a_clone() {
    require!(&needs());
    in_namespace(|mut object| {
        let port = |slot| (slot, Port { uplink: slot % 2 == 0, ..PLAIN });
        let model = Model::plain((1..=4).map(port));
        let frame = Frame { dst: BROADCAST, src: STATION, len: 60, gso: false, pause: false };
        let step = Step { change: None, after: 1, from: Member::Port(1), frame };
        let case = Case { model, xdp: BTreeSet::new(), peer: BTreeSet::new(), steps: vec![step] };
        let mut seen = Seen::default();
        in_lock_step(&mut object, &case.slowed(UNIT), &mut seen)
            .unwrap_or_else(|failure| panic!("{failure}"));
        let stack = |uplink| Receiver::Host { uplink };
        // The frame itself would have gone to port 4.
        let cloned = [stack(2), Receiver::Port(2), Receiver::Port(3), stack(4)];
        // Each frame is sent three times.
        assert_eq!(seen.clones, cloned.map(|receiver| (receiver, 3)).into());
        assert_eq!(moved_by_interface(), seen.clones);
    });
}

/// The kernel empties a slot of the device maps when its interface goes; XDP leaves what is left to tc.
#[test]
fn what_is_for_an_interface_that_is_gone_is_counted_once_and_goes_nowhere() {
    require!(&needs());
    in_namespace(|mut object| {
        // No stamp is due while the test runs, which XDP would leave to tc.
        let model = Model {
            ageing: 1 << 20,
            refresh: 1 << 20,
            fdb: BTreeMap::from([(UNKNOWN, Entry { at: Member::Port(2), kind: Kind::Static, seen: 0 })]),
            ..Model::plain((1..=2).map(|slot| (slot, PLAIN)))
        };
        let case = Case { model, xdp: BTreeSet::from([1, 2]), peer: BTreeSet::new(), steps: Vec::new() };
        let tables = case.tables();
        object.configure(&tables);
        object.set_fdb(&tables.fdb.borrow());
        let frame = Frame { dst: UNKNOWN, src: STATION, len: 60, gso: false, pause: false };
        // XDP leaves what teaches something to tc.
        assert_eq!(object.run(Program::Xdp, 1, &frame, 0).code, XDP_PASS);
        assert!(object.counted().is_empty() && object.fdb().len() == 1);
        // Decided, then remembered, by either.
        for (program, code) in [(Program::Ingress, TC_REDIRECT), (Program::Xdp, XDP_REDIRECT)] {
            for _ in 0..3 {
                assert_eq!(object.run(program, 1, &frame, 0).code, code);
                assert_eq!(object.counted().len(), 2);
            }
        }
        // A child of this thread is in this thread's namespace.
        let gone = Command::new("ip").args(["link", "delete", "port2"]).status().unwrap();
        assert!(gone.success());
        assert_eq!(object.run(Program::Xdp, 1, &frame, 0).code, XDP_PASS);
        assert!(object.counted().is_empty());
        assert_eq!(object.run(Program::Ingress, 1, &frame, 0).code, TC_DROP);
        let counted = object.counted();
        let drops = counted.values().map(|counters| counters.drops[DropReason::PortDown as usize]);
        assert_eq!(drops.collect::<Vec<_>>(), [1], "{counted:?}");
    });
}

const STATION: Mac = [2, 0, 0, 0, 0, 1];

fn needs() -> Vec<Need> {
    let object = (!object::path().is_file()).then_some(Need::FileIn(object::VARIABLE));
    [Need::Root, Need::Btf, Need::Tool("ip"), Need::Tool("nsenter")].into_iter().chain(object).collect()
}

/// Runs a test on the object, whose interfaces are where look-ups come at last.
fn in_namespace(test: impl FnOnce(Object) + Send) {
    in_namespace_at(PROBES - 1, test);
}

fn in_namespace_at(probe: u32, test: impl FnOnce(Object) + Send) {
    let netns = Netns::new("kernel");
    // Not dummies: kernels without them exist, and the switch is for veths anyway.
    netns.ip_all(SLOTS.flat_map(|slot| {
        let index = ifindex(slot);
        [
            format!("link add port{slot} index {index} type veth peer name far{slot}"),
            format!("link set port{slot} up"),
            format!("link set far{slot} up"),
        ]
    }));
    netns.run(|| test(Object::load(probe)));
}

fn in_lock_step(object: &mut Object, case: &Case, seen: &mut Seen) -> Result<(), TestCaseError> {
    let mut tables = case.tables();
    let mut model = case.model.clone();
    object.configure(&tables);
    for (n, &Step { change, after, from, frame }) in case.steps.iter().enumerate() {
        if let Some(change) = change {
            change.make(&mut model);
            tables = case.tables_of(&model);
            object.change(&tables);
        }
        if !model.has(from) {
            continue;
        }
        model.now += after;
        // The kernel refuses to test with less than an Ethernet header.
        if frame.len < 14 {
            continue;
        }
        tables.follow(&model);
        let programs: &[Program] = match from {
            Member::Port(_) => &[Program::Xdp, Program::Ingress],
            Member::Host { .. } => &[Program::Egress],
        };
        let mut next = model.clone();
        for &program in programs {
            let run = Run::new(&model, &tables, program, from, frame);
            let code = run.compare(object, &mut seen.clones);
            // The same again is remembered, and then answered from memory.
            let code =
                code.and_then(|(code, start)| run.again(object, start, 2, &mut seen.clones).map(|()| code));
            let code = code.map_err(|difference| {
                TestCaseError::fail(format!(
                    "frame {n}, {:?}, by {program:?}, at\n{model:?}\n{difference}\nspecified {:?}",
                    case.steps[n], run.outcome
                ))
            })?;
            *seen.codes.entry((program, code)).or_default() += 1;
            next = run.after;
        }
        model = next;
    }
    Ok(())
}

/// How many frames each port's interface has sent, and how many the stack had from it: it knows no protocol of ours,
/// and counts them as dropped.
fn moved_by_interface() -> BTreeMap<Receiver, u64> {
    // Of the thread's namespace; /proc/net is that of the process.
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let rows = table.lines().filter_map(|line| line.trim().strip_prefix("port")?.split_once(':'));
    let all = rows.flat_map(|(slot, numbers)| {
        let numbers: Vec<u64> = numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let slot = slot.parse().unwrap();
        [(Receiver::Host { uplink: slot }, numbers[3]), (Receiver::Port(slot), numbers[9])]
    });
    all.filter(|(_, count)| *count > 0).collect()
}
