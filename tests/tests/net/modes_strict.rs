//! Without `--macvlan-compat`, does vswitch differ from the kernel's macvlan by the written list alone?

use std::collections::BTreeSet;

use vswitch_tests::{
    fabric::Mode,
    frame::{BROADCAST, Frame, MULTICAST, Mac, UNKNOWN, link_local, to},
    lab::{HOST, OUTSIDE},
    require,
    require::NAMESPACES,
    vswitch::Vswitch,
};

use crate::{
    modes_cases::{PAUSE, Role},
    modes_differences::{Case, DIFFERENCES, LISTED, STATIONS, To, macvlan, vswitch},
    modes_worlds::Worlds,
};

/// As many as between two introductions.
const BATCH: usize = 200;

#[test]
fn strictly_the_differences_are_those_on_the_list() {
    require!(NAMESPACES);
    let mut hit = BTreeSet::new();
    for reflects in [true, false] {
        let mut worlds = Worlds::new(reflects, &STATIONS.map(|(name, _)| name), Vswitch::new(), "");
        let sources = LISTED.map(|name| worlds.macvlan.lab.mac(name)).to_vec();
        let role = |name, mode| match mode {
            Mode::Source if name == "s1" => Role { mode, sources: sources.clone(), nodst: false },
            _ => Role::of(mode),
        };
        worlds.change_to(&STATIONS.into_iter().map(|(name, mode)| (name, role(name, mode))).collect());
        let cases = cases(reflects);
        let mut wrong = Vec::new();
        let mut different = 0;
        for batch in cases.chunks(BATCH) {
            let frames = batch.iter().map(|(case, frame)| (case.from, frame.clone())).collect::<Vec<_>>();
            for ((case, _), (from, frame, theirs, ours)) in batch.iter().zip(worlds.exchange(&frames)) {
                let expected = [macvlan(case), vswitch(case)].map(|cell| cell.join(" "));
                if theirs != expected[0].as_str() || ours != expected[1].as_str() {
                    wrong.push(format!(
                        "\n  {from} sends {frame}\n    macvlan {theirs} ({}); vswitch {ours} ({})",
                        expected[0], expected[1]
                    ));
                } else if theirs != ours {
                    different += 1;
                    match DIFFERENCES.iter().find(|row| (row.applies)(case)) {
                        Some(row) => _ = hit.insert(row.when),
                        None => wrong.push(format!(
                            "\n  no difference is listed: {from} sends {frame}: {theirs}; {ours}"
                        )),
                    }
                }
            }
        }
        let shown = wrong.iter().take(20).map(String::as_str).collect::<String>();
        assert_eq!(wrong.len(), 0, "reflects {reflects}, of {} frames:{shown}", cases.len());
        println!("reflects {reflects}: {} frames, {different} different as listed", cases.len());
    }
    let missed = DIFFERENCES.iter().filter(|row| !hit.contains(row.when));
    let missed = missed.map(|row| format!("{} ({})", row.when, row.why)).collect::<Vec<_>>();
    assert_eq!(missed, [""; 0], "rows of the list that nothing shows any more");
}

/// Everyone to everyone, of every kind.
fn cases(reflects: bool) -> Vec<(Case, Frame)> {
    let members = STATIONS.map(|(name, _)| name).into_iter().chain([OUTSIDE, HOST]).collect::<Vec<_>>();
    let groups = [BROADCAST, MULTICAST].into_iter().chain((0..16).map(link_local)).map(To::Group);
    let all = members.iter().copied().map(To::One).chain([To::Unknown]).chain(groups).collect::<Vec<_>>();
    let mut cases = Vec::new();
    for from in members {
        for dst in &all {
            let frame = match *dst {
                To::One(name) => to(name),
                To::Unknown => to(UNKNOWN),
                To::Group(mac) => to(mac),
            };
            let plain = Case { reflects, from, to: *dst, bad: false, pause: false };
            cases.push((plain, frame.clone()));
            cases.push((Case { pause: true, ..plain }, frame.clone().ethertype(PAUSE)));
            for source in BAD {
                cases.push((Case { bad: true, ..plain }, frame.clone().from(source)));
            }
        }
    }
    cases
}

const BAD: [Mac; 2] = [[0; 6], MULTICAST];
