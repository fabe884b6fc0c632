//! Modes that change, ports that go down and come back, and passthru: in step with the kernel's macvlan.

use std::time::{Duration, Instant};

use vswitch_tests::{
    controller::Controller,
    fabric::{Fabric, Mode},
    frame::{BROADCAST, Frame, MULTICAST, UNKNOWN, link_local, to},
    lab::{HOST_MAC, Lab, Outside},
    oracle::Macvlan,
    patience::patience,
    require,
    require::NAMESPACES,
    vswitch::Vswitch,
};

use crate::{
    frames_cases::Random,
    modes_cases::{ALIAS, MODES, NOMAD, Role, STATIONS, frames, role, roles},
    modes_worlds::Worlds,
};

const COMPAT: &str = "--macvlan-compat";

#[test]
fn from_every_mode_into_every_other() {
    require!(NAMESPACES);
    for reflects in [true, false] {
        let mut worlds = Worlds::new(reflects, &STATIONS, Vswitch::with(COMPAT), "");
        let mut random = Random(7);
        worlds.change_to(&roles(&mut random, &worlds.macvlan.lab, &STATIONS));
        for from in MODES {
            for into in MODES.into_iter().filter(|into| *into != from) {
                for mode in [from, into] {
                    let role = role(&mut random, &worlds.macvlan.lab, "s0", mode);
                    worlds.change_to(&[("s0", role)].into());
                    let frames = frames(&mut random, &worlds.macvlan.lab, &STATIONS, &[]);
                    worlds.equal(&format!("{} into {}", from.word(), into.word()), &frames);
                }
            }
        }
    }
}

/// The kernel forgets a child that is down: what is for it is not for anybody.
#[test]
fn ports_that_are_down_and_come_back() {
    require!(NAMESPACES);
    for reflects in [true, false] {
        let vswitch = Vswitch::with(COMPAT);
        let name = vswitch.name.clone();
        let mut worlds = Worlds::new(reflects, &STATIONS, vswitch, "");
        let controller = Controller::start(&worlds.vswitch.lab.switch, &name, "");
        let mut random = Random(8);
        for round in 0..6 {
            let roles = roles(&mut random, &worlds.macvlan.lab, &STATIONS);
            worlds.change_to(&roles);
            let is_source = |station: &&str| roles[station].mode == Mode::Source;
            let mut down: Vec<_> = STATIONS.into_iter().filter(|_| random.below(3) == 0).collect();
            // What frames can be asked for tells of the ones in source mode, too.
            if down.iter().all(is_source) {
                down.extend(STATIONS.into_iter().find(|station| !is_source(station)));
            }
            for (up, cell) in [(false, "(host)"), (true, "")] {
                for station in &down {
                    worlds.macvlan.link(station, up);
                    worlds.vswitch.link(station, up);
                }
                // Of a carrier the kernel tells a second late where both ends of a veth have the same index
                // (linkwatch_urgent_event).
                controller.signal(libc::SIGHUP);
                for station in down.iter().filter(|station| !is_source(station)) {
                    worlds.await_delivery(station, if up { station } else { cell });
                }
                worlds.down = if up { Vec::new() } else { down.clone() };
                let frames = frames(&mut random, &worlds.macvlan.lab, &STATIONS, &worlds.down);
                worlds.equal(&format!("round {round}"), &frames);
            }
        }
    }
}

impl Worlds {
    /// Until a frame from outside for the station gets to whom it shall.
    fn await_delivery(&self, station: &'static str, cell: &str) {
        let deadline = Instant::now() + patience(Duration::from_secs(5));
        for fabric in [&self.macvlan, &self.vswitch] {
            // Somebody may have told the adjacent switch that the station is outside.
            fabric.exchange(&[("host", to(UNKNOWN).from(station))]);
            let probe = [("ext", to(station).from(UNKNOWN))];
            while fabric.exchange(&probe)[0] != cell {
                assert!(Instant::now() < deadline, "no frame for {station} gets to {cell}");
            }
        }
    }
}

/// A passthru child has the lower device's address, which is the host's, and a passthru port has one of its own: what is to
/// and from the child here is to and from the port there, and the host sends from an address that is not the child's.
#[test]
fn passthru_alone() {
    require!(NAMESPACES);
    for reflects in [true, false] {
        let lab = || Lab::new(Outside::Adjacent { reflects }, &["t"]);
        let mut theirs = lab();
        theirs.members[0].mac = HOST_MAC;
        let macvlan = Fabric::new(Macvlan { modes: vec![Mode::Passthru] }, theirs);
        let vswitch = Fabric::new(Vswitch::with(COMPAT).child("t", "--mode passthru"), lab());
        let mut worlds = Worlds::of(macvlan, vswitch, [("t", Role::of(Mode::Passthru))].into());
        let mut random = Random(9);
        for round in 0..5 {
            worlds.equal(&format!("round {round}, reflects {reflects}"), &passthru_frames(&mut random));
        }
        worlds.roles.clear();
    }
}

fn passthru_frames(random: &mut Random) -> Vec<(&'static str, Frame)> {
    let mut frames = Vec::new();
    let groups = [BROADCAST, MULTICAST, link_local(0), link_local(3), link_local(14)];
    let macs = || groups.into_iter().chain([UNKNOWN, NOMAD]).map(to);
    for (from, source) in
        [("ext", None), ("ext", Some(NOMAD)), ("host", Some(ALIAS)), ("t", None), ("t", Some(NOMAD))]
    {
        for frame in macs().chain(["t", "host", "ext"].map(to)) {
            let frame = if random.below(4) == 0 { frame.vlan(7).len(64) } else { frame };
            frames.push((from, if let Some(source) = source { frame.from(source) } else { frame }));
        }
    }
    random.shuffle(&mut frames);
    frames
}
