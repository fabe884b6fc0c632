//! Interfaces that cannot be ports.

use serde_json::Value;
use vswitch_tests::{
    frame::colons,
    hosts::Hosts,
    lab::{HOST, Lab, OUTSIDE, Outside},
    require,
    require::{NAMESPACES, skipped},
    topo::Netns,
    vswitch::{self, Vswitch},
};

use crate::bad_input::{Bench, NEEDS, same};

/// A switch that is not made, and a port that is not added: the same line, and nothing is left.
fn neither_up_nor_add(bench: &Bench, ifname: &str, line: &str) {
    let before = bench.state();
    bench.refuses(&format!("up h4 --uplink {ifname}"), 1, line);
    bench.run("up h1");
    bench.refuses(&format!("port add {ifname}"), 1, line);
    bench.run("down");
    same(&before, &bench.state(), "all of this");
}

#[test]
fn one_that_is_not_there() {
    require!(NEEDS);
    let line = r#"interface "nosuch": not found (`ip link` shows those of this network namespace)"#;
    neither_up_nor_add(&Bench::new(), "nosuch", line);
}

#[test]
fn loopback_and_tun() {
    require!(NEEDS);
    let bench = Bench::new();
    let line = r#""lo": loopback carries no frames of other stations: name another interface"#;
    neither_up_nor_add(&bench, "lo", line);
    bench.machine.ip("tuntap add tun0 mode tun");
    let line = r#""tun0": a tun carries IP packets without Ethernet headers: make it a tap (mode tap)"#;
    neither_up_nor_add(&bench, "tun0", line);
}

#[test]
fn one_of_a_bridge() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.machine.ip_all(["link add br0 type bridge", "link set h5 master br0"]);
    neither_up_nor_add(&bench, "h5", r#""h5": already a port of bridge br0: ip link set h5 nomaster"#);
}

/// Where the kernel has no bonding, this tries nothing: the bridge's case takes the same way, and the unit tests of
/// `net::ready` have a bond.
#[test]
fn one_of_a_bond() {
    require!(NEEDS);
    let bench = Bench::new();
    let made = bench.machine.command("ip").args(["link", "add", "bond0", "type", "bond"]).output().unwrap();
    if !made.status.success() {
        return skipped("bad_input_interfaces::one_of_a_bond", "this kernel has no bonding");
    }
    bench.machine.ip_all(["link set h5 down", "link set h5 master bond0"]);
    neither_up_nor_add(&bench, "h5", r#""h5": already a port of bond bond0: ip link set h5 nomaster"#);
}

#[test]
fn one_of_another_switch() {
    require!(NEEDS);
    let bench = Bench::new();
    let other = vswitch::unique_name();
    vswitch::run(&bench.machine, &other, "up h5");
    let line = format!(
        r#""h5": already a port of switch "{other}": remove it there first (vswitch -s {other} port del h5)"#
    );
    neither_up_nor_add(&bench, "h5", &line);
    vswitch::run(&bench.machine, &other, "down");
}

/// A NIC has other names too, which the kernel takes where it is asked for one.
#[test]
fn another_name_of_one() {
    require!(NEEDS);
    let bench = Bench::up();
    bench
        .machine
        .ip_all(["link property add dev h1 altname enp0s1", "link property add dev h5 altname enp0s5"]);
    let line = |number| format!(r#""enp0s{number}": is another name of interface "h{number}": use that"#);
    bench.refuses("port add enp0s1 --uplink", 1, &line(1));
    bench.refuses("port add enp0s5", 1, &line(5));
}

/// Renamed while nobody follows: the record has the old name.
#[test]
fn one_that_is_a_port_under_its_old_name() {
    require!(NAMESPACES);
    let hosts = Hosts::new(Vswitch::new(), Lab::new(Outside::Station, &["a", "b"]));
    let machine = &hosts.lab.switch;
    machine.rename("h1", "web0");
    let refuses = |name: &str, line: &str| {
        let output = vswitch::command(machine, name, "port add web0").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("vswitch: {line}\n"));
        assert_eq!(output.status.code(), Some(1));
        // It is still the port that it was: what comes from there enters the switch.
        for (from, to) in [("b", "a"), ("b", OUTSIDE), (HOST, "b")] {
            hosts.ping(from, to, "-c 3 -i 0.01 -W 1").assert_all("pings of a renamed port");
        }
    };
    refuses(&hosts.switch.name, r#""web0": is port h1 already: remove that one first (vswitch port del h1)"#);
    let other = vswitch::unique_name();
    vswitch::run(machine, &other, "up");
    let name = &hosts.switch.name;
    refuses(
        &other,
        &format!(
            r#""web0": already a port of switch "{name}": remove it there first (vswitch -s {name} port del h1)"#
        ),
    );
    vswitch::run(machine, &other, "down");
}

#[test]
fn one_with_somebody_elses_xdp_program() {
    require!(NEEDS);
    let bench = Bench::new();
    // The program of a switch without ports is as foreign as any.
    let other = vswitch::unique_name();
    vswitch::run(&bench.machine, &other, "up");
    let program = vswitch::pins(&other).join("programs/vswitch_xdp").display().to_string();
    bench.machine.ip(&format!("link set h5 xdpdrv pinned {program}"));
    let link: Value = serde_json::from_str(&bench.machine.ip("-d -j link show h5")).unwrap();
    let id = &link[0]["xdp"]["prog"]["id"];
    let line = format!(
        r#""h5": another XDP program is attached (id {id}): see `bpftool net show dev h5`; ip link set h5 xdp off"#
    );
    neither_up_nor_add(&bench, "h5", &line);
    bench.machine.ip("link set h5 xdp off");
    vswitch::run(&bench.machine, &other, "down");
}

#[test]
fn the_same_one_twice() {
    require!(NEEDS);
    let bench = Bench::new();
    let line = "port h1: the interface is in this switch twice; remove one of the two";
    bench.refuses("up h1 h1", 2, line);
    bench.refuses("up --uplink h1 h1", 2, line);
    bench.run("up --uplink h1 h2");
    for (args, ifname) in [("h2", "h2"), ("h1 --uplink", "h1"), ("h2 --tap", "h2")] {
        let name = &bench.name;
        let line =
            format!("port {ifname}: is a port of {name} already; `vswitch port set {ifname}` changes it");
        bench.refuses(&format!("port add {args}"), 1, &line);
    }
}

#[test]
fn those_without_native_xdp_or_with_too_long_frames() {
    require!(NEEDS);
    let bench = Bench::up();
    bench.machine.ip("link add br0 type bridge");
    bench.refuses("port add br0 --datapath xdp", 1, r#""br0": bridge has no native XDP: use --datapath tc"#);
    let far = bench.far.name();
    bench.far.ip("link set p4 mtu 9000");
    let line = format!(
        r#""h4": the MTU 9000 of its peer p4 in {far} is above the 3506 that native XDP on a veth carries: lower it (ip -n {far} link set p4 mtu 3506) or use --datapath tc"#
    );
    bench.refuses("port add h4 --datapath xdp", 1, &line);
    let line = r#""h5": generic XDP on an uplink: a frame handed to the host would enter the switch again: use --datapath tc"#;
    bench.refuses("port add h5 --datapath xdp-generic --uplink", 1, line);
}

/// The second uplink fails when the first one works already, promiscuous bridge and all.
#[test]
fn up_takes_back_what_it_has_done() {
    require!(NEEDS);
    let bench = Bench::new();
    let mac = colons(Bench::mac(1));
    bench.machine.ip_all([
        "link add br0 type bridge",
        &format!("link set h5 address {mac}"),
        "link set h4 down",
    ]);
    let line = format!(r#""h5": address {mac}: is the host's own, of uplink h1: choose another"#);
    bench.refuses("up --uplink br0 --uplink h1 --uplink h5 h4", 1, &line);
    bench.assert_gone();
}

#[test]
fn names_that_cannot_be_or_are_taken() {
    require!(NEEDS);
    let bench = Bench::up();
    let other = Netns::new("other");
    let (far, there) = (bench.far.name(), other.name());
    let long = |what: &str, name: &str| {
        format!(r#"{what}"{name}" has {} bytes, an interface's name 15 at most; shorten it"#, name.len())
    };
    let name = "sixteen-bytes-xx";
    bench.refuses(&format!("port add {name} --tap"), 2, &long(&format!("port {name}: "), name));
    bench.refuses(&format!("port add {name} --netns {there}"), 2, &long(&format!("port {name}: "), name));
    bench.refuses(&format!("port add w0 --netns {there} --peer {name}"), 2, &long("port w0: peer: ", name));
    let line = "port host: the machine itself is called so, in fdb show and stats; choose another";
    bench.refuses("port add host --tap", 2, line);
    for (bad, c) in [("a/b", '/'), ("a:1", ':'), ("w%d", '%')] {
        let line = format!("port {bad}: {c:?} cannot be in an interface's name; choose another");
        bench.refuses(&format!("port add {bad} --tap"), 2, &line);
        let line = format!("port w0: peer: {c:?} cannot be in an interface's name; choose another");
        bench.refuses(&format!("port add w0 --netns {there} --peer {bad}"), 2, &line);
    }

    let taken = r#""h5": an interface of that name exists already: choose another name, or leave out --netns and --tap to add that one"#;
    bench.refuses("port add h5 --tap", 1, taken);
    bench.refuses(&format!("port add h5 --netns {there}"), 1, taken);
    let line = r#"create veth "w0" with peer "p1": an interface "p1" exists already: delete it or choose another name"#;
    bench.refuses(&format!("port add w0 --netns {far} --peer p1"), 1, line);
}
