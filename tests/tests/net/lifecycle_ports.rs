//! Does the controller follow what becomes of its ports' interfaces?

use std::{fs, thread, time::Duration};

use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    frame::colons,
    hosts::{Hosts, until},
    lab::{HOST, Lab, OUTSIDE, Outside, STATION_IF, UPLINK},
    require,
    require::NAMESPACES,
    topo::Netns,
    vswitch::{self, Vswitch, filters},
};

const PINGS: &str = "-c 10 -i 0.01 -W 1";

fn hosts() -> (Hosts<Vswitch>, Controller) {
    let switch = Vswitch::new().datapath("b", "xdp");
    let hosts = Hosts::new(switch, Lab::new(Outside::Station, &["a", "b", "c"]));
    let controller = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    (hosts, controller)
}

fn port(hosts: &Hosts<Vswitch>, ifname: &str, key: &str) -> serde_json::Value {
    hosts.json(&format!("port show {ifname}"))[0][key].clone()
}

/// How many of its hooks for what is received the switch has, where they are filters on those interfaces.
fn hooks(hosts: &Hosts<Vswitch>, ifnames: &[&str]) -> usize {
    let links = fs::read_dir(vswitch::pins(&hosts.switch.name).join("links"));
    let links = links.unwrap().flatten().map(|pin| pin.file_name().into_string().unwrap());
    let filters = ifnames.iter().flat_map(|ifname| filters(&hosts.lab.switch, ifname));
    links.filter(|link| link.ends_with("-in")).count() + filters.filter(|(hook, _)| *hook == "in").count()
}

#[test]
fn a_deleted_interface_is_a_port_again_when_it_is_back() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    hosts.vswitch("port set h0 --isolated on");
    hosts.vswitch("fdb add 02:00:00:00:77:01 h0 --static");
    for (station, ifname) in [("a", "h0"), ("b", "h1")] {
        let datapath = port(&hosts, ifname, "datapath");
        hosts.lab.switch.ip(&format!("link del {ifname}"));
        controller.await_line(&format!("\"{ifname}\": the interface is gone"));
        until("the port is missing", AT_ONCE, || port(&hosts, ifname, "state") == "missing");
        hosts.ping("c", OUTSIDE, PINGS).assert_all("pings of others");
        hosts.lab.cable(station);
        let address = hosts.address(station);
        hosts.netns(station).ip(&format!("address add {address}/24 dev {STATION_IF}"));
        controller.await_line(&format!("\"{ifname}\": attached"));
        hosts.await_ping("c", station);
        hosts.ping("c", station, PINGS).assert_all("pings to a port that is back");
        assert_eq!(port(&hosts, ifname, "datapath"), datapath);
    }
    assert_eq!(port(&hosts, "h0", "isolated"), true);
    assert_eq!(hosts.json("fdb get 02:00:00:00:77:01")[0]["ifname"], "h0");
}

#[test]
fn a_deleted_uplink_is_an_uplink_again_when_it_is_back() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    hosts.lab.switch.ip(&format!("link del {UPLINK}"));
    controller.await_line(&format!("\"{UPLINK}\": the interface is gone"));
    hosts.ping("a", "b", PINGS).assert_all("pings without an uplink");
    hosts.lab.cable(OUTSIDE);
    for (name, ifname) in [(OUTSIDE, STATION_IF), (HOST, UPLINK)] {
        hosts.netns(name).ip(&format!("address add {}/24 dev {ifname}", hosts.address(name)));
    }
    controller.await_line(&format!("\"{UPLINK}\": attached"));
    for (from, to) in [("a", OUTSIDE), (OUTSIDE, "b"), (HOST, "a"), ("b", HOST)] {
        hosts.await_ping(from, to);
        hosts.ping(from, to, PINGS).assert_all("pings with an uplink that is back");
    }
}

#[test]
fn an_interface_that_moves_to_another_namespace_is_no_port_until_it_is_back() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    let (switch, elsewhere) = (&hosts.lab.switch, Netns::new("elsewhere"));
    assert!(switch.ip(&format!("link show {UPLINK}")).contains("PROMISC"), "the switch has set it");
    for (station, ifname) in [("a", "h0"), ("b", "h1"), (OUTSIDE, UPLINK)] {
        switch.ip(&format!("link set {ifname} netns {}", elsewhere.name()));
        controller.await_line(&format!("\"{ifname}\": the interface is gone"));
        until("the port is missing", AT_ONCE, || port(&hosts, ifname, "state") == "missing");
        let there = elsewhere.ip(&format!("-d link show {ifname}"));
        assert!(!there.contains("prog/xdp"), "the program went with it: {there}");
        elsewhere.ip(&format!("link set {ifname} netns {}", switch.name()));
        controller.await_line(&format!("\"{ifname}\": attached"));
        hosts.await_ping("c", station);
        hosts.ping("c", station, PINGS).assert_all("pings to a port that is back");
    }
    // What the switch did before the move is undone in the end.
    hosts.vswitch(&format!("port del {UPLINK}"));
    assert!(!switch.ip(&format!("link show {UPLINK}")).contains("PROMISC"));
}

#[test]
fn a_port_that_takes_a_missing_ports_name_keeps_its_own() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    let switch = &hosts.lab.switch;
    switch.ip("link del h0");
    controller.await_line("\"h0\": the interface is gone");
    switch.ip("link set h2 name h0");
    controller.await_line("\"h2\": its interface is called h0 now, which is another port's name");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(hooks(&hosts, &[UPLINK, "h0", "h1"]), 3, "nic0, h1 and the one called h0 now");
    hosts.await_ping("b", "c");
    assert_eq!(port(&hosts, "h2", "state"), "degraded");
    hosts.vswitch("port set h1 --isolated off");
    hosts.vswitch("port del h0");
    controller.await_line("\"h2\": is now called \"h0\"");
    until("its name is its own", AT_ONCE, || port(&hosts, "h0", "state") == "forwarding");
    hosts.ping("b", "c", PINGS).assert_all("pings to a port with a name that was another's");
}

/// An index that the next interface gets too, as a user may ask for it: by index alone they are the same.
#[test]
fn an_interface_with_the_index_of_a_deleted_one_is_another() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    let index = hosts.lab.switch.ifindex("h0");
    let mac = colons(hosts.lab.mac("a"));
    hosts.lab.switch.ip_all([
        "link del h0".to_owned(),
        format!(
            "link add h0 index {index} type veth peer name {STATION_IF} address {mac} netns {}",
            hosts.netns("a").name()
        ),
        "link set h0 up".to_owned(),
    ]);
    hosts.netns("a").ip(&format!("address add {}/24 dev {STATION_IF}", hosts.address("a")));
    hosts.netns("a").ip(&format!("link set {STATION_IF} up"));
    controller.await_line("\"h0\": attached");
    hosts.await_ping("c", "a");
}

#[test]
fn a_renamed_interface_stays_a_port() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    for (old, new) in [("h0", "web0"), ("h1", "db0")] {
        hosts.lab.switch.ip(&format!("link set {old} name {new}"));
        controller.await_line(&format!("\"{old}\": is now called \"{new}\""));
        assert_eq!(port(&hosts, new, "state"), "forwarding");
    }
    hosts.ping("a", "b", PINGS).assert_all("pings between renamed ports");
    hosts.vswitch("port del web0");
}

#[test]
fn a_changed_mtu_is_followed() {
    require!(NAMESPACES);
    let (hosts, _controller) = hosts();
    // Only the switch's end changes: the frame would be lost at the interface without a word.
    hosts.lab.switch.ip("link set h2 mtu 1400");
    let big = "-c 1 -W 0.2 -M do -s 1472";
    until("a frame above the MTU is counted", AT_ONCE, || {
        hosts.ping("a", "c", big);
        hosts.drops("a", "mtu_exceeded") > 0
    });
    hosts.ping("a", "c", "-c 3 -i 0.01 -W 1 -M do -s 1372").assert_all("pings of the new MTU");
    hosts.lab.switch.ip("link set h2 mtu 1500");
    until("the old MTU holds again", AT_ONCE, || hosts.ping("a", "c", big).received == 1);
}

#[test]
fn the_uplinks_new_address_is_the_hosts() {
    require!(NAMESPACES);
    let (hosts, _controller) = hosts();
    let old = colons(hosts.lab.mac(HOST));
    hosts.lab.switch.ip(&format!("link set {UPLINK} address 02:00:00:00:0a:0a"));
    let is_local = || {
        let rows = hosts.json("fdb show host");
        let macs: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["mac"].clone()).collect();
        macs == ["02:00:00:00:0a:0a"]
    };
    until("the local entry is the new address alone", AT_ONCE, is_local);
    for name in ["a", "b", OUTSIDE] {
        hosts.netns(name).ip(&format!("neighbour flush dev {STATION_IF}"));
        hosts.await_ping(name, HOST);
        hosts.ping(name, HOST, PINGS).assert_all("pings to the host's new address");
    }
    assert_ne!(old, "02:00:00:00:0a:0a");
}

#[test]
fn an_uplinks_new_address_that_is_a_ports_stays_the_ports() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    let mac = colons(hosts.lab.mac("a"));
    hosts.vswitch(&format!("port set h0 --mac {mac}"));
    hosts.lab.switch.ip(&format!("link set {UPLINK} address {mac}"));
    controller.await_line(&format!("address {mac}: belongs to port h0"));
    assert_eq!(hosts.json(&format!("fdb get {mac}"))[0]["ifname"], "h0");
    assert_eq!(port(&hosts, UPLINK, "state"), "degraded");
    hosts.ping("c", "a", PINGS).assert_all("pings to the port");
    hosts.lab.switch.ip(&format!("link set {UPLINK} address {}", colons(hosts.lab.mac(HOST))));
    controller.await_line(&format!("\"{UPLINK}\": is in order again"));
    hosts.await_ping("a", HOST);
}

#[test]
fn a_far_end_that_moves_to_another_namespace_and_home_is_reached_there() {
    require!(NAMESPACES);
    let (hosts, _controller) = hosts();
    let elsewhere = Netns::new("elsewhere");
    let (switch, address) = (&hosts.lab.switch, hosts.address("c"));
    // To the switch's own namespace, where the kernel drops what is handed to the far end directly; to a third; home.
    let moves =
        [(hosts.netns("c"), switch, false), (switch, &elsewhere, true), (&elsewhere, hosts.netns("c"), true)];
    for (from, to, direct) in moves {
        from.ip(&format!("link set {STATION_IF} netns {}", to.name()));
        to.ip(&format!("link set {STATION_IF} up"));
        let is_direct = || {
            let notes = port(&hosts, "h2", "notes");
            notes.as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains("directly"))
        };
        until("the port's delivery is that for its far end's namespace", AT_ONCE, || is_direct() == direct);
        if direct {
            to.ip(&format!("address add {address}/24 dev {STATION_IF}"));
            hosts.await_ping("a", "c");
            hosts.ping("a", "c", PINGS).assert_all("pings to where the far end is");
        } else {
            // In the host's own namespace an address of the same network would be the host's: count frames instead.
            let received = || switch.ip(&format!("-s -o link show {STATION_IF}"));
            let before = received();
            hosts.ping("a", "c", "-c 1 -W 0.1");
            hosts.netns("a").ip(&format!("neighbour flush dev {STATION_IF}"));
            until("frames arrive at the far end", AT_ONCE, || {
                hosts.ping("a", "c", "-c 1 -W 0.1");
                received() != before
            });
        }
    }
}

#[test]
fn a_link_that_goes_down_and_up_forwards_again() {
    require!(NAMESPACES);
    let (hosts, _controller) = hosts();
    for (station, ifname) in [("a", "h0"), ("b", "h1"), (OUTSIDE, UPLINK)] {
        hosts.lab.switch.ip(&format!("link set {ifname} down"));
        until("the port is down", AT_ONCE, || port(&hosts, ifname, "state") == "down");
        assert_eq!(hosts.ping("c", station, "-c 1 -W 0.1").received, 0);
        hosts.lab.switch.ip(&format!("link set {ifname} up"));
        until("the port forwards", AT_ONCE, || port(&hosts, ifname, "state") == "forwarding");
        hosts.await_ping("c", station);
        hosts.ping("c", station, PINGS).assert_all("pings to a port that was down");
    }
}

#[test]
fn what_cannot_be_attached_is_told_once_and_tried_again() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    let switch = &hosts.lab.switch;
    switch.ip("link del h0");
    controller.await_line("\"h0\": the interface is gone");
    switch.ip("link add br9 type bridge");
    switch.ip("link add other0 type veth peer name other1");
    switch.ip("link set other0 master br9");
    switch.ip("link set other0 name h0");
    controller.await_line("already a port of bridge br9");
    switch.ip("link set br9 up");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(port(&hosts, "h0", "state"), "missing");
    let told = controller.lines().iter().filter(|line| line.contains("already a port of bridge")).count();
    assert_eq!(told, 1, "{:#?}", controller.lines());
    switch.ip("link set h0 nomaster");
    controller.await_line("\"h0\": attached");
}

/// Not after the pause for the one before it, nor when everything is looked at the next time.
#[test]
fn what_comes_in_the_place_of_such_a_one_is_attached_at_once() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    let switch = &hosts.lab.switch;
    switch.ip_all(["link add br9 type bridge", "link add other0 type veth peer name other1"]);
    switch.ip("link del h0");
    controller.await_line("\"h0\": the interface is gone");
    switch.ip_all(["link set other0 master br9", "link set other0 name h0"]);
    controller.await_line("already a port of bridge br9");
    switch.ip("link del h0");
    controller.await_line("\"h0\": is in order again");
    hosts.lab.cable("a");
    controller.await_line("\"h0\": attached");
}

/// What comes by a missing port's name is not always free: no frame of another switch's port may enter this one.
#[test]
fn another_switchs_port_that_takes_a_missing_ports_name_stays_there() {
    require!(NAMESPACES);
    let (hosts, controller) = hosts();
    let (switch, other) = (&hosts.lab.switch, vswitch::unique_name());
    switch.ip("link add other0 type veth peer name other1");
    vswitch::run(switch, &other, "up");
    vswitch::run(switch, &other, "port add other0 --datapath tc");
    let theirs = filters(switch, "other0");
    switch.ip("link del h0");
    controller.await_line("\"h0\": the interface is gone");
    switch.rename("other0", "h0");
    controller.await_line(&format!("already a port of switch \"{other}\""));
    assert_eq!(port(&hosts, "h0", "state"), "missing");
    assert_eq!(hooks(&hosts, &[UPLINK, "h1", "h2"]), 3, "nic0, h1 and h2");
    assert_eq!(filters(switch, "h0"), theirs, "the other switch's alone");
    vswitch::run(switch, &other, "down");
    controller.await_line("\"h0\": attached");
}
