//! Are the oracles right? The kernel's bridge and macvlan do, in our labs and seen by our ears, what is known of them.

use std::{thread, time::Duration};

use vswitch_tests::{
    fabric::{Fabric, Knob, Mode},
    frame::{BROADCAST, MULTICAST, UNKNOWN, link_local, to},
    lab::{Lab, Outside},
    oracle::{LinuxBridge, Macvlan},
    require,
    require::NAMESPACES,
    table::rows,
};

/// Stations a, b and c, and ext behind the uplink.
fn bridge() -> Fabric {
    Fabric::new(LinuxBridge, Lab::new(Outside::Station, &["a", "b", "c"]))
}

#[test]
fn bridge_floods_what_it_does_not_know_and_learns_from_every_frame() {
    require!(NAMESPACES);
    let fabric = bridge();
    fabric.check(
        "before anything is learned",
        &[
            ("a", to(UNKNOWN), "b c ext"),
            ("host", to("b"), "a b c ext"),
            ("a", to("b"), "b c ext"),
            ("b", to("a"), "a"),
            ("a", to("b"), "b"),
            ("a", to("host"), "host"),
            ("ext", to("a"), "a"),
            ("host", to("b"), "b"),
        ],
    );
    fabric.check(
        "a station that moves is followed by the next frame",
        &[("a", to("b"), "b"), ("c", to(UNKNOWN).from("b"), "a b ext"), ("a", to("b"), "c")],
    );
}

#[test]
fn bridge_gives_group_frames_to_all_but_the_sender() {
    require!(NAMESPACES);
    let rows = |dst| {
        [
            ("a", to(dst), "b c ext host"),
            ("a", to(dst).vlan(7), "b c ext (host)"),
            ("a", to(dst).len(1514), "b c ext host"),
            ("ext", to(dst), "a b c host"),
            ("host", to(dst), "a b c ext"),
        ]
    };
    let fabric = bridge();
    fabric.check("broadcast", &rows(BROADCAST));
    fabric.check("multicast", &rows(MULTICAST));
}

#[test]
fn bridge_port_flags_decide_who_receives() {
    require!(NAMESPACES);
    let mut fabric = bridge();
    fabric.introduce();
    fabric.check("hairpin off", &[("a", to("a"), "nobody"), ("a", to(BROADCAST), "b c ext host")]);
    fabric.set("a", Knob::Hairpin, true);
    fabric.check(
        "hairpin on",
        &[("a", to("a"), "a"), ("a", to(BROADCAST), "a b c ext host"), ("a", to(UNKNOWN), "a b c ext")],
    );
    fabric.set("a", Knob::Hairpin, false).set("a", Knob::Isolated, true).set("b", Knob::Isolated, true);
    fabric.check(
        "a and b isolated",
        &[
            ("a", to("b"), "nobody"),
            ("a", to("c"), "c"),
            ("a", to("host"), "host"),
            ("a", to(BROADCAST), "c ext host"),
            ("c", to(BROADCAST), "a b ext host"),
            ("host", to("a"), "a"),
        ],
    );
    fabric.set("a", Knob::Isolated, false).set("b", Knob::Isolated, false).set("c", Knob::Flood, false);
    fabric.check(
        "flood off at c",
        &[
            ("a", to(UNKNOWN), "b ext"),
            ("a", to(BROADCAST), "b c ext host"),
            ("a", to("c"), "c"),
            ("host", to(UNKNOWN), "a b ext"),
        ],
    );
    fabric.set("c", Knob::Flood, true).set("c", Knob::McastFlood, false).set("b", Knob::BcastFlood, false);
    fabric.check(
        "mcast_flood off at c, bcast_flood off at b, which the host's own frames ignore",
        &[
            ("a", to(MULTICAST), "b ext host"),
            ("a", to(BROADCAST), "c ext host"),
            ("host", to(MULTICAST), "a b c ext"),
            ("host", to(BROADCAST), "a b c ext"),
        ],
    );
}

#[test]
fn bridge_learns_only_where_and_for_as_long_as_it_may() {
    require!(NAMESPACES);
    let mut fabric = bridge();
    fabric.set("a", Knob::Learning, false);
    fabric.introduce();
    fabric.check("learning off at a", &[("b", to("a"), "a c ext"), ("a", to("b"), "b")]);
    fabric.add_static(UNKNOWN, "c");
    fabric.check("a static entry", &[("a", to(UNKNOWN), "c"), ("host", to(UNKNOWN), "c")]);
    fabric.set_ageing(Duration::from_secs(1));
    fabric.introduce();
    thread::sleep(Duration::from_millis(2500));
    fabric.check("aged, but not what is static", &[("a", to("b"), "b c ext"), ("a", to(UNKNOWN), "c")]);
}

#[test]
fn bridge_drops_bad_sources_and_keeps_link_local_frames() {
    require!(NAMESPACES);
    let fabric = bridge();
    fabric.introduce();
    fabric.check(
        "sources that nobody can have",
        &[
            ("a", to("b").from(MULTICAST), "nobody"),
            ("a", to(BROADCAST).from(BROADCAST), "nobody"),
            ("a", to(BROADCAST).from([0; 6]), "nobody"),
        ],
    );
    fabric.check(
        "01-80-C2-00-00-0X: a frame for the port itself is the host's, but not by way of the bridge device",
        &[
            ("a", to(link_local(0x0)), "b c ext host"),
            ("a", to(link_local(0x1)), "nobody"),
            ("a", to(link_local(0x3)), "host@a"),
            ("ext", to(link_local(0xe)), "host@ext"),
        ],
    );
}

const CHILDREN: [(&str, Mode); 6] = [
    ("B1", Mode::Bridge),
    ("B2", Mode::Bridge),
    ("V3", Mode::Vepa),
    ("V4", Mode::Vepa),
    ("P5", Mode::Private),
    ("P6", Mode::Private),
];

fn six_children(reflects: bool) -> Fabric {
    let lab = Lab::new(Outside::Adjacent { reflects }, &CHILDREN.map(|(name, _)| name));
    let fabric = Fabric::new(Macvlan { modes: CHILDREN.map(|(_, mode)| mode).to_vec() }, lab);
    // The adjacent switch must know where everyone is, or it floods what it should keep or reflect.
    fabric.introduce();
    fabric
}

// The two tables that `tests/observed.rs` holds the model against, with the host as one more station. These children take
// all groups, so that multicast must go where broadcast goes, and "group" tries both.

#[test]
fn macvlan_behind_a_reflecting_switch() {
    require!(NAMESPACES);
    six_children(true).check(
        "the adjacent switch reflects",
        &rows(
            "from | ext | B1 | B2 | V3 | V4 | P5 | P6 | host | group
             ext  | -   | B1 | B2 | V3 | V4 | P5 | P6 | host | B1 B2 V3 V4 P5 P6 host
             B1   | ext | -  | B2 | V3 | V4 | P5 | P6 | host | ext B2 V3 V4 host
             V3   | ext | B1 | B2 | -  | V4 | P5 | P6 | host | ext B1 B2 V4 host
             P5   | ext | B1 | B2 | V3 | V4 | -  | P6 | host | ext P5
             host | ext | B1 | B2 | V3 | V4 | P5 | P6 | -    | ext B1 B2 V3 V4 P5 P6 host",
        ),
    );
}

#[test]
fn macvlan_behind_a_plain_switch() {
    require!(NAMESPACES);
    six_children(false).check(
        "the adjacent switch does not reflect",
        &rows(
            "from | ext | B1     | B2     | V3     | V4     | P5     | P6     | host   | group
             ext  | -   | B1     | B2     | V3     | V4     | P5     | P6     | host   | B1 B2 V3 V4 P5 P6 host
             B1   | ext | -      | B2     | nobody | nobody | nobody | nobody | nobody | ext B2
             V3   | ext | nobody | nobody | -      | nobody | nobody | nobody | nobody | ext
             P5   | ext | nobody | nobody | nobody | nobody | -      | nobody | nobody | ext
             host | ext | nobody | nobody | nobody | nobody | nobody | nobody | -      | ext",
        ),
    );
}

#[test]
fn macvlan_modes_change_on_a_live_child() {
    require!(NAMESPACES);
    let mut fabric = six_children(true);
    fabric.set_mode("P5", Mode::Vepa);
    fabric.check("a private child becomes a VEPA", &[("P5", to(BROADCAST), "ext B1 B2 V3 V4 host")]);
    fabric.lab.reflect(false);
    fabric.set_mode("P5", Mode::Bridge);
    fabric.check(
        "then a bridge, without reflection",
        &[("P5", to("B1"), "B1"), ("P5", to(BROADCAST), "ext B1 B2"), ("B1", to("P5"), "P5")],
    );
}

#[test]
fn macvlan_source_children_hear_whom_they_list() {
    require!(NAMESPACES);
    let lab = Lab::new(Outside::Adjacent { reflects: false }, &["S1", "S2", "B3"]);
    let listed = lab.mac("ext");
    let mut fabric = Fabric::new(Macvlan { modes: vec![Mode::Source, Mode::Source, Mode::Bridge] }, lab);
    fabric.introduce();
    fabric.set_sources("S1", &[listed, UNKNOWN]);
    fabric.check(
        "S1 lists ext and another, S2 nobody",
        &[
            ("ext", to("B3"), "S1 B3"),
            ("ext", to("S1"), "S1 (host)"),
            ("ext", to("S2"), "S1 (host)"),
            ("ext", to("host"), "S1 host"),
            ("ext", to(BROADCAST), "S1 B3 host"),
            ("ext", to(BROADCAST).from(UNKNOWN), "S1 B3 host"),
            ("S1", to(BROADCAST), "ext"),
        ],
    );
}

#[test]
fn macvlan_passthru_takes_all_unicast() {
    require!(NAMESPACES);
    let lab = Lab::new(Outside::Adjacent { reflects: false }, &["T1"]);
    let fabric = Fabric::new(Macvlan { modes: vec![Mode::Passthru] }, lab);
    fabric.check(
        "whatever the address",
        &[
            ("ext", to("host"), "T1"),
            ("ext", to(UNKNOWN), "T1"),
            ("ext", to(BROADCAST), "T1 host"),
            ("T1", to(UNKNOWN).from("host"), "ext"),
        ],
    );
}

#[test]
fn a_station_may_go_down_and_come_back() {
    require!(NAMESPACES);
    let fabric = bridge();
    fabric.introduce();
    fabric.link("b", false);
    fabric.check("b is down", &[("a", to(BROADCAST), "c ext host"), ("a", to("c"), "c")]);
    fabric.link("b", true);
    fabric.check("b is back", &[("a", to(BROADCAST), "b c ext host"), ("b", to("a"), "a")]);
}
