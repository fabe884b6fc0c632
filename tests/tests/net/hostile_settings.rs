//! Does the controller notice what somebody changes on the interfaces of its ports and their far ends?

use serde_json::json;
use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    frame::colons,
    hosts::{Hosts, until},
    lab::{Lab, Outside, STATION_IF, UPLINK},
    require,
    require::NAMESPACES,
    topo::{Netns, expect_success},
    vswitch::Vswitch,
};

use crate::hostile::{NEEDS, all_reach_all, hosts, port};

fn offload(netns: &Netns, ifname: &str, word: &str) -> bool {
    let text = expect_success(netns.command("ethtool").args(["-k", ifname]), None);
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{word}: "))).unwrap();
    line.starts_with("on")
}

fn ethtool(netns: &Netns, args: &str) {
    expect_success(netns.command("ethtool").args(args.split_whitespace()), None);
}

/// With its checksum offload on, TCP through an XDP port hangs while pings pass.
#[test]
fn offloads_of_an_xdp_ports_far_end_are_switched_back() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let far = hosts.netns("b");
    for (change, word, wanted) in [
        ("tx on", "tx-checksumming", false),
        ("txvlan on", "tx-vlan-offload", false),
        ("gro off", "generic-receive-offload", true),
    ] {
        assert_eq!(offload(far, STATION_IF, word), wanted);
        let took = controller.notices(": put right", || ethtool(far, &format!("-K {STATION_IF} {change}")));
        println!("{change} at the far end: put right after {took:?}");
        assert_eq!(offload(far, STATION_IF, word), wanted, "{word}");
    }
    hosts.transfer("b", "a", 1 << 20);
    hosts.transfer("a", "b", 1 << 20);
    all_reach_all(&hosts);
    // And it is all undone in the end, since the switch did it at first.
    hosts.vswitch("port del h1");
    assert!(offload(far, STATION_IF, "tx-checksumming") && offload(far, STATION_IF, "tx-vlan-offload"));
}

#[test]
fn promiscuity_that_an_uplink_needs_is_set_again() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let is_promiscuous = || hosts.lab.switch.ip(&format!("link show {UPLINK}")).contains("PROMISC");
    assert!(is_promiscuous());
    let line = format!("\"{UPLINK}\": is no longer made ready: set promiscuous: put right");
    let took = controller.notices(&line, || {
        hosts.lab.switch.ip(&format!("link set {UPLINK} promisc off"));
    });
    println!("promiscuity off: put right after {took:?}");
    assert!(is_promiscuous());
    all_reach_all(&hosts);
    hosts.vswitch("down");
    assert!(!is_promiscuous(), "it is the switch's to take back");
}

#[test]
fn unicast_filters_that_an_uplink_needs_are_entered_again() {
    require!(NAMESPACES);
    require!(NEEDS);
    let switch = Vswitch::new().child("a", "").child("b", "");
    let hosts = Hosts::new(switch, Lab::new(Outside::Station, &["a", "b"]));
    let controller = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    let mac = colons(hosts.lab.mac("a"));
    let is_filtered = || hosts.lab.switch.bridge(&format!("fdb show dev {UPLINK}")).contains(&mac);
    assert!(is_filtered(), "a station with a known address");
    let line = format!("\"{UPLINK}\": its unicast filter has lost stations: 1: put right");
    let took = controller.notices(&line, || {
        hosts.lab.switch.bridge(&format!("fdb del {mac} dev {UPLINK} self"));
    });
    println!("unicast filter removed: put right after {took:?}");
    assert!(is_filtered());
    hosts.vswitch("port del h0");
    assert!(!is_filtered());
}

#[test]
fn a_port_that_is_given_to_a_bridge_is_reported_and_left_alone() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let switch = &hosts.lab.switch;
    switch.ip("link add br9 type bridge");
    let line = "\"h0\": already a port of bridge br9: ip link set h0 nomaster";
    let took = controller.notices(line, || drop(switch.ip("link set h0 master br9")));
    println!("given to a bridge: told after {took:?}");
    assert_eq!(port(&hosts, "h0", "state"), "degraded");
    let fault = "already a port of bridge br9: ip link set h0 nomaster";
    assert_eq!(hosts.json("show")[0]["faults"], json!([format!("h0: {fault}")]));
    controller.tells("\"h0\": is in order again", AT_ONCE, || drop(switch.ip("link set h0 nomaster")));
    all_reach_all(&hosts);
}

/// The near end of a veth takes with it what was done to it, and leaves its far end as it was made ready.
#[test]
fn a_near_end_that_was_away_still_leaves_its_far_end_as_it_was_found() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let (switch, far, elsewhere) = (&hosts.lab.switch, hosts.netns("b"), Netns::new("elsewhere"));
    controller.tells("\"h1\": the interface is gone", AT_ONCE, || {
        switch.ip(&format!("link set h1 netns {}", elsewhere.name()));
    });
    until("the port is missing", AT_ONCE, || port(&hosts, "h1", "state") == "missing");
    assert!(!offload(far, STATION_IF, "tx-checksumming"), "nobody has told the far end");
    controller.tells("\"h1\": attached", AT_ONCE, || {
        elsewhere.ip(&format!("link set h1 netns {}", switch.name()));
    });
    hosts.await_ping("a", "b");
    hosts.vswitch("port del h1");
    assert!(offload(far, STATION_IF, "tx-checksumming") && offload(far, STATION_IF, "tx-vlan-offload"));
}
