//! Which points, metrics and contestants has each scenario?

use vswitch_ebpf::abi::DEFAULT_FDB_MAX;

use super::{Case, Kind, Metric, Scenario};
use crate::{
    Options,
    contestants::{
        Contestant::{self, Bridge, FloorTc, FloorTcPeer, FloorXdp, Macvlan, VswitchTc, VswitchXdp},
        Terms,
    },
};

const RATE: Metric = Metric { name: "", unit: "frames/s", less_is_better: false };
const BITS: Metric = Metric { name: "", unit: "bit/s", less_is_better: false };
const DATAGRAMS: Metric = Metric { name: "", unit: "datagrams/s", less_is_better: false };
const LEARNED: Metric = Metric { name: "rate", unit: "addresses/s", less_is_better: false };
const HELD: Metric = Metric { name: "held", unit: "addresses", less_is_better: false };
const fn delay(name: &'static str) -> Metric {
    Metric { name, unit: "us", less_is_better: true }
}

/// The points of a scenario.
pub(super) fn points(scenario: &'static Scenario, options: &Options) -> Vec<Case> {
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
        "udp" => vec![case(
            None,
            Kind::Udp { vepa: false },
            &[DATAGRAMS],
            &[VswitchTc, Bridge, Macvlan, FloorTcPeer],
        )],
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
                let terms = Terms { fdb_max: (2 * addresses).max(DEFAULT_FDB_MAX), ..plain };
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
        "vepa" => vec![case(
            None,
            Kind::Udp { vepa: true },
            &[DATAGRAMS],
            &[VswitchTc, VswitchXdp, Bridge, Macvlan],
        )],
        _ => vec![case(
            None,
            frames(Terms { private: true, ..plain }, small, 1, 0),
            &[RATE],
            &[VswitchTc, VswitchXdp, Bridge, FloorXdp],
        )],
    }
}
