//! Which modes, source lists and frames are tried against the kernel's macvlan? A seeded generator, as for the bridge.

use std::collections::BTreeMap;

use vswitch_tests::{
    fabric::Mode,
    frame::{Addr, BROADCAST, Frame, MULTICAST, Mac, UNKNOWN, link_local, to},
    lab::{HOST, Lab, OUTSIDE},
};

use crate::frames_cases::Random;

/// Stations with a port, or with a macvlan child.
pub(crate) const STATIONS: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];
/// An address that turns up behind one and another.
pub(crate) const NOMAD: Mac = [0x02, 0, 0, 0, 5, 0];
/// An address that only the host ever has besides its own.
pub(crate) const ALIAS: Mac = [0x02, 0, 0, 0, 4, 0];
/// 802.3x: no macvlan child has it from another.
pub(crate) const PAUSE: u16 = 0x8808;
/// How many members each member sends to in a round, and how many frames under an address that is not its own.
const EACH_TO: usize = 12;
const SPOOFED: usize = 6;
const IPV6_ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// What a port or a child is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) mode: Mode,
    /// In source mode, whom it hears.
    pub(crate) sources: Vec<Mac>,
    /// And whether nobody else hears them.
    pub(crate) nodst: bool,
}

pub(crate) type Roles = BTreeMap<&'static str, Role>;

impl Role {
    pub(crate) const fn of(mode: Mode) -> Self {
        Self { mode, sources: Vec::new(), nodst: false }
    }
}

/// The modes that may be changed into one another.
pub(crate) const MODES: [Mode; 4] = [Mode::Bridge, Mode::Vepa, Mode::Private, Mode::Source];

/// As many stations of each mode, wherever they are, so that every round has all pairs.
pub(crate) fn roles(random: &mut Random, lab: &Lab, stations: &[&'static str]) -> Roles {
    let mut modes = stations.iter().zip(MODES.into_iter().cycle()).map(|(_, mode)| mode).collect::<Vec<_>>();
    random.shuffle(&mut modes);
    stations.iter().zip(modes).map(|(station, mode)| (*station, role(random, lab, station, mode))).collect()
}

/// With a source list, if it is of that mode.
pub(crate) fn role(random: &mut Random, lab: &Lab, station: &str, mode: Mode) -> Role {
    if mode != Mode::Source {
        return Role::of(mode);
    }
    let senders = (0..random.below(5)).map(|_| match random.below(8) {
        0 | 1 => lab.mac(OUTSIDE),
        2 => NOMAD,
        3 => lab.mac(HOST),
        _ => lab.mac(random.pick(&STATIONS)),
    });
    // See `a_child_that_lists_itself`.
    let senders = senders.filter(|mac| *mac != lab.mac(station));
    Role { mode, sources: senders.collect(), nodst: random.below(3) == 0 }
}

/// From everyone to everyone, and then some, in any order. Those who are down do not send.
pub(crate) fn frames(
    random: &mut Random,
    lab: &Lab,
    stations: &[&'static str],
    down: &[&'static str],
) -> Vec<(&'static str, Frame)> {
    let members = stations.iter().copied().chain([OUTSIDE, HOST]).collect::<Vec<_>>();
    let senders = members.iter().filter(|name| !down.contains(name)).copied().collect::<Vec<_>>();
    let groups = [UNKNOWN, NOMAD, BROADCAST, MULTICAST, IPV6_ALL_NODES];
    let mut frames = Vec::new();
    for from in &senders {
        // Of very many, not every pair in every round.
        let mut known = members.clone();
        random.shuffle(&mut known);
        known.truncate(EACH_TO);
        let known = known.into_iter().map(Addr::from);
        let destinations = known.chain(groups.map(Addr::from)).collect::<Vec<_>>();
        for dst in &destinations {
            frames.push((*from, vary(random, to(dst.clone()))));
        }
        let reserved = to(link_local(u8::try_from(random.below(16)).expect("below 16")));
        frames.push((*from, vary(random, reserved)));
        for _ in 0..SPOOFED {
            let dst = destinations[random.below(destinations.len())].clone();
            let source = source(random, lab, &members, from);
            frames.push((*from, vary(random, to(dst).from(source))));
        }
    }
    random.shuffle(&mut frames);
    frames
}

/// Somebody else's address, or nobody's.
fn source(random: &mut Random, lab: &Lab, members: &[&'static str], from: &str) -> Mac {
    match random.below(8) {
        0 => BROADCAST,
        1 => MULTICAST,
        2 => [0; 6],
        3 => NOMAD,
        4 if from == HOST => ALIAS,
        4 => UNKNOWN,
        _ => lab.mac(random.pick(members)),
    }
}

fn vary(random: &mut Random, frame: Frame) -> Frame {
    let frame = match random.below(12) {
        0 => frame.vlan(7),
        1 => frame.tci(0xe000),
        // Never tagged; and the kernel knows it by what a socket says of it, which is the tag.
        2 => frame.ethertype(PAUSE),
        _ => frame,
    };
    // The tag comes on top.
    let tag = if frame.tci.is_some() { 4 } else { 0 };
    match random.below(8) {
        0 => frame.len(1514 + tag),
        1 => frame.len(600 + tag),
        _ => frame.len(60 + tag),
    }
}
