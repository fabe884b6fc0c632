//! Where is an address that moved? The same stories through the bridge and through vswitch on each datapath.

use vswitch_tests::{
    fabric::{Fabric, Knob, Switch},
    frame::{BROADCAST, Mac, UNKNOWN, colons, to},
    lab::{Lab, Outside},
    oracle::LinuxBridge,
    require,
    require::NAMESPACES,
    vswitch::{Vswitch, json, run},
};

/// The address that moves: nobody's, so that nobody else sends from it.
const NOMAD: Mac = [0x02, 0, 0, 0, 5, 0];

fn fabric(switch: impl Switch + 'static) -> Fabric {
    let fabric = Fabric::new(switch, Lab::new(Outside::Station, &["a", "b", "c"]));
    fabric.introduce();
    fabric
}

/// Tells the story to the bridge, and to vswitch on tc, on XDP and on both.
fn everywhere(story: fn(&mut Fabric)) {
    story(&mut fabric(LinuxBridge));
    story(&mut fabric(Vswitch::new()));
    story(&mut fabric(Vswitch::new().datapath("b", "xdp")));
    let xdp = Vswitch::new().datapath("a", "xdp").datapath("b", "xdp").datapath("c", "xdp");
    story(&mut fabric(xdp.datapath("ext", "xdp")));
}

#[test]
fn the_very_next_frame_follows() {
    require!(NAMESPACES);
    everywhere(|fabric| {
        let mut rows = Vec::new();
        for (old, new, sender) in [("a", "b", "c"), ("b", "c", "ext"), ("c", "ext", "a"), ("ext", "a", "b")] {
            for _ in 0..25 {
                rows.push((old, to(sender).from(NOMAD), sender));
                rows.push((sender, to(NOMAD), old));
                rows.push(("host", to(NOMAD), old));
                rows.push((new, to(sender).from(NOMAD), sender));
                rows.push((sender, to(NOMAD), new));
                rows.push(("host", to(NOMAD), new));
            }
        }
        fabric.check("an address between two ports", &rows);
    });
}

#[test]
fn a_static_entry_moves_and_stays_static() {
    require!(NAMESPACES);
    everywhere(|fabric| {
        fabric.add_static(NOMAD, "b");
        fabric.check(
            "to where it was last seen",
            &[("a", to(NOMAD), "b"), ("c", to("a").from(NOMAD), "a"), ("a", to(NOMAD), "c")],
        );
        fabric.flush();
        fabric.check("forgetting does not concern it", &[("a", to(NOMAD), "c"), ("a", to("b"), "b c ext")]);
        fabric.add_static(NOMAD, "b");
        fabric.check("back by the user's word", &[("a", to(NOMAD), "b")]);
    });
}

#[test]
fn a_move_changes_who_may_reach_it() {
    require!(NAMESPACES);
    everywhere(|fabric| {
        fabric.set("a", Knob::Isolated, true).set("b", Knob::Isolated, true);
        let seen_at = |port| (port, to("host").from(NOMAD), "host");
        fabric.check(
            "between an isolated port and others",
            &[
                seen_at("c"),
                ("a", to(NOMAD), "c"),
                seen_at("b"),
                ("a", to(NOMAD), "nobody"),
                ("c", to(NOMAD), "b"),
                ("host", to(NOMAD), "b"),
                seen_at("a"),
                ("a", to(NOMAD), "nobody"),
                ("b", to(NOMAD), "nobody"),
                ("ext", to(NOMAD), "a"),
                seen_at("ext"),
                ("a", to(NOMAD), "ext"),
            ],
        );
        fabric.set("a", Knob::Hairpin, true);
        fabric.check(
            "hairpin brings it back",
            &[seen_at("a"), ("a", to(NOMAD), "nobody"), ("c", to(NOMAD), "a")],
        );
        fabric.set("a", Knob::Isolated, false);
        fabric.check("and isolation ends", &[("a", to(NOMAD), "a"), ("b", to(NOMAD), "a")]);
    });
}

#[test]
fn where_nothing_is_learned_nothing_moves() {
    require!(NAMESPACES);
    everywhere(|fabric| {
        fabric.set("b", Knob::Learning, false);
        fabric.check(
            "a port that does not learn",
            &[
                ("b", to("a").from(NOMAD), "a"),
                ("a", to(NOMAD), "b c ext"),
                ("c", to("a").from(NOMAD), "a"),
                ("b", to("a").from(NOMAD), "a"),
                ("a", to(NOMAD), "c"),
                ("b", to(NOMAD), "c"),
            ],
        );
        fabric.check(
            "the host's address is the host's, and a frame that says otherwise is carried all the same",
            &[("a", to("c").from("host"), "c"), ("c", to("host"), "host"), ("ext", to("host"), "host")],
        );
    });
}

#[test]
fn a_station_that_goes_away_is_found_elsewhere() {
    require!(NAMESPACES);
    everywhere(|fabric| {
        fabric.exchange(&[("b", to("a").from(NOMAD))]);
        fabric.link("b", false);
        fabric.check(
            "its port is dead, and it speaks up at another",
            &[
                ("a", to(BROADCAST), "c ext host"),
                ("host", to(BROADCAST), "a c ext"),
                ("c", to("a").from(NOMAD), "a"),
                ("a", to(NOMAD), "c"),
                ("ext", to(NOMAD), "c"),
            ],
        );
        fabric.link("b", true);
        fabric.check("and comes back", &[("b", to("a").from(NOMAD), "a"), ("c", to(NOMAD), "b")]);
    });
}

#[test]
fn an_address_bound_to_a_port_does_not_move() {
    require!(NAMESPACES);
    let vswitch = Vswitch::new();
    let name = vswitch.name.clone();
    let fabric = fabric(vswitch);
    run(&fabric.lab.switch, &name, &format!("port set {} --mac {}", fabric.lab.port("b"), colons(NOMAD)));
    fabric.check(
        "known before its first frame, whoever else sends from it",
        &[
            ("a", to(NOMAD), "b"),
            ("c", to("a").from(NOMAD), "a"),
            ("a", to(NOMAD), "b"),
            ("host", to(NOMAD), "b"),
        ],
    );
}

#[test]
fn an_address_moves_between_ports_and_the_host() {
    require!(NAMESPACES);
    let vswitch = Vswitch::new();
    let name = vswitch.name.clone();
    let mut fabric = fabric(vswitch);
    fabric.check(
        "a container behind a macvlan of the uplink, and then behind a port",
        &[
            ("host", to("ext").from(NOMAD), "ext"),
            // For the uplink's stack: a macvlan on it takes it, a packet socket sees somebody else's frame.
            ("a", to(NOMAD), "(host)"),
            ("ext", to(NOMAD), "(host)"),
            ("b", to("a").from(NOMAD), "a"),
            ("a", to(NOMAD), "b"),
            ("host", to(NOMAD), "b"),
            ("host", to("a").from(NOMAD), "a"),
            ("b", to(NOMAD), "(host)"),
        ],
    );
    fabric.add_static(UNKNOWN, "c");
    fabric.check("a static one too", &[("b", to("a").from(UNKNOWN), "a"), ("a", to(UNKNOWN), "b")]);
    let shown = json(&fabric.lab.switch, &name, &format!("fdb get {}", colons(UNKNOWN)));
    assert_eq!((&shown[0]["type"], &shown[0]["ifname"]), (&"static".into(), &fabric.lab.port("b").into()));
}
