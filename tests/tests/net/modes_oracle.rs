//! With `--macvlan-compat`, does vswitch do with every frame what the kernel's macvlan does?

use vswitch_tests::{
    fabric::Mode,
    frame::{BROADCAST, MULTICAST, to},
    require,
    require::NAMESPACES,
    vswitch::Vswitch,
};

use crate::{
    modes_cases::{Role, STATIONS},
    modes_worlds::Worlds,
};

const COMPAT: &str = "--macvlan-compat";
const ROUNDS: u64 = 30;

#[test]
fn behind_a_switch_that_reflects() {
    require!(NAMESPACES);
    Worlds::new(true, &STATIONS, Vswitch::with(COMPAT), "").rounds(1, ROUNDS);
}

#[test]
fn behind_a_switch_that_does_not_reflect() {
    require!(NAMESPACES);
    Worlds::new(false, &STATIONS, Vswitch::with(COMPAT), "").rounds(2, ROUNDS);
}

#[test]
fn on_xdp() {
    require!(NAMESPACES);
    for (reflects, seed) in [(true, 3), (false, 4)] {
        let vswitch = Vswitch::with(COMPAT).datapath("ext", "xdp");
        Worlds::new(reflects, &STATIONS, vswitch, "--datapath xdp").rounds(seed, 10);
    }
}

/// The one thing of macvlan that is not imitated: its list and the echo of source children are not aware of each other.
#[test]
fn a_child_that_lists_itself() {
    require!(NAMESPACES);
    let mut worlds = Worlds::new(true, &STATIONS, Vswitch::with(COMPAT), "");
    let sources = vec![worlds.macvlan.lab.mac("s0")];
    worlds.change_to(&[("s0", Role { mode: Mode::Source, sources, nodst: false })].into());
    for dst in [BROADCAST, MULTICAST] {
        worlds.macvlan.check("by the list and as an echo", &[("s0", to(dst), "ext s0*2")]);
        worlds.vswitch.check("once", &[("s0", to(dst), "ext s0")]);
    }
}

#[test]
fn with_64_ports_of_mixed_modes() {
    require!(NAMESPACES);
    let stations = (0..64).map(|number| &*format!("s{number}").leak()).collect::<Vec<_>>();
    for (reflects, seed) in [(true, 5), (false, 6)] {
        Worlds::new(reflects, &stations, Vswitch::with(COMPAT), "").rounds(seed, 1);
    }
}
