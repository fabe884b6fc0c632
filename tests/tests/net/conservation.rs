//! Is no frame lost, doubled or counted twice, by the million? What was sent, what the specification decides, what `stats`
//! says and what the interfaces themselves have counted must be the same numbers.

use std::{collections::BTreeMap, fs, thread, time::Instant};

use serde_json::Value;
use vswitch_ebpf::verdict::Action;
use vswitch_tests::{
    campaign::amount,
    fabric::{Knob, Mode as PortMode, Switch as _},
    frame::{BROADCAST, Frame, MULTICAST, Mac, UNKNOWN, link_local, to},
    host_tables::HostTables,
    hosts::Hosts,
    lab::{HOST, HOST_MAC, Lab, OUTSIDE, Outside, STATION_IF, UPLINK},
    model::{self, Entry, Kind, Member, Mode, Model, Port, slot_of},
    require,
    require::NAMESPACES,
    topo::{End, Netns, veth},
    vswitch::{Vswitch, json, run},
    wire::{Ear, Station},
};

use crate::{
    frames_cases::{Random, untagged_len},
    frames_ledger::Ledger,
};

/// By slot, from 1: the uplink and one access port of each kind. `near` is a cable whose far end is on the same machine.
const PORTS: [&str; 12] =
    [OUTSIDE, "a", "b", "xdp1", "xdp2", "narrow", "iso1", "iso2", "vepa", "private", "source", NEAR];
const XDP: [&str; 2] = ["xdp1", "xdp2"];
const NEAR: &str = "near";
const NEAR_PORT: &str = "v0";
const NEAR_FAR: &str = "v1";
const NEAR_MAC: Mac = [0x02, 0, 0, 0, 7, 0];
const NARROW_MTU: u32 = 1000;
/// Frames of one sender, which it sends again and again.
const ROUND: usize = 500;

#[test]
fn every_frame_is_accounted_for() {
    require!(NAMESPACES);
    let rounds = amount(200_000_u64, 10_000_000).div_ceil((ROUND * (PORTS.len() + 1)) as u64);
    let world = World::new();
    let mut plan = Plan::new();
    let before = world.interfaces();
    let senders = PORTS.into_iter().chain([HOST]);
    let mut random = Random(5);
    let loads: BTreeMap<&str, Vec<Frame>> =
        senders.map(|from| (from, (0..ROUND).map(|_| frame(&mut random, from)).collect())).collect();

    // Each says hello, one after the other: after that no frame of theirs teaches the switch a place.
    for from in loads.keys() {
        let hello = [to(BROADCAST)];
        world.send(from, &hello, 1);
        plan.send(&world, from, &hello, 1);
    }
    let taught = plan.model.clone();
    let started = Instant::now();
    thread::scope(|scope| {
        for (from, frames) in &loads {
            scope.spawn(|| world.send(from, frames, rounds));
        }
    });
    let took = started.elapsed();
    for (from, frames) in &loads {
        plan.send(&world, from, frames, rounds);
    }
    assert!(plan.model == taught, "a frame taught the switch something: then their order would matter");

    let sent = rounds * (ROUND * loads.len()) as u64;
    println!("{sent} frames in {took:.1?}");
    world.compare(&plan, &before);
}

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

fn mac(name: &str) -> Mac {
    match name {
        HOST => HOST_MAC,
        NEAR => NEAR_MAC,
        OUTSIDE => [0x02, 0, 0, 0, 0, 0xee],
        _ => [0x02, 0, 0, 0, 1, place(name) as u8 - 1],
    }
}

/// Index in [`PORTS`].
fn place(name: &str) -> usize {
    PORTS.iter().position(|port| *port == name).expect("a port of the lab")
}

fn member(name: &str) -> Member {
    if name == HOST { Member::Host { uplink: 1 } } else { Member::Port(place(name) as u16 + 1) }
}

/// What is to come of it, by the specification.
struct Plan {
    model: Model,
    ledger: Ledger,
    /// By port, frames that `bpf_redirect_peer` delivers.
    by_peer: BTreeMap<&'static str, u64>,
}

impl Plan {
    fn new() -> Self {
        let port = |name: &'static str| Port {
            uplink: name == OUTSIDE,
            mode: match name {
                "vepa" => Mode::Vepa,
                "private" => Mode::Private,
                "source" => Mode::Source,
                _ => Mode::Bridge,
            },
            nodst: false,
            down: false,
            mtu: if name == "narrow" { NARROW_MTU } else { 1500 },
            hairpin: false,
            isolated: name.starts_with("iso"),
            learning: true,
            flood: true,
            mcast_flood: true,
            bcast_flood: true,
        };
        let local = Entry { at: member(HOST), kind: Kind::Local, seen: 0 };
        let model = Model {
            ports: (1..).zip(PORTS.map(port)).collect(),
            fdb: BTreeMap::from([(HOST_MAC, local)]),
            fdb_max: 1000,
            ageing: 1000,
            refresh: 1000,
            now: 0,
            host_access: true,
            compat: false,
            sources: SOURCES.map(|name| (slot_of(member("source")), mac(name))).into(),
        };
        Self { model, ledger: Ledger::default(), by_peer: BTreeMap::new() }
    }

    fn send(&mut self, world: &World, from: &str, frames: &[Frame], times: u64) {
        let row = if from == HOST { HOST } else { world.port(from) };
        for frame in frames {
            let vswitch_tests::frame::Addr::Mac(dst) = frame.dst else { unreachable!("no names here") };
            let src = match frame.src {
                Some(vswitch_tests::frame::Addr::Mac(src)) => src,
                _ => mac(from),
            };
            let frame = model::Frame { dst, src, len: untagged_len(frame), gso: false, pause: false };
            let (from, tables) = (member(from), HostTables::from(&self.model));
            let verdict = tables.decide(from, &frame).verdict;
            let outcome = self.model.send(from, &frame);
            self.ledger
                .expect(row, &outcome, times, |slot| world.port(PORTS[usize::from(slot) - 1]).to_owned());
            if verdict.action == Action::Forward && world.by_peer(from, verdict.target.slot) {
                *self.by_peer.entry(PORTS[usize::from(verdict.target.slot) - 1]).or_default() += times;
            }
        }
    }
}

/// The stations whose frames the port in source mode is given.
const SOURCES: [&str; 2] = ["a", OUTSIDE];

/// The switch, and who sends.
struct World {
    hosts: Hosts<Vswitch>,
    stations: BTreeMap<&'static str, Station>,
}

impl World {
    fn new() -> Self {
        let stations = PORTS.into_iter().filter(|name| ![OUTSIDE, NEAR].contains(name)).collect::<Vec<_>>();
        let lab = Lab::new(Outside::Station, &stations).with_mtu("narrow", NARROW_MTU);
        let switch = XDP.iter().fold(Vswitch::new(), |switch, name| switch.datapath(name, "xdp"));
        let mut hosts = Hosts { switch, lab };
        let Hosts { switch, lab } = &mut hosts;
        switch.start(lab);
        veth(
            End { netns: &lab.switch, ifname: NEAR_PORT, mac: [0x02, 0, 0, 0, 7, 1] },
            End { netns: &lab.switch, ifname: NEAR_FAR, mac: NEAR_MAC },
        );
        run(&lab.switch, &switch.name, &format!("port add {NEAR_PORT}"));
        for name in ["iso1", "iso2"] {
            switch.set(lab, name, Knob::Isolated, true);
        }
        for (name, mode) in
            [("vepa", PortMode::Vepa), ("private", PortMode::Private), ("source", PortMode::Source)]
        {
            switch.set_mode(lab, name, mode);
        }
        switch.set_sources(lab, "source", &SOURCES.map(mac));
        let mut world = Self { hosts, stations: BTreeMap::new() };
        for name in PORTS.into_iter().chain([HOST]) {
            let (netns, ifname) = world.far_end(name);
            let station = Station::new(name, netns, ifname, mac(name), Ear::Deaf);
            station.await_carrier(ifname);
            world.stations.insert(name, station);
        }
        world.hosts.lab.switch.ip("link show lo");
        world
    }

    /// The switch's end of the cable.
    fn port(&self, name: &str) -> &str {
        if name == NEAR { NEAR_PORT } else { self.hosts.lab.port(name) }
    }

    /// The other end; the host's is the uplink itself.
    fn far_end(&self, name: &str) -> (&Netns, &'static str) {
        let lab = &self.hosts.lab;
        match name {
            HOST => (&lab.switch, UPLINK),
            NEAR => (&lab.switch, NEAR_FAR),
            _ => (&lab.member(name).netns, STATION_IF),
        }
    }

    fn send(&self, from: &str, frames: &[Frame], rounds: u64) {
        let station = &self.stations[from];
        let bytes: Vec<_> = frames
            .iter()
            .map(|frame| {
                let resolve = |addr: &vswitch_tests::frame::Addr| match addr {
                    vswitch_tests::frame::Addr::Mac(mac) => *mac,
                    vswitch_tests::frame::Addr::Of(name) => mac(name),
                };
                frame.bytes(resolve(&frame.dst), frame.src.as_ref().map_or(station.mac, resolve), 0)
            })
            .collect();
        for _ in 0..rounds {
            station.burst(&bytes, from == HOST);
        }
    }

    /// Whether a frame that is forwarded from one to the other goes by `bpf_redirect_peer`: at tc ingress, to a cable that
    /// leads to another namespace. What comes in by XDP for an XDP port does not get there.
    fn by_peer(&self, from: Member, to: u16) -> bool {
        let name = |slot: u16| PORTS[usize::from(slot) - 1];
        let Member::Port(from) = from else { return false };
        name(to) != NEAR && !(XDP.contains(&name(from)) && XDP.contains(&name(to)))
    }

    /// By station, what `ip -s link` shows at the switch's end and at the other one.
    fn interfaces(&self) -> BTreeMap<&'static str, (Link, Link)> {
        let read = |netns: &Netns| -> BTreeMap<String, Link> {
            let rows: Value = serde_json::from_str(&netns.ip("-j -s link show")).expect("JSON of ip");
            let rows = rows.as_array().expect("rows").iter();
            rows.map(|row| (row["ifname"].as_str().expect("a name").to_owned(), Link::said(row))).collect()
        };
        let near = read(&self.hosts.lab.switch);
        let ends = PORTS.map(|name| {
            let (netns, ifname) = self.far_end(name);
            (name, (near[self.port(name)], read(netns)[ifname]))
        });
        ends.into()
    }

    fn compare(&self, plan: &Plan, before: &BTreeMap<&'static str, (Link, Link)>) {
        let said = json(&self.hosts.lab.switch, &self.hosts.switch.name, "stats");
        let stats = Ledger::whatever_was_lost(&said);
        assert_eq!(stats, plan.ledger, "what stats says, and the specification");
        let mut wrong = Vec::new();
        let mut same = |what: &str, name: &str, got: u64, wanted: u64| {
            if got != wanted {
                wrong.push(format!("\n  {name}: {what}: {got}, and not {wanted}"));
            }
        };
        let (mut lost, mut to_stack, mut not_taken) = (0, 0, 0);
        println!(
            "{:8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "port", "received", "forwarded", "to host", "dropped", "sent", "lost"
        );
        for (name, (near, far)) in self.interfaces() {
            let (near, far) = (near.since(before[name].0), far.since(before[name].1));
            let row = stats.of(self.port(name));
            same("frames received by the interface", name, near.received, row.rx);
            same("frames sent by its far end", name, far.sent, row.rx);
            // What the far end's ring or backlog had no room for, the kernel counts at the near end. What is delivered by
            // bpf_redirect_peer is received at the far end without having been sent at the near one (skb_do_redirect).
            same("frames received by its far end", name, far.received + near.send_drops, row.tx);
            let by_peer = plan.by_peer.get(name).copied().unwrap_or_default();
            same("frames sent by the interface", name, near.sent + near.send_drops + by_peer, row.tx);
            for (what, errors) in [("near", near.errors), ("far", far.errors)] {
                same(&format!("errors at the {what} end"), name, errors, 0);
            }
            lost += near.send_drops;
            to_stack += near.receive_drops;
            // A backlog without room counts at the receiver, too; a ring, as XDP makes it, does not.
            not_taken += if XDP.contains(&name) { 0 } else { far.send_drops };
            let drops = row.drops.values().sum::<u64>();
            println!(
                "{name:8} {:9} {:9} {:9} {drops:9} {:9} {:9}",
                row.rx, row.forwarded, row.host, row.tx, near.send_drops
            );
        }
        // Nobody there knows our protocol: the stack drops each, and counts it.
        same("frames given to its stacks", HOST, to_stack, stats.of(HOST).tx + not_taken);
        let drops = by_reason(&said);
        println!("host received {}, sent {}; drops {drops:?}", stats.of(HOST).tx, stats.of(HOST).rx);
        println!(
            "{lost} lost behind the switch, {not_taken} sent again before it; softnet drops {}",
            softnet_drops()
        );
        let shown = wrong.iter().map(String::as_str).collect::<String>();
        assert!(wrong.is_empty(), "difference:{shown}\n{said:#}");
        let expected = [
            "invalid_source",
            "pause",
            "same_port",
            "isolated",
            "mtu_exceeded",
            "private",
            "reflected",
            "spoofed_source",
        ];
        assert!(expected.iter().all(|reason| drops.contains_key(*reason)), "not all were tried: {drops:?}");
    }
}

/// Over all ports.
fn by_reason(stats: &Value) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for row in stats.as_array().expect("rows") {
        for (reason, count) in row["drops"].as_object().expect("drops by reason") {
            *all.entry(reason.clone()).or_insert(0) += count.as_u64().expect("a count");
        }
    }
    all.retain(|_, count| *count > 0);
    all
}

/// Of the whole machine, all time.
fn softnet_drops() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").expect("softnet_stat");
    text.lines().filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()).sum()
}

/// One interface in `ip -s link`.
#[derive(Clone, Copy, Debug)]
struct Link {
    received: u64,
    receive_drops: u64,
    sent: u64,
    send_drops: u64,
    errors: u64,
}

impl Link {
    fn said(row: &Value) -> Self {
        let number = |path: &str| row.pointer(path).and_then(Value::as_u64).expect(path);
        Self {
            received: number("/stats64/rx/packets"),
            receive_drops: number("/stats64/rx/dropped"),
            sent: number("/stats64/tx/packets"),
            send_drops: number("/stats64/tx/dropped"),
            errors: number("/stats64/rx/errors") + number("/stats64/tx/errors"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            receive_drops: self.receive_drops - before.receive_drops,
            sent: self.sent - before.sent,
            send_drops: self.send_drops - before.send_drops,
            errors: self.errors - before.errors,
        }
    }
}
