//! How is the host a member? Without an uplink, with one, with two, and with host access off.

use vswitch_tests::{
    fabric::Fabric,
    frame::{BROADCAST, MULTICAST, UNKNOWN, link_local, to},
    lab::{HOST_MAC, Lab, Outside},
    require,
    require::NAMESPACES,
    vswitch::Vswitch,
};

/// tc alone, and XDP wherever it may be.
fn both(make: fn() -> Vswitch, outside: Outside, stations: &[&str], story: fn(&Fabric)) {
    let xdp = stations.iter().fold(make(), |vswitch, name| vswitch.datapath(name, "xdp"));
    let xdp = if outside == Outside::Nothing { xdp } else { xdp.datapath("ext", "xdp") };
    for vswitch in [make(), xdp] {
        let fabric = Fabric::new(vswitch, Lab::new(outside, stations));
        fabric.introduce();
        story(&fabric);
    }
}

#[test]
fn the_host_hears_and_is_heard_once() {
    require!(NAMESPACES);
    both(Vswitch::new, Outside::Station, &["a", "b"], |fabric| {
        fabric.check(
            "one uplink",
            &[
                ("a", to("host"), "host"),
                ("ext", to("host"), "host"),
                ("host", to("a"), "a"),
                ("host", to("ext"), "ext"),
                ("host", to(UNKNOWN), "a b ext"),
                ("host", to(BROADCAST), "a b ext"),
                ("host", to(MULTICAST).vlan(7), "a b ext"),
                ("a", to(BROADCAST), "b ext host"),
                ("ext", to(MULTICAST), "a b host"),
                ("ext", to(link_local(0xe)), "host"),
                ("a", to(link_local(0xe)), "host@a"),
                ("host", to(link_local(0xe)), "ext"),
            ],
        );
    });
}

#[test]
fn without_host_access_ports_and_host_meet_outside_as_with_macvlan() {
    require!(NAMESPACES);
    both(
        || Vswitch::with("--host-access off"),
        Outside::Station,
        &["a", "b"],
        |fabric| {
            fabric.check(
                "host access off",
                &[
                    ("a", to("host"), "ext"),
                    ("host", to("a"), "ext"),
                    ("a", to(BROADCAST), "b ext"),
                    ("host", to(BROADCAST), "ext"),
                    ("host", to(UNKNOWN), "ext"),
                    ("a", to(UNKNOWN), "b ext"),
                    ("ext", to("host"), "host"),
                    ("host", to("ext"), "ext"),
                    ("ext", to(BROADCAST), "a b host"),
                    ("a", to("b"), "b"),
                    ("a", to(link_local(0xe)), "host@a"),
                ],
            );
        },
    );
}

#[test]
fn without_uplink_there_is_no_host() {
    require!(NAMESPACES);
    both(Vswitch::new, Outside::Nothing, &["a", "b", "c"], |fabric| {
        fabric.check(
            "no uplink",
            &[
                ("a", to("b"), "b"),
                ("a", to(HOST_MAC), "b c"),
                ("a", to(UNKNOWN), "b c"),
                ("a", to(BROADCAST), "b c"),
                ("a", to(MULTICAST), "b c"),
                ("a", to(link_local(0xe)), "host@a"),
            ],
        );
    });
}

#[test]
fn of_two_uplinks_each_is_the_hosts() {
    require!(NAMESPACES);
    both(
        || Vswitch::new().uplink("far"),
        Outside::Station,
        &["far", "a"],
        |fabric| {
            fabric.check(
                "the second uplink leads to far; its stack is host@far",
                &[
                    // The host is on the LAN with each of its uplinks, as if with as many cards.
                    ("ext", to(BROADCAST), "far a host host@far"),
                    ("far", to(BROADCAST), "ext a host host@far"),
                    ("a", to(BROADCAST), "ext far host host@far"),
                    ("host", to(BROADCAST), "ext far a"),
                    ("host@far", to(BROADCAST), "ext far a"),
                    // Each uplink's address is its stack's, whoever sends.
                    ("ext", to("host@far"), "host@far"),
                    ("far", to("host@far"), "host@far"),
                    ("a", to("host@far"), "host@far"),
                    ("ext", to("host"), "host"),
                    ("far", to("host"), "host"),
                    ("a", to("host"), "host"),
                    // And through either the host reaches everyone.
                    ("host", to("far"), "far"),
                    ("host", to("a"), "a"),
                    ("host@far", to("ext"), "ext"),
                    ("host@far", to("a"), "a"),
                    ("host@far", to("far"), "far"),
                    ("host@far", to(UNKNOWN), "ext far a"),
                    // Its addresses stand for themselves: from one to the other it goes by the wire.
                    ("host", to("host@far"), "ext"),
                    ("host@far", to("host"), "far"),
                    ("ext", to("far"), "far"),
                    ("far", to(link_local(0xe)), "host@far"),
                    ("host@far", to(link_local(0xe)), "far"),
                ],
            );
        },
    );
}
