//! Does vswitch do with every frame what the kernel's macvlan does? The same frames through children and through ports.

use std::time::Instant;

use vswitch_tests::{
    fabric::{Fabric, Mode},
    frame::{Frame, colons},
    lab::{Lab, Outside},
    observe::Receipts,
    oracle::Macvlan,
    require,
    require::NAMESPACES,
    vswitch::Vswitch,
};

use crate::{
    frames_cases::Random,
    modes_cases::{PAUSE, Role, Roles, STATIONS, frames, roles},
};

#[test]
fn compat_is_macvlan_behind_a_switch_that_reflects() {
    require!(NAMESPACES);
    Worlds::new(true, "--macvlan-compat", "").compare(1, 12);
}

#[test]
fn compat_is_macvlan_behind_a_switch_that_does_not() {
    require!(NAMESPACES);
    Worlds::new(false, "--macvlan-compat", "").compare(2, 12);
}

/// The same lab twice, of macvlan children and of vswitch ports.
pub(crate) struct Worlds {
    pub(crate) macvlan: Fabric,
    pub(crate) vswitch: Fabric,
    pub(crate) roles: Roles,
}

impl Worlds {
    /// With options for `vswitch up` and `port add`.
    pub(crate) fn new(reflects: bool, up: &str, add: &str) -> Self {
        let lab = || Lab::new(Outside::Adjacent { reflects }, &STATIONS);
        let children = Macvlan { modes: vec![Mode::Bridge; STATIONS.len()] };
        let ports = STATIONS.iter().fold(Vswitch::with(up), |vswitch, station| vswitch.child(station, add));
        let roles = STATIONS.into_iter().map(|station| (station, Role::of(Mode::Bridge))).collect();
        Self::of(Fabric::new(children, lab()), Fabric::new(ports, lab()), roles)
    }

    pub(crate) fn of(macvlan: Fabric, vswitch: Fabric, roles: Roles) -> Self {
        let mut worlds = Self { macvlan, vswitch, roles };
        for fabric in [&mut worlds.macvlan, &mut worlds.vswitch] {
            fabric.host_hears(PAUSE);
            fabric.lab.relay_link_local();
        }
        worlds
    }

    /// Rounds of frames, each with other modes.
    fn compare(&mut self, seed: u64, rounds: usize) {
        let (mut random, mut sent, started) = (Random(seed), 0, Instant::now());
        for round in 0..rounds {
            let roles = roles(&mut random, &self.macvlan.lab);
            self.change_to(&roles);
            let frames = frames(&mut random, &self.macvlan.lab);
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
        assert_eq!(count, 0, "{title}: {count} of {} frames, with {}:{shown}", frames.len(), self.named());
    }

    /// Each frame with its receivers among the children and among the ports.
    pub(crate) fn exchange<'a>(
        &self,
        frames: &'a [(&'static str, Frame)],
    ) -> Vec<(&'static str, &'a Frame, Receipts, Receipts)> {
        // The adjacent switches must agree, whatever a round has taught them.
        self.macvlan.introduce();
        self.vswitch.introduce();
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
