//! Which frames and which settings are tried? A seeded generator, so that a failure comes back with its seed.

use std::collections::BTreeSet;

use vswitch_tests::{
    fabric::Knob,
    frame::{Addr, BROADCAST, Frame, MULTICAST, Mac, UNKNOWN, link_local, to},
    lab::{HOST, Lab, OUTSIDE},
};

/// Ports of the labs here, the host apart.
pub(crate) const PORTS: [&str; 4] = ["a", "b", "c", OUTSIDE];
/// Has a smaller MTU than the others.
pub(crate) const NARROW: &str = "c";
pub(crate) const NARROW_MTU: u32 = 1000;

/// An address that only the host ever has besides its own.
pub(crate) const HOST_ALIAS: Mac = [0x02, 0, 0, 0, 4, 0];
/// Addresses that turn up behind one port and another.
const NOMADS: [Mac; 3] = [[0x02, 0, 0, 0, 5, 0], [0x02, 0, 0, 0, 5, 1], [0x02, 0, 0, 0, 5, 2]];
/// Addresses that have or will have a static entry.
const RESIDENTS: [Mac; 2] = [[0x02, 0, 0, 0, 6, 0], [0x02, 0, 0, 0, 6, 1]];
const IPV6_ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// What holds while a round of frames is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// Settings that are not the default.
    pub(crate) changed: BTreeSet<(&'static str, Word)>,
    /// Entries that are added before the round.
    pub(crate) statics: Vec<(Mac, &'static str)>,
    /// Whether what was learned before is forgotten.
    pub(crate) flush: bool,
}

/// A `Knob`, by its index in `Knob::ALL`, so that it has an order.
pub(crate) type Word = usize;

impl Setup {
    pub(crate) fn is(&self, port: &str, knob: Knob) -> bool {
        let on_by_default = !matches!(knob, Knob::Hairpin | Knob::Isolated);
        let word = Knob::ALL.iter().position(|one| *one == knob).expect("ALL has all");
        self.changed.contains(&(port_name(port), word)) != on_by_default
    }

    fn with(changed: impl IntoIterator<Item = (&'static str, Knob)>) -> Self {
        let word = |knob| Knob::ALL.iter().position(|one| *one == knob).expect("ALL has all");
        Self {
            changed: changed.into_iter().map(|(port, knob)| (port, word(knob))).collect(),
            ..Self::default()
        }
    }
}

fn port_name(name: &str) -> &'static str {
    PORTS.into_iter().find(|port| *port == name).unwrap_or_else(|| panic!("no port {name}"))
}

/// Every setting at every port, for itself and in the pairs where two matter.
pub(crate) fn systematic() -> Vec<Setup> {
    let single = PORTS.iter().flat_map(|port| Knob::ALL.map(|knob| Setup::with([(*port, knob)])));
    let pairs = [("a", "b"), ("b", OUTSIDE), (NARROW, OUTSIDE)].into_iter().flat_map(|(one, other)| {
        let isolated = [(one, Knob::Isolated), (other, Knob::Isolated)];
        [Setup::with(isolated), Setup::with(isolated.into_iter().chain([(one, Knob::Hairpin)]))]
    });
    let everywhere = Knob::ALL.map(|knob| Setup::with(PORTS.map(|port| (port, knob))));
    let statics =
        PORTS.map(|port| Setup { statics: vec![(RESIDENTS[0], port)], flush: true, ..Setup::default() });
    [Setup::default()].into_iter().chain(single).chain(pairs).chain(everywhere).chain(statics).collect()
}

/// Whatever comes.
pub(crate) fn random(random: &mut Random, rounds: usize) -> Vec<Setup> {
    let setup = |_| {
        let all = PORTS.iter().flat_map(|port| (0..Knob::ALL.len()).map(move |word| (*port, word)));
        Setup {
            changed: all.filter(|_| random.below(4) == 0).collect(),
            statics: (0..random.below(2)).map(|_| (random.pick(&RESIDENTS), random.pick(&PORTS))).collect(),
            flush: random.below(4) == 0,
        }
    };
    (0..rounds).map(setup).collect()
}

/// The frames of a round: from everyone to everyone, and then some, in any order.
pub(crate) fn frames(random: &mut Random, lab: &Lab) -> Vec<(&'static str, Frame)> {
    let senders = PORTS.into_iter().chain([HOST]).collect::<Vec<_>>();
    let mut destinations = senders.iter().map(|name| Addr::from(*name)).collect::<Vec<_>>();
    let ports = lab.downlinks().map(|member| member.port_mac);
    let others = [UNKNOWN, HOST_ALIAS, BROADCAST, MULTICAST, IPV6_ALL_NODES];
    let macs = others.into_iter().chain(NOMADS).chain(RESIDENTS).chain(ports).chain((0..16).map(link_local));
    destinations.extend(macs.map(Addr::from));
    let mut frames = Vec::new();
    for from in &senders {
        for dst in &destinations {
            frames.push((*from, vary(random, lab, from, to(dst.clone()))));
        }
        // The addresses that can be told apart from a station's are not enough of all those frames.
        for _ in 0..12 {
            let dst = destinations[random.below(destinations.len())].clone();
            let frame = to(dst).from(source(random, lab, from));
            frames.push((*from, vary(random, lab, from, frame)));
        }
    }
    random.shuffle(&mut frames);
    frames
}

/// Somebody else's address, or nobody's. The host has an alias instead: see the differences.
fn source(random: &mut Random, lab: &Lab, from: &str) -> Mac {
    match random.below(10) {
        0 => BROADCAST,
        1 => MULTICAST,
        2 => [0; 6],
        _ if from == HOST => HOST_ALIAS,
        3 => lab.mac(HOST),
        4 | 5 => lab.mac(random.pick(&PORTS)),
        6 => random.pick(&RESIDENTS),
        _ => random.pick(&NOMADS),
    }
}

/// Length without the tag, which the kernel keeps beside the frame and does not count.
pub(crate) fn untagged_len(frame: &Frame) -> u32 {
    let len = if frame.tci.is_some() { frame.len - 4 } else { frame.len };
    u32::try_from(len).expect("a frame's length")
}

fn vary(random: &mut Random, lab: &Lab, from: &str, frame: Frame) -> Frame {
    let mtu = |name: &str| lab.find(name).map_or(NARROW_MTU, |member| member.mtu) as usize;
    let tci = match random.below(8) {
        0 => Some(7),
        1 => Some(0xe000),
        2 => Some(0xafff),
        _ => None,
    };
    // A tag comes on top. With one, what lies between is for some device drivers too long and for others not.
    let (tag, edge) = if tci.is_some() { (4, 1014) } else { (0, 1018) };
    // The bridge device has the MTU of its narrowest port.
    let longest = mtu(from) + 14;
    let len = match random.below(6) {
        0 => longest,
        1 => random.pick(&[30, 61, 128, 1000, 1013, 1014, edge, 1019, 1513]).min(longest),
        _ => 60,
    };
    Frame { tci, ..frame }.len(len + tag)
}

/// splitmix64: small, and the same everywhere.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % limit as u64).expect("below a usize")
    }

    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}
