//! Is no frame lost, doubled or counted twice, by the million? What was sent, what the specification decides, what `stats`
//! says and what the interfaces themselves have counted must be the same numbers.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use vswitch_tests::{
    campaign::amount,
    frame::{BROADCAST, Frame, MULTICAST, UNKNOWN, link_local, to},
    hosts::until,
    lab::{HOST, HOST_MAC, OUTSIDE},
    observe::Pinned,
    require,
    require::{NAMESPACES, Need},
    vswitch::json,
};

use crate::{
    conservation_books::{Cables, Plan, differences, show},
    conservation_world::{NARROW_MTU, PORTS, World, XDP, mac},
    frames_cases::Random,
};

/// How long frames may lie in a queue.
const SETTLE: Duration = Duration::from_secs(5);
/// Frames of one sender.
const ROUND: usize = 500;

#[test]
fn every_frame_is_accounted_for() {
    require!(NAMESPACES);
    campaign(&World::new(), &loads(), amount(200_000, 10_000_000));
}

/// Rings that XDP fills, and that are emptied when there is nothing else to do, overflow.
#[test]
fn so_is_what_the_rings_have_no_room_for() {
    require!(NAMESPACES);
    require!(&[Need::Tool("unshare"), Need::Tool("chrt")]);
    let (world, mut loads) = (World::new(), loads());
    // Whoever fills the rings has the CPU before those who empty them.
    let pinned = Pinned::to_this_cpu();
    for (from, other) in [(XDP[0], XDP[1]), (XDP[1], XDP[0])] {
        world.empty_ring_at_leisure(other, &pinned);
        loads.insert(from, vec![to(mac(other)); ROUND]);
    }
    let lost = campaign(&world, &loads, 200_000);
    assert!(lost > 0, "no ring has overflown: this has shown nothing");
}

/// By sender, what it sends again and again.
type Loads = BTreeMap<&'static str, Vec<Frame>>;

fn loads() -> Loads {
    let mut random = Random(5);
    let mut load = |from| (from, (0..ROUND).map(|_| frame(&mut random, from)).collect());
    PORTS.into_iter().chain([HOST]).map(&mut load).collect()
}

/// Sends that many frames, and compares the books. Returns how many the kernel has lost behind the switch.
fn campaign(world: &World, loads: &Loads, frames: u64) -> u64 {
    let rounds = frames.div_ceil((ROUND * loads.len()) as u64);
    let mut plan = Plan::new();
    let before = Cables::read(world);

    // Each says hello, one after the other: after that no frame of theirs teaches the switch a place.
    for from in loads.keys() {
        let hello = [to(BROADCAST)];
        world.send(from, &hello, 1);
        plan.send(world, from, &hello, 1);
    }
    // Also by whoever has an XDP port's ring to empty.
    let learned = PORTS.len() + 1;
    until("all are known", SETTLE, || {
        json(&world.hosts.lab.switch, &world.hosts.switch.name, "show")[0]["fdb_used"] == learned
    });
    let taught = plan.model.clone();
    let started = Instant::now();
    thread::scope(|scope| {
        for (from, frames) in loads {
            scope.spawn(|| world.send(from, frames, rounds));
        }
    });
    let took = started.elapsed();
    for (from, frames) in loads {
        plan.send(world, from, frames, rounds);
    }
    assert!(plan.model == taught, "a frame taught the switch something: then their order would matter");

    println!("{} frames in {took:.1?}", rounds * (ROUND * loads.len()) as u64);
    // Some are still on their way.
    let deadline = Instant::now() + SETTLE;
    let (now, wrong) = loop {
        let now = Cables::read(world);
        let wrong = differences(world, &plan, &before, &now);
        if wrong.is_empty() || Instant::now() > deadline {
            break (now, wrong);
        }
        thread::sleep(SETTLE / 100);
    };
    let (drops, lost) = (show(world), now.lost(&before));
    println!("drops {drops:?}, {lost} lost by the kernel behind the switch");
    assert!(wrong.is_empty(), "difference:{}", wrong.concat());
    let untried: Vec<_> = REASONS.iter().filter(|reason| !drops.contains_key(**reason)).collect();
    assert!(untried.is_empty(), "not tried: {untried:?}");
    lost
}

/// What frames are to be dropped for.
const REASONS: [&str; 8] = [
    "invalid_source",
    "pause",
    "same_port",
    "isolated",
    "mtu_exceeded",
    "private",
    "reflected",
    "spoofed_source",
];

/// Whatever a station may send, and a switch must judge.
fn frame(random: &mut Random, from: &str) -> Frame {
    let names = || PORTS.into_iter().chain([HOST]);
    let dst = match random.below(40) {
        0 | 1 => to(BROADCAST),
        2 => to(MULTICAST),
        3 | 4 => to(UNKNOWN),
        5 => to(link_local(0xe)),
        6 => to(link_local(1)),
        7 => to(mac(from)),
        _ => to(mac(random.pick(&names().collect::<Vec<_>>()))),
    };
    let frame = match (random.below(16), from) {
        (0, _) if from != HOST => dst.from(MULTICAST),
        (1, _) if from != HOST => dst.from([0; 6]),
        // Others' addresses where they move nothing: reflections, and an address that is the host's for good.
        (2..=4, OUTSIDE) => dst.from(mac(random.pick(&["vepa", "private", "source", HOST]))),
        (2..=4, "private") => dst.from(HOST_MAC),
        _ => dst,
    };
    let longest = if from == "narrow" { NARROW_MTU as usize } else { 1500 } + 14;
    match random.below(8) {
        0 => frame.len(longest),
        1 => frame.len(128).vlan(7),
        _ => frame,
    }
}
