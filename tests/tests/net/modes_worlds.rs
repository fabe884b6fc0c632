//! The same lab twice, of macvlan children and of vswitch ports.

use std::time::Instant;

use vswitch_tests::{
    campaign,
    fabric::{Fabric, Mode},
    frame::{BROADCAST, Frame, colons, to},
    lab::{HOST, Lab, OUTSIDE, Outside},
    observe::Receipts,
    oracle::Macvlan,
    vswitch::Vswitch,
};

use crate::{
    frames_cases::Random,
    modes_cases::{PAUSE, Role, Roles, frames, roles},
};

pub(crate) struct Worlds {
    pub(crate) macvlan: Fabric,
    pub(crate) vswitch: Fabric,
    pub(crate) roles: Roles,
    /// Stations whose interfaces are down.
    pub(crate) down: Vec<&'static str>,
}

impl Worlds {
    /// All ports in bridge mode, with more words for `port add`.
    pub(crate) fn new(reflects: bool, stations: &[&'static str], vswitch: Vswitch, add: &str) -> Self {
        let lab = || Lab::new(Outside::Adjacent { reflects }, stations);
        let children = Macvlan { modes: vec![Mode::Bridge; stations.len()] };
        let ports = stations.iter().fold(vswitch, |vswitch, station| vswitch.child(station, add));
        let roles = stations.iter().map(|station| (*station, Role::of(Mode::Bridge))).collect();
        Self::of(Fabric::new(children, lab()), Fabric::new(ports, lab()), roles)
    }

    pub(crate) fn of(macvlan: Fabric, vswitch: Fabric, roles: Roles) -> Self {
        let mut worlds = Self { macvlan, vswitch, roles, down: Vec::new() };
        for fabric in [&mut worlds.macvlan, &mut worlds.vswitch] {
            fabric.host_hears(PAUSE);
            fabric.lab.relay_link_local();
        }
        worlds
    }

    pub(crate) fn stations(&self) -> Vec<&'static str> {
        self.roles.keys().copied().collect()
    }

    /// Rounds of frames, each with other modes.
    pub(crate) fn rounds(&mut self, seed: u64, short: u64) {
        let rounds = campaign::rounds(short, 10 * short);
        let (mut random, mut sent, started) = (Random(seed), 0, Instant::now());
        let stations = self.stations();
        for round in 0..rounds {
            let roles = roles(&mut random, &self.macvlan.lab, &stations);
            self.change_to(&roles);
            let frames = frames(&mut random, &self.macvlan.lab, &stations, &self.down);
            sent += frames.len();
            self.equal(&format!("seed {seed}, round {round}"), &frames);
        }
        println!("{sent} frames in {rounds} rounds and {:?}", started.elapsed());
    }

    /// Sends the frames on both sides; panics with each that was received differently.
    pub(crate) fn equal(&self, title: &str, frames: &[(&'static str, Frame)]) {
        let wrong = self.exchange(frames).into_iter().filter(|(.., macvlan, vswitch)| macvlan != vswitch);
        let wrong = wrong.map(|(from, frame, macvlan, vswitch)| {
            format!("\n  {from} sends {frame}\n    macvlan {macvlan}; vswitch {vswitch}")
        });
        let wrong = wrong.collect::<Vec<_>>();
        let shown = wrong.iter().take(20).map(String::as_str).collect::<String>();
        let count = wrong.len();
        let down = &self.down;
        assert_eq!(
            count,
            0,
            "{title}: {count} of {} frames, {down:?} down, with {}:{shown}",
            frames.len(),
            self.named()
        );
    }

    /// Each frame with its receivers among the children and among the ports.
    pub(crate) fn exchange<'a>(
        &self,
        frames: &'a [(&'static str, Frame)],
    ) -> Vec<(&'static str, &'a Frame, Receipts, Receipts)> {
        // The adjacent switches must agree, whatever a round has taught them.
        let all = self.stations().into_iter().chain([OUTSIDE, HOST]).filter(|name| !self.down.contains(name));
        let hello = all.map(|name| (name, to(BROADCAST))).collect::<Vec<_>>();
        self.macvlan.exchange(&hello);
        self.vswitch.exchange(&hello);
        let pairs = self.macvlan.exchange(frames).into_iter().zip(self.vswitch.exchange(frames));
        let rows = frames.iter().zip(pairs);
        rows.map(|((from, frame), (macvlan, vswitch))| (*from, frame, macvlan, vswitch)).collect()
    }

    /// Changes what is different, live.
    pub(crate) fn change_to(&mut self, roles: &Roles) {
        for (station, role) in roles {
            let before = std::mem::replace(self.roles.get_mut(station).expect("a station"), role.clone());
            if before == *role {
                continue;
            }
            for fabric in [&mut self.macvlan, &mut self.vswitch] {
                if before.mode != role.mode {
                    fabric.set_mode(station, role.mode);
                }
                if role.mode == Mode::Source {
                    fabric.set_sources(station, &role.sources);
                    fabric.set_nodst(station, role.nodst);
                }
            }
        }
    }

    fn named(&self) -> String {
        let named = |(station, role): (&&str, &Role)| {
            let list = role.sources.iter().map(|mac| format!(" {}", colons(*mac))).collect::<String>();
            format!("{station} {}{list}{}", role.mode.word(), if role.nodst { " nodst" } else { "" })
        };
        self.roles.iter().map(named).collect::<Vec<_>>().join(", ")
    }
}
