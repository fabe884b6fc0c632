//! Which scenarios are there, with which points and contestants, and how is each made?

mod frames;
mod learning;

use std::{fmt, sync::Arc};

use anyhow::{Result, bail};
use vswitch_ebpf::abi::DEFAULT_FDB_MAX;

use super::{
    Options,
    contestants::{Contestant, Rival, Terms},
    generator::{Entrance, Generator},
    lab::{Lab, far},
    measure::Trial,
    sockets::{Latency, Tcp, Udp},
};
use Contestant::{Bridge, FloorTc, FloorTcPeer, FloorXdp, Macvlan, VswitchTc, VswitchXdp};

/// What is measured of a contestant in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metric {
    /// Nothing where there is but one.
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) less_is_better: bool,
}

const RATE: Metric = Metric { name: "", unit: "frames/s", less_is_better: false };
const BITS: Metric = Metric { name: "", unit: "bit/s", less_is_better: false };
const DATAGRAMS: Metric = Metric { name: "", unit: "datagrams/s", less_is_better: false };
const LEARNED: Metric = Metric { name: "rate", unit: "addresses/s", less_is_better: false };
const HELD: Metric = Metric { name: "held", unit: "addresses", less_is_better: false };
const fn delay(name: &'static str) -> Metric {
    Metric { name, unit: "us", less_is_better: true }
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
    Udp,
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

static SCENARIOS: [Scenario; 13] = [
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
];

static PRIVATE: Scenario = scenario("private", "frames between isolated stations, to be dropped", "");

fn all() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain([&PRIVATE])
}

/// The scenarios by name, and what they are about.
pub fn list() -> Vec<(&'static str, &'static str)> {
    all().map(|scenario| (scenario.name, scenario.about)).collect()
}

/// There is no scenario or contestant of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unknown {}

/// The cases that the user wants.
pub(super) fn chosen(options: &Options) -> Result<Vec<Case>> {
    for name in &options.scenarios {
        if !all().any(|scenario| scenario.name == name) {
            let names: Vec<_> = all().map(|scenario| scenario.name).collect();
            bail!(Unknown(format!(
                r#"scenario "{name}": there is none of that name: one of {}"#,
                names.join(", ")
            )));
        }
    }
    for name in &options.against {
        if !Contestant::ALL.iter().any(|contestant| contestant.name() == name) {
            let names = Contestant::ALL.map(Contestant::name);
            bail!(Unknown(format!(
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
    let mut cases: Vec<Case> = all().flat_map(|scenario| cases(scenario, options)).filter(wanted).collect();
    cases.iter_mut().for_each(|case| case.contestants.retain(against));
    if options.pair.is_some() {
        // Frames of the generator, one way, over the user's cable.
        cases.retain(|case| ["small-frames", "nic", "frame-size"].contains(&case.scenario.name));
    }
    cases.retain(|case| !case.contestants.is_empty());
    Ok(cases)
}

/// The points of a scenario.
fn cases(scenario: &'static Scenario, options: &Options) -> Vec<Case> {
    let pick = |full: &[u32], quick: &[u32]| if options.quick { quick.to_vec() } else { full.to_vec() };
    let case = |point, kind, metrics: &[Metric], contestants: &[Contestant]| Case {
        scenario,
        point,
        metrics: metrics.to_vec(),
        contestants: contestants.to_vec(),
        kind,
    };
    let small = options.frame.unwrap_or(64);
    let frames = |terms, size, addresses, copies| Kind::Frames { terms, bytes: size - 4, addresses, copies };
    let plain = Terms::default();
    match scenario.name {
        "small-frames" => vec![case(
            None,
            frames(plain, small, 1, 1),
            &[RATE],
            &[VswitchTc, VswitchXdp, Bridge, FloorTc, FloorTcPeer, FloorXdp, Contestant::Generator],
        )],
        "nic" => vec![case(
            None,
            frames(Terms { to_xdp: true, ..plain }, small, 1, 1),
            &[RATE],
            &[VswitchTc, VswitchXdp, Bridge, FloorTcPeer, FloorXdp, Contestant::Generator],
        )],
        "uplink" => vec![case(
            None,
            frames(Terms { uplink: true, ..plain }, small, 1, 1),
            &[RATE],
            &[VswitchTc, Bridge, Macvlan, FloorTcPeer],
        )],
        "frame-size" => pick(&[64, 128, 256, 512, 1024, 1280, 1518], &[64, 1518])
            .into_iter()
            .map(|size| {
                case(
                    Some(size),
                    frames(plain, size as usize, 1, 1),
                    &[RATE],
                    &[VswitchTc, Bridge, FloorTcPeer],
                )
            })
            .collect(),
        "tcp" | "uplink-tcp" => [1, 4]
            .into_iter()
            .map(|flows| {
                let uplink = scenario.name == "uplink-tcp";
                case(
                    Some(flows),
                    Kind::Tcp { flows, uplink },
                    &[BITS],
                    &[VswitchTc, Bridge, Macvlan, FloorTcPeer],
                )
            })
            .collect(),
        "udp" => vec![case(None, Kind::Udp, &[DATAGRAMS], &[VswitchTc, Bridge, Macvlan, FloorTcPeer])],
        "latency" => vec![case(
            None,
            Kind::Latency,
            &[delay("p50"), delay("p99"), delay("p99.9")],
            &[VswitchTc, Bridge, Macvlan, FloorTcPeer],
        )],
        "flood" => [2, 8, 32]
            .into_iter()
            .map(|copies| {
                let terms = Terms { ports: copies + 1, ..plain };
                case(Some(copies), frames(terms, small, 1, copies), &[RATE], &[VswitchTc, Bridge])
            })
            .collect(),
        "learning" => pick(&[10_000, 100_000], &[10_000])
            .into_iter()
            .map(|addresses| {
                case(
                    Some(addresses),
                    Kind::Learning { addresses },
                    &[LEARNED, HELD],
                    &[VswitchTc, VswitchXdp, Bridge],
                )
            })
            .collect(),
        "addresses" => pick(&[1, 100, 1000, 10_000, 100_000], &[1, 100_000])
            .into_iter()
            .map(|addresses| {
                let terms = Terms { fdb_max: (4 * addresses).max(DEFAULT_FDB_MAX), ..plain };
                case(Some(addresses), frames(terms, small, addresses, 1), &[RATE], &[VswitchTc, Bridge])
            })
            .collect(),
        "ports" => pick(&[2, 16, 64, 256], &[2, 32])
            .into_iter()
            .map(|ports| {
                let terms = Terms { ports, ..plain };
                case(Some(ports), frames(terms, small, 1, 1), &[RATE], &[VswitchTc, Bridge])
            })
            .collect(),
        "hairpin" => vec![case(
            None,
            frames(Terms { hairpin: true, to_xdp: true, ..plain }, small, 1, 1),
            &[RATE],
            &[VswitchTc, VswitchXdp, Bridge, FloorXdp],
        )],
        _ => vec![case(
            None,
            frames(Terms { private: true, ..plain }, small, 1, 0),
            &[RATE],
            &[VswitchTc, VswitchXdp, Bridge, FloorXdp],
        )],
    }
}

impl Case {
    /// `flood/8`.
    pub(super) fn name(&self) -> String {
        match self.point {
            Some(point) => format!("{}/{point}", self.scenario.name),
            None => self.scenario.name.to_owned(),
        }
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
            Kind::Tcp { flows, uplink } => Box::new(Tcp::new(self.floored(rival(pair(uplink))?)?, flows)),
            Kind::Udp => Box::new(Udp::new(self.floored(rival(pair(false))?)?)?),
            Kind::Latency => Box::new(Latency::new(self.floored(rival(pair(false))?)?)),
            Kind::Learning { addresses } => {
                let terms = Terms { fdb_max: (2 * addresses).max(DEFAULT_FDB_MAX), ..Terms::default() };
                Box::new(learning::Learning::new(rival(terms)?, generator, addresses)?)
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
