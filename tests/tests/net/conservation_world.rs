//! Which switch is tried, by the million? One port of each kind, and a sender behind each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use vswitch_tests::{
    fabric::{Knob, Mode, Switch as _},
    frame::{Addr, Frame, Mac},
    hosts::Hosts,
    lab::{HOST, HOST_MAC, Lab, OUTSIDE, Outside, STATION_IF, UPLINK},
    model::Member,
    observe::Pinned,
    topo::{End, Netns, expect_success, veth},
    vswitch::{Vswitch, run},
    wire::{Ear, Station},
};

/// By slot, from 1: the uplink and one downlink of each kind. `near` is a cable whose far end is on the same machine.
pub(crate) const PORTS: [&str; 12] =
    [OUTSIDE, "a", "b", "xdp1", "xdp2", "narrow", "iso1", "iso2", "vepa", "private", "source", NEAR];
pub(crate) const XDP: [&str; 2] = ["xdp1", "xdp2"];
pub(crate) const NEAR: &str = "near";
pub(crate) const NEAR_PORT: &str = "v0";
pub(crate) const NEAR_FAR: &str = "v1";
pub(crate) const NEAR_MAC: Mac = [0x02, 0, 0, 0, 7, 0];
pub(crate) const NARROW_MTU: u32 = 1000;
/// The stations whose frames the port in source mode is given.
pub(crate) const SOURCES: [&str; 2] = ["a", OUTSIDE];

/// The switch, and who sends.
pub(crate) struct World {
    pub(crate) hosts: Hosts<Vswitch>,
    stations: BTreeMap<&'static str, Station>,
}

impl World {
    pub(crate) fn new() -> Self {
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
        for (name, mode) in [("vepa", Mode::Vepa), ("private", Mode::Private), ("source", Mode::Source)] {
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
    pub(crate) fn port(&self, name: &str) -> &str {
        if name == NEAR { NEAR_PORT } else { self.hosts.lab.port(name) }
    }

    /// The other end; the host's is the uplink itself.
    pub(crate) fn far_end(&self, name: &str) -> (&Netns, &'static str) {
        let lab = &self.hosts.lab;
        match name {
            HOST => (&lab.switch, UPLINK),
            NEAR => (&lab.switch, NEAR_FAR),
            _ => (&lab.member(name).netns, STATION_IF),
        }
    }

    pub(crate) fn send(&self, from: &str, frames: &[Frame], rounds: u64) {
        let station = &self.stations[from];
        let bytes = frames.iter().map(|frame| {
            let (dst, src) = addresses(from, frame);
            frame.bytes(dst, src, 0)
        });
        let bytes: Vec<_> = bytes.collect();
        for _ in 0..rounds {
            station.burst(&bytes, from == HOST);
        }
    }

    /// The far end's NAPI runs in a thread of its own, which has that CPU when nobody else wants it.
    pub(crate) fn empty_ring_at_leisure(&self, name: &str, pinned: &Pinned) {
        let (netns, ifname) = self.far_end(name);
        let before = napi_threads();
        // /sys shows the interfaces of the namespace in which it was mounted.
        let script = format!("mount -t sysfs none /sys && echo 1 >/sys/class/net/{ifname}/threaded");
        expect_success(netns.command("unshare").args(["--mount", "sh", "-c", &script]), None);
        for thread in napi_threads().difference(&before) {
            expect_success(Command::new("chrt").args(["--idle", "--pid", "0", thread]), None);
            pinned.as_well(thread.parse().expect("a number"));
        }
    }
}

pub(crate) fn mac(name: &str) -> Mac {
    match name {
        HOST => HOST_MAC,
        NEAR => NEAR_MAC,
        OUTSIDE => [0x02, 0, 0, 0, 0, 0xee],
        _ => [0x02, 0, 0, 0, 1, place(name) as u8 - 1],
    }
}

/// Index in [`PORTS`].
pub(crate) fn place(name: &str) -> usize {
    PORTS.iter().position(|port| *port == name).expect("a port of the lab")
}

pub(crate) fn member(name: &str) -> Member {
    if name == HOST { Member::Host { uplink: 1 } } else { Member::Port(place(name) as u16 + 1) }
}

/// Destination and source of a frame of this sender.
pub(crate) fn addresses(from: &str, frame: &Frame) -> (Mac, Mac) {
    let resolve = |addr: &Addr| match addr {
        Addr::Mac(mac) => *mac,
        Addr::Of(name) => mac(name),
    };
    (resolve(&frame.dst), frame.src.as_ref().map_or_else(|| mac(from), resolve))
}

/// The kernel's threads that run NAPI, by number.
fn napi_threads() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let is_napi = |process: &fs::DirEntry| {
        fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.starts_with("napi/"))
    };
    processes.filter(is_napi).map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}
