//! What do the programs cost? Verified instructions, which may not grow by more than a tenth, and nanoseconds, which are told.

use std::collections::BTreeSet;

use vswitch_ebpf::abi::{FdbEntry, Stamp};
use vswitch_tests::{
    cases::{Case, PLAIN},
    frame::{Mac, UNKNOWN},
    host_tables::key,
    model::{Frame, Model},
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
        for program in [Program::Xdp, Program::Ingress, Program::Egress] {
            let (name, verified) = (program.name(), object.verified(program));
            println!("{kernel} {name} {verified}");
            let budget = BUDGET.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some(kernel.as_str()) && words.next() == Some(name))
                    .then(|| words.next().unwrap().parse::<u32>().unwrap())
            });
            match budget {
                Some(budget) => assert!(
                    verified <= budget + budget / 10,
                    "{name}: the verifier looks at {verified} instructions, {budget} are in its budget (budget.txt)"
                ),
                None => println!("budget.txt says nothing of {name} on kernel {kernel}"),
            }
        }
    });
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
            let known = known(object.now());
            object.set_fdb(&known);
            let times = (0..9).map(|_| {
                let (ran, time) = object.repeat(program, 1, &frame, 0, 300_000);
                assert_eq!(ran.code, code);
                time.as_nanos()
            });
            let (least, most) = times.fold((u128::MAX, 0), |(least, most), ns| (least.min(ns), most.max(ns)));
            println!("{} by {how}: {least} ns a frame at least, {most} at most", program.name());
        }
    });
}

fn known(now: Stamp) -> Fdb {
    let at = |mac: Mac, slot| (key(mac), FdbEntry::new(slot, 0, now));
    [at(STATION, 1), at(UNKNOWN, 2)].into()
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}
