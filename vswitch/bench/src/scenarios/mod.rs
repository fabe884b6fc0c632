//! Which scenarios are there, and how is each made?

mod points;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use vswitch::cli::Usage;
use vswitch_ebpf::abi::DEFAULT_FDB_MAX;

use super::{
    Options,
    contestants::{Contestant, Rival, Terms},
    frames,
    generator::{Entrance, Generator},
    lab::{Lab, far},
    learning::Learning,
    measure::Trial,
    sockets::{Latency, Tcp, Udp},
};
use points::points;

/// How long a contestant is measured at a time: those that take turns this fast meet the same machine. Half of it scatters twice
/// as much, the double no less.
const TURN: Duration = Duration::from_millis(5);
/// Of bulk transfers, by the clock on the wall.
const TURN_OF_BYTES: Duration = Duration::from_millis(10);
/// Of round trips: two thousand or so, so that a hundredth of them is more than a handful.
const TURN_OF_TRIPS: Duration = Duration::from_millis(20);
/// Of new addresses, each.
const TURN_OF_ADDRESS: Duration = Duration::from_nanos(500);

/// What is measured of a contestant in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metric {
    /// Nothing where there is but one.
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) less_is_better: bool,
}

/// A scenario at one point.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) scenario: &'static Scenario,
    /// Where the scenario has several.
    pub(super) point: Option<u32>,
    pub(super) metrics: Vec<Metric>,
    pub(super) contestants: Vec<Contestant>,
    kind: Kind,
}

/// How a case is measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Frames { terms: Terms, bytes: usize, addresses: u32, copies: u32 },
    Tcp { flows: u32, uplink: bool },
    Udp { vepa: bool },
    Latency,
    Learning { addresses: u32 },
}

/// A question, and what it is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// What the points are; empty where there is but one.
    pub(super) axis: &'static str,
}

const fn scenario(name: &'static str, about: &'static str, axis: &'static str) -> Scenario {
    Scenario { name, about, axis }
}

static SCENARIOS: [Scenario; 15] = [
    scenario("small-frames", "small frames, veth to veth, into a network stack", ""),
    scenario("nic", "small frames between XDP programs, as from NIC to NIC", ""),
    scenario("uplink", "small frames, uplink to veth, into a network stack", ""),
    scenario("frame-size", "frame sizes, veth to veth, into a network stack", "bytes"),
    scenario("tcp", "bulk TCP, veth to veth, default offloads", "flows"),
    scenario("uplink-tcp", "bulk TCP, uplink to veth, default offloads", "flows"),
    scenario("udp", "16-byte UDP datagrams through sockets, veth to veth", ""),
    scenario("latency", "UDP request and response, veth to veth, round trip", ""),
    scenario("flood", "unknown destination, flooded to so many ports", "ports"),
    scenario("learning", "new source addresses, each frame another", "addresses"),
    scenario("addresses", "source and destination change frame by frame", "addresses"),
    scenario("ports", "one pair of stations on a switch with so many ports", "ports"),
    scenario("hairpin", "frames reflected out of the port that they came from", ""),
    scenario(
        "vepa",
        "16-byte UDP datagrams between stations in mode vepa, by an adjacent switch that reflects",
        "",
    ),
    scenario("private", "frames between isolated stations, to be dropped", ""),
];

/// The scenarios by name, and what they are about.
pub fn list() -> Vec<(&'static str, &'static str)> {
    SCENARIOS.iter().map(|scenario| (scenario.name, scenario.about)).collect()
}

/// The cases that the user wants.
pub(super) fn chosen(options: &Options) -> Result<Vec<Case>> {
    for name in &options.scenarios {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            bail!(Usage::new(format!(
                r#"scenario "{name}": there is none of that name: one of {}"#,
                names.join(", ")
            )));
        }
    }
    for name in &options.against {
        if !Contestant::ALL.iter().any(|contestant| contestant.name() == name) {
            let names = Contestant::ALL.map(Contestant::name);
            bail!(Usage::new(format!(
                r#"contestant "{name}": there is none of that name: one of {}"#,
                names.join(", ")
            )));
        }
    }
    let wanted = |case: &Case| {
        options.scenarios.is_empty() || options.scenarios.iter().any(|name| name == case.scenario.name)
    };
    let against = |contestant: &Contestant| {
        options.against.is_empty()
            || contestant.is_vswitch()
            || options.against.iter().any(|name| name == contestant.name())
    };
    let mut cases: Vec<Case> =
        SCENARIOS.iter().flat_map(|scenario| points(scenario, options)).filter(wanted).collect();
    cases.iter_mut().for_each(|case| case.contestants.retain(against));
    if options.pair.is_some() {
        // Frames of the generator, one way, over the user's cable.
        cases.retain(|case| ["small-frames", "nic", "frame-size"].contains(&case.scenario.name));
    }
    cases.retain(|case| !case.contestants.is_empty());
    Ok(cases)
}

impl Case {
    /// `flood/8`.
    pub(super) fn name(&self) -> String {
        match self.point {
            Some(point) => format!("{}/{point}", self.scenario.name),
            None => self.scenario.name.to_owned(),
        }
    }

    /// Whether the receiver has a CPU of its own.
    pub(super) fn between_cpus(&self) -> bool {
        matches!(self.kind, Kind::Tcp { .. } | Kind::Udp { .. } | Kind::Latency)
    }

    /// How many rounds of turns, and how long a turn is: a run is cut into turns. What scatters by the clock on the wall has more.
    pub(super) fn pace(&self, options: &Options) -> (u32, Duration) {
        let (turn, times) = match self.kind {
            Kind::Frames { .. } => (TURN, 1),
            Kind::Learning { addresses } => (TURN_OF_ADDRESS * addresses, 1),
            Kind::Udp { .. } => (TURN, 1),
            Kind::Tcp { .. } => (TURN_OF_BYTES, 2),
            Kind::Latency => (TURN_OF_TRIPS, 8),
        };
        let turns = f64::from(times) * options.seconds / turn.as_secs_f64();
        (options.runs * turns.round().max(1.0) as u32, turn)
    }

    /// A contestant in a lab of its own, or in a shared one, ready to be measured.
    pub(super) fn make(
        &self,
        name: &str,
        contestant: Contestant,
        generator: &mut Generator,
        shared: Option<&Arc<Lab>>,
    ) -> Result<Box<dyn Trial>> {
        let rival = |terms| Rival::new(name, contestant, terms, shared);
        let pair = |uplink| Terms { uplink, ..Terms::default() };
        Ok(match self.kind {
            Kind::Frames { terms, bytes, addresses, copies } => {
                Box::new(frames::make(rival(terms)?, generator, terms, (bytes, addresses, copies))?)
            }
            Kind::Tcp { flows, uplink } => Box::new(Tcp::new(self.floored(rival(pair(uplink))?)?, flows)?),
            Kind::Udp { vepa } => Box::new(Udp::new(self.floored(rival(Terms { vepa, ..pair(false) })?)?)?),
            Kind::Latency => Box::new(Latency::new(self.floored(rival(pair(false))?)?)?),
            Kind::Learning { addresses } => {
                let terms = Terms { fdb_max: (2 * addresses).max(DEFAULT_FDB_MAX), ..Terms::default() };
                Box::new(Learning::new(rival(terms)?, generator, addresses)?)
            }
        })
    }

    /// Sockets answer each other: a floor needs its way back.
    fn floored(&self, mut rival: Rival) -> Result<Rival> {
        if rival.contestant.is_floor() {
            rival.floor_back()?;
        }
        Ok(rival)
    }
}

/// The far end with that number as a place where frames enter.
pub(super) fn entrance(generator: &mut Generator, rival: &Rival, number: u32) -> Result<Entrance> {
    let room = rival.lab.room(number);
    let ifindex = room.links(|handle| async move { super::lab::index_of(&handle, &far(number)).await })?;
    generator.entrance(room, ifindex)
}
