//! Is it the same whichever program decides? Ports on XDP, and mixed with ports on tc, against the same oracle.

use vswitch_tests::{
    fabric::Fabric,
    frame::{BROADCAST, Mac, to},
    lab::{Lab, Outside, STATION_IF},
    observe::{Send, exchange},
    require,
    require::NAMESPACES,
    topo::{End, veth},
    vswitch::{Vswitch, run},
    wire::{Ear, Station},
};

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

/// A cable with both ends on this machine is not delivered to by `bpf_redirect_peer`, which would lose its frames.
fn far_end_on_this_machine(datapath: &str) {
    const NEAR: Mac = [0x02, 0, 0, 0, 7, 0];
    let vswitch = Vswitch::new();
    let name = vswitch.name.clone();
    let fabric = Fabric::new(vswitch, Lab::new(Outside::Station, &["a"]));
    let machine = &fabric.lab.switch;
    veth(
        End { netns: machine, ifname: "v0", mac: [0x02, 0, 0, 0, 7, 1] },
        End { netns: machine, ifname: "v1", mac: NEAR },
    );
    run(machine, &name, &format!("port add v0 --datapath {datapath}"));
    let a = fabric.lab.member("a");
    let near = Station::new("near", machine, "v1", NEAR, Ear::Tap);
    near.await_carrier("v1");
    let stations = [near, Station::new("a", &a.netns, STATION_IF, a.mac, Ear::Tap)];
    let [near, far] = &stations;
    // The addresses are those of `Send`.
    let frame = to(BROADCAST);
    let sends = [(near, BROADCAST), (far, BROADCAST), (near, far.mac), (far, near.mac)];
    let sends = sends.map(|(station, dst)| Send { station, frame: &frame, dst, src: station.mac });
    let receipts = exchange(&stations, &sends, None);
    for (receipts, expected) in receipts.iter().zip(["a", "near", "a", "near"]) {
        assert!(*receipts == expected, "expected {expected}, received by {receipts}");
    }
}

#[test]
fn a_far_end_on_this_machine() {
    require!(NAMESPACES);
    far_end_on_this_machine("tc");
    far_end_on_this_machine("xdp");
}
