//! How do frames for stations get past the uplink's receive filter? By an address each, or by promiscuity; undone at the end.

use std::collections::BTreeSet;

use serde_json::Value;
use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    hosts::until,
    require,
    require::NAMESPACES,
    topo::{End, Netns, veth},
    vswitch,
};

/// A machine with the uplinks `nic0` and `nic1`, the interface `h0`, and two namespaces for stations.
struct Bench {
    machine: Netns,
    stations: [Netns; 2],
    outside: Netns,
    name: String,
}

const FIRST: &str = "02:00:00:00:01:01";
const SECOND: &str = "02:00:00:00:01:02";
const USERS: &str = "02:00:00:00:09:09";

impl Bench {
    fn up() -> Self {
        let (machine, outside) = (Netns::new("machine"), Netns::new("outside"));
        let stations = ["one", "two"].map(Netns::new);
        let bench = Self { machine, stations, outside, name: vswitch::unique_name() };
        for (number, here, there) in [(0, "nic0", "w0"), (1, "nic1", "w1"), (2, "h0", "p0")] {
            bench.cable(number, here, there);
        }
        bench.machine.bridge(&format!("fdb add {USERS} dev nic0 self"));
        bench.run("up --uplink nic0");
        bench
    }

    fn cable(&self, number: u8, here: &str, there: &str) {
        veth(
            End { netns: &self.machine, ifname: here, mac: [2, 0, 0, 0, 2, number] },
            End { netns: &self.outside, ifname: there, mac: [2, 0, 0, 0, 3, number] },
        );
    }

    fn run(&self, args: &str) {
        vswitch::run(&self.machine, &self.name, args);
    }

    fn add(&self, number: usize, options: &str) {
        let netns = self.stations[number].name();
        self.run(&format!("port add web{number} --netns {netns} {options}"));
    }

    /// What the kernel has: the filters for stations, and whether an uplink is promiscuous.
    #[track_caller]
    fn expect(&self, promiscuous: bool, filters: &[&str]) {
        self.expect_at("nic0", promiscuous, filters);
    }

    #[track_caller]
    fn expect_at(&self, ifname: &str, promiscuous: bool, filters: &[&str]) {
        let expected = filters.iter().map(|mac| (*mac).to_owned()).collect::<BTreeSet<_>>();
        let mut there = self.filters(ifname);
        assert!(ifname != "nic0" || there.remove(USERS), "the user's own filter is gone");
        assert_eq!(there, expected, "filters of {ifname}");
        assert_eq!(self.is_promiscuous(ifname), promiscuous, "promiscuity of {ifname}");
        let said = &vswitch::json(&self.machine, &self.name, &format!("port show {ifname}"))[0];
        let strings = |value: &Value| {
            let all = value.as_array().expect("filters").iter();
            all.map(|mac| mac.as_str().expect("an address").to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(strings(&said["filters"]), expected, "what port show says of {ifname}");
        assert_eq!(said["promisc"], promiscuous, "what port show says of {ifname}");
    }

    fn filters(&self, ifname: &str) -> BTreeSet<String> {
        let shown = self.machine.bridge(&format!("fdb show dev {ifname}"));
        let own = shown.lines().filter(|line| line.contains(" self"));
        let unicast = own
            .filter_map(|line| line.split(' ').next())
            .filter(|mac| u8::from_str_radix(&mac[..2], 16).is_ok_and(|first| first & 1 == 0));
        unicast.map(str::to_owned).collect()
    }

    /// Whether somebody has set it so. (The kernel counts also that a veth has no filters, and takes all if it has any.)
    fn is_promiscuous(&self, ifname: &str) -> bool {
        let shown = self.machine.ip(&format!("-j link show {ifname}"));
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        shown[0]["flags"].as_array().expect("flags").contains(&Value::from("PROMISC"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _gone = vswitch::command(&self.machine, &self.name, "down").output();
    }
}

#[test]
fn known_addresses_are_filters() {
    require!(NAMESPACES);
    let bench = Bench::up();
    bench.expect(false, &[]);
    bench.add(0, &format!("--mac {FIRST} --mode vepa"));
    bench.expect(false, &[FIRST]);
    bench.add(1, &format!("--mac {SECOND} --mode private"));
    bench.expect(false, &[FIRST, SECOND]);
    bench.run("port set web1 --mac 02:00:00:00:01:03");
    bench.expect(false, &[FIRST, "02:00:00:00:01:03"]);
    bench.run("port del web0");
    bench.expect(false, &["02:00:00:00:01:03"]);
    bench.run("port del web1");
    bench.expect(false, &[]);
    // The address that the kernel gives the far end is as well known.
    bench.add(0, "");
    let far = bench.stations[0].ip("-o link show eth0");
    let mac = far.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    assert!(!bench.is_promiscuous("nic0"));
    let there = bench.filters("nic0");
    assert!(there.contains(mac), "{mac} in {there:?}");
    bench.run("down");
    assert_eq!(bench.filters("nic0"), BTreeSet::from([USERS.to_owned()]));
    assert!(!bench.is_promiscuous("nic0"));
}

#[test]
fn what_nobody_can_name_takes_promiscuity() {
    require!(NAMESPACES);
    let bench = Bench::up();
    bench.add(0, &format!("--mac {FIRST}"));
    bench.expect(false, &[FIRST]);
    // A port without address: who knows what is behind it.
    bench.run("port add h0");
    bench.expect(true, &[]);
    bench.run(&format!("port set h0 --mac {SECOND} --learning off --flood off"));
    bench.expect(false, &[FIRST, SECOND]);
    bench.run("port set h0 --learning on");
    bench.expect(true, &[]);
    bench.run("port set h0 --learning off");
    bench.expect(false, &[FIRST, SECOND]);
    bench.run("port del h0");
    bench.expect(false, &[FIRST]);
    // A second uplink: frames of others pass from one to the other.
    bench.run("port add nic1 --uplink");
    bench.expect(true, &[]);
    bench.expect_at("nic1", true, &[]);
    bench.run("port del nic1");
    bench.expect(false, &[FIRST]);
    assert!(!bench.is_promiscuous("nic1"));
    bench.run("port add h0");
    bench.expect(true, &[]);
    bench.run("down");
    assert_eq!(bench.filters("nic0"), BTreeSet::from([USERS.to_owned()]));
    assert!(!bench.is_promiscuous("nic0"));
}

#[test]
fn passthru_takes_everything() {
    require!(NAMESPACES);
    let bench = Bench::up();
    bench.add(0, &format!("--mac {FIRST} --mode passthru"));
    bench.expect(true, &[]);
    bench.run("port del web0");
    bench.expect(false, &[]);
}

/// Who had it promiscuous before has it so after.
#[test]
fn what_the_user_has_set_stays() {
    require!(NAMESPACES);
    let bench = Bench::up();
    bench.machine.bridge(&format!("fdb add {FIRST} dev nic0 self"));
    bench.machine.ip("link set nic0 promisc on");
    bench.add(0, &format!("--mac {FIRST}"));
    bench.run("port add h0");
    bench.run("port del h0");
    bench.run("port del web0");
    bench.run("down");
    let users = [FIRST, USERS].map(str::to_owned);
    assert_eq!(bench.filters("nic0"), BTreeSet::from(users));
    assert!(bench.is_promiscuous("nic0"));
}

/// An uplink that is one no longer is left as it was found.
#[test]
fn an_uplink_that_becomes_an_access_port() {
    require!(NAMESPACES);
    let bench = Bench::up();
    bench.add(0, &format!("--mac {FIRST}"));
    bench.expect(false, &[FIRST]);
    bench.run("port set nic0 --uplink=off");
    bench.expect_at("nic0", false, &[]);
    bench.run("port set nic0 --uplink");
    bench.expect(false, &[FIRST]);
}

/// Nobody was told that it went, and the filters with it.
#[test]
fn an_uplink_that_was_made_anew_has_the_filters_again() {
    require!(NAMESPACES);
    let bench = Bench::up();
    bench.add(0, &format!("--mac {FIRST}"));
    bench.expect(false, &[FIRST]);
    bench.machine.ip("link del nic0");
    bench.cable(0, "nic0", "w0");
    bench.run("port del nic0");
    bench.run("port add nic0 --uplink");
    assert_eq!(bench.filters("nic0"), BTreeSet::from([FIRST.to_owned()]));
    bench.run("down");
    assert_eq!(bench.filters("nic0"), BTreeSet::new());
}

/// The second uplink is looked at first, and has a filter for a station as well: the user's.
#[test]
fn a_second_uplink_in_a_lower_slot() {
    require!(NAMESPACES);
    let bench = Bench::up();
    bench.run("port del nic0");
    bench.run("port add h0");
    bench.run("port add nic0 --uplink");
    bench.add(0, &format!("--mac {FIRST}"));
    bench.run("port del h0");
    bench.expect(false, &[FIRST]);
    bench.machine.bridge(&format!("fdb add {FIRST} dev nic1 self"));
    bench.run("port add nic1 --uplink");
    let ports = vswitch::json(&bench.machine, &bench.name, "port show");
    assert_eq!((&ports[0]["ifname"], &ports[1]["ifname"]), (&"nic1".into(), &"nic0".into()), "{ports}");
    bench.expect(true, &[]);
    assert!(bench.is_promiscuous("nic1"));
    bench.run("down");
    assert_eq!(bench.filters("nic0"), BTreeSet::from([USERS.to_owned()]));
    assert_eq!(bench.filters("nic1"), BTreeSet::from([FIRST.to_owned()]));
    assert!(!bench.is_promiscuous("nic0") && !bench.is_promiscuous("nic1"));
}

#[test]
fn one_of_two_uplinks_goes() {
    require!(NAMESPACES);
    let bench = Bench::up();
    bench.add(0, &format!("--mac {FIRST}"));
    bench.run("port add nic1 --uplink");
    bench.expect(true, &[]);
    let controller = Controller::start(&bench.machine, &bench.name, "");
    bench.machine.ip("link del nic1");
    controller.await_line("\"nic1\": the interface is gone");
    until("filters do for the other one", AT_ONCE, || !bench.is_promiscuous("nic0"));
    bench.expect(false, &[FIRST]);
}
