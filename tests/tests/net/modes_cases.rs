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

/// Two stations of each mode, wherever they are, so that every round has all pairs.
pub(crate) fn roles(random: &mut Random, lab: &Lab) -> Roles {
    let mut modes: Vec<_> = [Mode::Bridge, Mode::Vepa, Mode::Private, Mode::Source]
        .into_iter()
        .flat_map(|mode| [mode; 2])
        .collect();
    random.shuffle(&mut modes);
    STATIONS.into_iter().zip(modes).map(|(station, mode)| (station, role(random, lab, mode))).collect()
}

fn role(random: &mut Random, lab: &Lab, mode: Mode) -> Role {
    if mode != Mode::Source {
        return Role::of(mode);
    }
    let senders = (0..random.below(5)).map(|_| match random.below(8) {
        0 | 1 => lab.mac(OUTSIDE),
        2 => NOMAD,
        3 => lab.mac(HOST),
        _ => lab.mac(random.pick(&STATIONS)),
    });
    Role { mode, sources: senders.collect(), nodst: random.below(3) == 0 }
}

/// From everyone to everyone, and then some, in any order.
pub(crate) fn frames(random: &mut Random, lab: &Lab) -> Vec<(&'static str, Frame)> {
    let members = STATIONS.into_iter().chain([OUTSIDE, HOST]).collect::<Vec<_>>();
    frames_of(random, lab, &members, 6)
}

/// As [`frames`], of these members, with so many for each under an address that is not its own.
pub(crate) fn frames_of(
    random: &mut Random,
    lab: &Lab,
    members: &[&'static str],
    spoofed: usize,
) -> Vec<(&'static str, Frame)> {
    let mut destinations = members.iter().map(|name| Addr::from(*name)).collect::<Vec<_>>();
    destinations.extend([UNKNOWN, NOMAD, BROADCAST, MULTICAST, IPV6_ALL_NODES].map(Addr::from));
    let mut frames = Vec::new();
    for from in members {
        for dst in &destinations {
            frames.push((*from, vary(random, to(dst.clone()))));
        }
        let reserved = to(link_local(u8::try_from(random.below(16)).expect("below 16")));
        frames.push((*from, vary(random, reserved)));
        for _ in 0..spoofed {
            let dst = destinations[random.below(destinations.len())].clone();
            let source = source(random, lab, members, from);
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
    let frame = match random.below(8) {
        0 => frame.vlan(7),
        1 => frame.tci(0xe000),
        _ => frame,
    };
    let frame = if random.below(12) == 0 { frame.ethertype(PAUSE) } else { frame };
    // The tag comes on top.
    let tag = if frame.tci.is_some() { 4 } else { 0 };
    match random.below(8) {
        0 => frame.len(1514 + tag),
        1 => frame.len(600 + tag),
        _ => frame.len(60 + tag),
    }
}
