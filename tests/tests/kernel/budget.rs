//! What do the programs cost? Verified instructions, which may not grow by more than a tenth, and nanoseconds, which are told.

use std::collections::BTreeSet;

use vswitch_ebpf::abi::{FdbEntry, Stamp, fdb_flags};
use vswitch_tests::{
    cases::Case,
    frame::{Mac, UNKNOWN},
    host_tables::key,
    model::{Frame, Model, PLAIN},
    require,
};

use crate::{
    STATION, in_namespace_at, needs,
    object::{Fdb, Program},
    run::{TC_REDIRECT, XDP_REDIRECT},
};

/// Lines of kernel version, program and verified instructions.
const BUDGET: &str = include_str!("budget.txt");

/// The verifier's count does not depend on what else the machine does, and is near to how complex a program is.
#[test]
fn no_program_outgrows_its_budget() {
    require!(&needs());
    let kernel = kernel();
    in_namespace_at(0, |object| {
        let programs = [Program::Xdp, Program::Ingress, Program::Egress];
        let verified = programs.map(|program| (program.name(), object.verified(program)));
        for (name, verified) in verified {
            println!("{kernel} {name} {verified}");
        }
        for (name, verified) in verified {
            let (budget, exact) = budget(&kernel, name);
            // Of another kernel's verifier it tells no more than how much would be far too much.
            let allowed = if exact { budget * 9 / 10..=budget * 11 / 10 } else { 0..=budget * 2 };
            assert!(
                allowed.contains(&verified),
                "{name}: the verifier looks at {verified} instructions, {budget} are in its budget: if it has shrunk, so must \
                 that (budget.txt)"
            );
        }
    });
}

/// A program's budget, and whether it is this kernel's. If none is known, the newest kernel's: the first.
fn budget(kernel: &str, program: &str) -> (u32, bool) {
    let lines = BUDGET.lines().filter(|line| !line.starts_with('#'));
    let mut budgets = lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
    budgets.retain(|words| words[1] == program);
    budgets.sort_by_key(|words| words[0] != kernel);
    (budgets[0][2].parse().unwrap(), budgets[0][0] == kernel)
}

/// A known unicast between two ports, the shortest way through each program. Told and not asserted: the time is noisy.
#[test]
fn the_time_of_a_decision() {
    require!(&needs());
    in_namespace_at(0, |mut object| {
        let model = Model::plain((1..=2).map(|slot| (slot, PLAIN)));
        let frame = Frame { dst: UNKNOWN, src: STATION, len: 60, gso: false, pause: false };
        for (program, peer, code) in [
            (Program::Ingress, BTreeSet::new(), TC_REDIRECT),
            (Program::Ingress, BTreeSet::from([1, 2]), TC_REDIRECT),
            (Program::Xdp, BTreeSet::new(), XDP_REDIRECT),
        ] {
            let xdp = if program == Program::Xdp { BTreeSet::from([1, 2]) } else { BTreeSet::new() };
            let how = if peer.is_empty() { "redirect" } else { "redirect_peer" };
            let case = Case { model: model.clone(), xdp, peer, steps: Vec::new() };
            object.configure(&case.slowed(crate::UNIT).tables());
            // What follows from an address that has just moved is decided each time.
            for (flags, which) in [(fdb_flags::STATIC, "remembered"), (fdb_flags::RESTLESS, "decided")] {
                let known = known(object.now(), flags);
                object.set_fdb(&known);
                let times = (0..9).map(|_| {
                    let (ran, time) = object.repeat(program, 1, &frame, 0, 300_000);
                    assert_eq!(ran.code, code);
                    time.as_nanos()
                });
                let (least, most) =
                    times.fold((u128::MAX, 0), |(least, most), ns| (least.min(ns), most.max(ns)));
                println!("{} by {how}, {which}: {least} ns a frame at least, {most} at most", program.name());
            }
        }
    });
}

/// Where both stations are, and what else is known of the receiver.
fn known(now: Stamp, flags: u8) -> Fdb {
    let at = |mac: Mac, slot| (key(mac), FdbEntry::new(slot, if slot == 2 { flags } else { 0 }, now));
    [at(STATION, 1), at(UNKNOWN, 2)].into()
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}
