//! Strictly private: over every kind of frame and every pair, does anything reach or leave a private port from or to a sibling?

use std::collections::BTreeMap;

use aya::maps::{Array, Map, MapData};
use bytemuck::Pod;
use vswitch_ebpf::abi::{Port, Settings, mode, settings_flags};
use vswitch_tests::{
    fabric::{Fabric, Mode},
    frame::{Addr, BROADCAST, Frame, MULTICAST, UNKNOWN, link_local, to},
    interrupt::{Ran, before_change},
    lab::{HOST, Lab, OUTSIDE, Outside},
    observe::Receipts,
    require,
    require::NAMESPACES,
    vswitch::Vswitch,
};

use crate::{
    bad_input::{Bench, NEEDS},
    modes_cases::{NOMAD, PAUSE},
    modes_differences::STATIONS,
};

const OUTSIDE_SOURCE: &str = "from the outside";
const UNKNOWN_SOURCE: &str = "from an unknown address";
const FOREIGN: [&str; 2] = [OUTSIDE_SOURCE, UNKNOWN_SOURCE];

#[test]
fn nothing_passes_between_a_private_port_and_a_sibling() {
    require!(NAMESPACES);
    for (add, reflects) in [("", true), ("--datapath xdp", true), ("", false)] {
        let fabric = fabric(reflects, add);
        let mut looked = BTreeMap::<_, (u32, u32)>::new();
        let mut leaks = Vec::new();
        for (from, mode) in STATIONS {
            for (what, frames) in kinds(from) {
                // What a sibling has taught the adjacent switch is not the next one's affair.
                fabric.introduce();
                let sends = frames.into_iter().map(|frame| (from, frame)).collect::<Vec<_>>();
                for ((_, frame), heard) in sends.iter().zip(fabric.exchange(&sends)) {
                    // What comes back under an address that is nobody's here cannot be told from what the outside sends.
                    // A private port may not send so; but another may.
                    if mode != Mode::Private && FOREIGN.contains(&what) {
                        continue;
                    }
                    let (cells, leaked) = judge(from, mode, &heard);
                    let entry = looked.entry((mode.word(), what)).or_default();
                    *entry = (entry.0 + cells, entry.1 + u32::from(heard.copies(OUTSIDE) > 0));
                    if leaked {
                        leaks.push(format!("\n  {from} sends {frame}: {heard}"));
                    }
                }
            }
        }
        println!("reflects {reflects} {add}: pairs looked at, and frames that were seen outside:");
        for ((mode, what), (cells, outside)) in &looked {
            println!("  {mode:8} {what:24} {cells:5} {outside:5}");
        }
        assert_eq!(
            leaks.len(),
            0,
            "reflects {reflects} {add}: {}",
            leaks.iter().take(30).map(String::as_str).collect::<String>()
        );
        let cells = looked.values().map(|(cells, _)| cells).sum::<u32>();
        println!("0 leaks in {cells} pairs of a private port and a sibling");
    }
}

/// The private ports still have their host and their outside.
#[test]
fn private_ports_are_not_cut_off() {
    require!(NAMESPACES);
    for reflects in [true, false] {
        let fabric = fabric(reflects, "");
        fabric.introduce();
        fabric.check(
            "private",
            &[
                ("p1", to(OUTSIDE), "ext"),
                ("p1", to(HOST), "host"),
                ("p1", to(BROADCAST), "ext host"),
                ("ext", to("p1"), "p1 s1"),
                ("host", to("p1"), "p1"),
                ("ext", to(BROADCAST), "b1 b2 v1 v2 p1 p2 s1 host"),
                ("host", to(BROADCAST), "b1 b2 v1 v2 p1 p2 ext"),
            ],
        );
    }
}

fn fabric(reflects: bool, add: &str) -> Fabric {
    let lab = Lab::new(Outside::Adjacent { reflects }, &STATIONS.map(|(name, _)| name));
    lab.relay_link_local();
    let vswitch = STATIONS.iter().fold(Vswitch::new(), |vswitch, (name, mode)| {
        vswitch.child(name, &format!("--mode {} {add}", mode.word()))
    });
    let sources = [lab.mac("p1"), lab.mac("p2"), lab.mac("b1"), lab.mac(OUTSIDE), NOMAD];
    let mut fabric = Fabric::new(vswitch, lab);
    fabric.set_sources("s1", &sources);
    fabric
}

/// Every kind of frame that a station may send, with its name.
fn kinds(from: &str) -> Vec<(&'static str, Vec<Frame>)> {
    let mut kinds = Vec::new();
    let others = STATIONS.iter().map(|(name, _)| *name).chain([OUTSIDE, HOST]).collect::<Vec<_>>();
    let groups = [BROADCAST, MULTICAST, [0x33, 0x33, 0, 0, 0, 1]];
    let everywhere = |frame: &dyn Fn(Addr) -> Frame| {
        let all = others.iter().map(|name| Addr::from(*name)).chain(groups.map(Addr::from));
        all.chain([Addr::from(UNKNOWN)]).map(frame).collect::<Vec<_>>()
    };
    let mut add = |what, frames: Vec<Frame>| kinds.push((what, frames));
    add("plain", everywhere(&|dst| to(dst)));
    add("tagged", everywhere(&|dst| to(dst).vlan(7).len(64)));
    add("priority-tagged", everywhere(&|dst| to(dst).tci(0xe000).len(64)));
    add("long", everywhere(&|dst| to(dst).len(1514)));
    add("pause", everywhere(&|dst| to(dst).ethertype(PAUSE)));
    add("reserved", (0..16).map(|x| to(link_local(x))).collect());
    for (what, source) in [("from nobody", [0; 6]), ("from a group", MULTICAST), ("from all", BROADCAST)] {
        add(what, everywhere(&|dst| to(dst).from(source)));
    }
    for other in others.iter().filter(|other| **other != from) {
        let what = match *other {
            HOST => "from the host",
            OUTSIDE => OUTSIDE_SOURCE,
            _ => "from a sibling",
        };
        add(what, everywhere(&|dst| to(dst).from(*other)));
    }
    add(UNKNOWN_SOURCE, everywhere(&|dst| to(dst).from(NOMAD)));
    kinds
}

/// How many pairs with a private port were looked at, and whether anything passed.
fn judge(from: &str, mode: Mode, heard: &Receipts) -> (u32, bool) {
    let private = |mode| mode == Mode::Private;
    let pairs = STATIONS.iter().filter(|(other, its)| *other != from && (private(mode) || private(*its)));
    let pairs = pairs.map(|(other, _)| *other).collect::<Vec<_>>();
    // Its own echo is a leak, too.
    let echo = private(mode) && heard.copies(from) > 0;
    (pairs.len() as u32, echo || pairs.iter().any(|other| heard.copies(other) > 0))
}

/// An element of one of the switch's arrays.
fn element<T: Pod, const SIZE: usize>(bench: &Bench, map: &str, index: u32) -> T {
    let map = MapData::from_pin(bench.pins().join("maps").join(map)).unwrap();
    let map = Array::<_, [u8; SIZE]>::try_from(Map::Array(map)).unwrap();
    *bytemuck::from_bytes(&map.get(&index, 0).unwrap())
}

/// Who is killed in between leaves it so until the next command.
#[test]
fn no_port_is_in_a_mode_before_the_programs_look_for_what_it_needs() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up --uplink h1 h2");
    for (options, needs) in [
        ("--mode private", settings_flags::STATIONS),
        ("--mode vepa", settings_flags::STATIONS),
        ("--mode source --source 02:00:00:00:00:07", settings_flags::STATIONS | settings_flags::SOURCES),
    ] {
        let mut ran = None;
        for nth in 1..50 {
            bench.run("port set h2 --mode bridge");
            ran = Some(before_change(&mut bench.command(&format!("port set h2 {options}")), nth));
            let port: Port = element::<_, { size_of::<Port>() }>(&bench, "PORTS", 2);
            let settings: Settings = element::<_, { size_of::<Settings>() }>(&bench, "SETTINGS", 0);
            let looks = settings.flags & needs == needs;
            assert!(port.mode == mode::BRIDGE || looks, "port set {options}, before change {nth}: {ran:?}");
            if matches!(ran, Some(Ran::Ended { .. })) {
                break;
            }
        }
        assert!(matches!(ran, Some(Ran::Ended { status: 0, .. })), "{ran:?}");
    }
}
