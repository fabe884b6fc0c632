//! Is it the same whichever program decides? Ports on XDP, and mixed with ports on tc, against the same oracle.

use vswitch_tests::{require, require::NAMESPACES, vswitch::Vswitch};

use crate::{
    frames::Worlds,
    frames_cases::{random, systematic},
};

fn compare(seed: u64, vswitch: Vswitch) {
    let mut worlds = Worlds::new(seed, vswitch);
    let setups = random(&mut worlds.random, 12);
    worlds.compare(&systematic());
    worlds.compare(&setups);
}

#[test]
fn all_ports_on_xdp() {
    require!(NAMESPACES);
    let xdp =
        Vswitch::new().datapath("a", "xdp").datapath("b", "xdp").datapath("c", "xdp").datapath("ext", "xdp");
    compare(3, xdp);
}

#[test]
fn xdp_and_tc_ports_behind_a_tc_uplink() {
    require!(NAMESPACES);
    compare(4, Vswitch::new().datapath("a", "xdp").datapath("c", "xdp"));
}

#[test]
fn an_xdp_uplink_and_tc_ports() {
    require!(NAMESPACES);
    compare(5, Vswitch::new().datapath("ext", "xdp"));
}

#[test]
fn generic_xdp_beside_native_and_tc() {
    require!(NAMESPACES);
    compare(6, Vswitch::new().datapath("a", "xdp-generic").datapath("b", "xdp"));
}
