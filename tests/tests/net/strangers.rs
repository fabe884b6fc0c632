//! Does an interface that is given the index of a deleted port receive what was meant for the port? By index alone they are
//! the same, and a user may ask for it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    frame::{BROADCAST, Mac, colons, seq_of, to},
    hosts::{Hosts, until},
    lab::{HOST, Lab, OUTSIDE, Outside, STATION_IF, UPLINK},
    require,
    require::NAMESPACES,
    topo::Netns,
    vswitch::{self, Vswitch},
    wire::{Ear, Station},
};

/// What was made in the place of a port's interface, with its index.
pub(crate) struct Stranger {
    ear: Station,
    netns: Netns,
}

impl Stranger {
    pub(crate) fn new(switch: &Netns, index: u32) -> Self {
        let netns = Netns::new("stranger");
        let add = format!("link add s{index} index {index} type veth peer name eth0 netns {}", netns.name());
        let up = format!("link set s{index} up");
        switch.ip_all([add, up]);
        netns.ip("link set eth0 up");
        let ear = Station::new("stranger", &netns, "eth0", [0x02, 0, 0, 9, 0, 0], Ear::Tap);
        Self { ear, netns }
    }

    pub(crate) fn heard(&self) -> Vec<Mac> {
        heard(&self.ear)
    }

    /// The address of its far end, as `ip` shows it.
    fn mac(&self) -> String {
        let link: serde_json::Value = serde_json::from_str(&self.netns.ip("-j link show eth0")).unwrap();
        link[0]["address"].as_str().unwrap().to_owned()
    }
}

/// The destinations of the frames of ours that have come.
pub(crate) fn heard(ear: &Station) -> Vec<Mac> {
    let mut heard = Vec::new();
    while let Some(arrival) = ear.receive() {
        if seq_of(&arrival.bytes).is_some() {
            heard.push(arrival.bytes[..6].try_into().unwrap());
        }
    }
    heard
}

/// Nobody tells the switch but the kernel's events, which come later.
#[test]
fn a_stranger_with_the_index_of_a_deleted_port_receives_nothing() {
    require!(NAMESPACES);
    let hosts = Hosts::new(Vswitch::new(), Lab::new(Outside::Station, &["a", "b"]));
    let controller = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    let (switch, b) = (&hosts.lab.switch, hosts.lab.member("b"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let a = hosts.lab.member("a");
            let station = Station::new("a", &a.netns, "eth0", a.mac, Ear::Stack(0));
            let frame = to(b.mac).bytes(b.mac, a.mac, 1);
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                station.send(&frame);
                sent += 1;
                thread::sleep(Duration::from_micros(200));
            }
            sent
        });
        let index = switch.ifindex("h1");
        switch.ip("link del h1");
        let stranger = Stranger::new(switch, index);
        thread::sleep(Duration::from_millis(300));
        let heard = stranger.heard().len();
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        assert!(sent > 100, "{sent} frames sent");
        assert_eq!(heard, 0, "of {sent} frames for b");
    });
    controller.await_line("\"h1\": the interface is gone");
    let shown = vswitch::json(switch, &hosts.switch.name, "port show h1");
    assert_eq!(shown[0]["state"], "missing");
    // What was learned there went with it: a frame for b is flooded, and to no stranger.
    let fdb = hosts.json("fdb show");
    assert!(fdb.as_array().unwrap().iter().all(|row| row["ifname"] != "h1"), "{fdb}");
}

/// Nor where there is no controller, however the switch would deliver to the port.
#[test]
fn nor_does_one_where_no_controller_has_seen_the_port_go() {
    require!(NAMESPACES);
    for (datapath, way) in [("tc", "deleted"), ("xdp", "deleted"), ("tc", "moved")] {
        let switch = Vswitch::new().datapath("a", datapath).datapath("b", datapath).datapath("c", datapath);
        let hosts = Hosts::new(switch, Lab::new(Outside::Station, &["a", "b", "c", "d"]));
        let machine = &hosts.lab.switch;
        let [b, c] = ["b", "c"].map(|name| hosts.lab.mac(name));
        hosts.vswitch(&format!("fdb add {} h1 --static", colons(b)));
        hosts.vswitch(&format!("fdb add {} h2 --static", colons(c)));
        let (index, away) = (machine.ifindex("h1"), Netns::new("away"));
        machine.ip(&match way {
            "deleted" => "link del h1".to_owned(),
            _ => format!("link set h1 netns {}", away.name()),
        });
        let stranger = Stranger::new(machine, index);
        let bystander = Station::new("c", hosts.netns("c"), STATION_IF, c, Ear::Tap);
        let dropped =
            |port: &str| hosts.json(&format!("stats {port}"))[0]["drops"]["port_down"].as_u64().unwrap();
        // What the host sends to a port that is down goes out of its wire.
        for (name, port, drops) in [("a", "h0", 10), ("d", "h3", 10), (HOST, HOST, 0)] {
            let at_host = (&hosts.lab.switch, UPLINK);
            let (netns, ifname) = if name == HOST { at_host } else { (hosts.netns(name), STATION_IF) };
            let from = hosts.lab.mac(name);
            let station = Station::new(name, netns, ifname, from, Ear::Stack(0));
            for (number, mac) in (0..30).zip([b, c, BROADCAST].into_iter().cycle()) {
                station.send(&to(mac).bytes(mac, from, number));
            }
            until("what was for the port is counted", AT_ONCE, || dropped(port) == drops);
        }
        let at_c = heard(&bystander);
        let heard = |to: Mac| at_c.iter().filter(|mac| **mac == to).count();
        assert_eq!(stranger.heard(), Vec::<Mac>::new(), "{datapath}, {way}");
        assert_eq!(
            (heard(c), heard(BROADCAST)),
            (30, 30),
            "{datapath}, {way}: the others have all of theirs"
        );
    }
}

/// Nor does the switch take it for the port, when a controller comes that has not seen the port go.
#[test]
fn nor_is_one_a_port_where_a_controller_starts_later() {
    require!(NAMESPACES);
    for way in ["deleted", "moved"] {
        let hosts = Hosts::new(Vswitch::new(), Lab::new(Outside::Station, &["a", "b", "c"]));
        let machine = &hosts.lab.switch;
        let b = hosts.lab.mac("b");
        hosts.vswitch(&format!("fdb add {} h1 --static", colons(b)));
        let (index, away) = (machine.ifindex("h1"), Netns::new("away"));
        machine.ip(&match way {
            "deleted" => "link del h1".to_owned(),
            _ => format!("link set h1 netns {}", away.name()),
        });
        let stranger = Stranger::new(machine, index);
        let controller = Controller::start(machine, &hosts.switch.name, "");
        controller.await_line("\"h1\": the interface is gone");
        assert!(!controller.lines().iter().any(|line| line.contains("is now called")), "{way}");
        let from = hosts.lab.mac("a");
        let station = Station::new("a", hosts.netns("a"), STATION_IF, from, Ear::Stack(0));
        for (number, mac) in (0..20).zip([b, BROADCAST].into_iter().cycle()) {
            station.send(&to(mac).bytes(mac, from, number));
        }
        until("what was for the port is counted", AT_ONCE, || hosts.drops("a", "port_down") >= 10);
        assert_eq!(stranger.heard(), Vec::<Mac>::new(), "{way}");
        assert_eq!(hosts.json("port show h1")[0]["state"], "missing", "{way}");
        hosts.ping("a", "c", "-c 3 -i 0.01 -W 1").assert_all("pings of the others");
        hosts.vswitch("port del h1");
    }
}

/// A NIC is no more, and somebody has made its index another's, who receives for any address.
#[test]
fn what_made_a_port_ready_is_not_undone_to_one() {
    require!(NAMESPACES);
    let hosts = Hosts::new(Vswitch::new(), Lab::new(Outside::Station, &["a", "b"]));
    let machine = &hosts.lab.switch;
    let index = machine.ifindex(UPLINK);
    assert!(machine.ip(&format!("link show {UPLINK}")).contains("PROMISC"), "the switch has set it");
    machine.ip(&format!("link del {UPLINK}"));
    let _stranger = Stranger::new(machine, index);
    machine.ip(&format!("link set s{index} promisc on"));
    hosts.vswitch(&format!("port del {UPLINK}"));
    assert!(machine.ip(&format!("link show s{index}")).contains("PROMISC"));
    hosts.ping("a", "b", "-c 3 -i 0.01 -W 1").assert_all("pings of the others");
}

#[test]
fn nor_is_its_far_end_given_the_ports_address() {
    require!(NAMESPACES);
    let hosts = Hosts::new(Vswitch::new().child("b", ""), Lab::new(Outside::Station, &["a", "b"]));
    let machine = &hosts.lab.switch;
    let index = machine.ifindex("h1");
    machine.ip("link del h1");
    let stranger = Stranger::new(machine, index);
    let before = stranger.mac();
    hosts.vswitch("port set h1 --mac 02:00:00:00:77:01");
    assert_eq!(stranger.mac(), before);
    assert_eq!(hosts.json("port show h1")[0]["mac"], serde_json::json!(["02:00:00:00:77:01"]));
}

/// By name and kind alone it is as if the switch had made it.
#[test]
fn one_with_the_name_of_an_interface_that_the_switch_made_is_not_deleted() {
    require!(NAMESPACES);
    for way in ["port del h1", "down"] {
        let hosts = Hosts::new(Vswitch::new().child("b", ""), Lab::new(Outside::Station, &["a", "b"]));
        let machine = &hosts.lab.switch;
        machine.ip("link del h1");
        machine.ip("link add h1 type veth peer name far1");
        hosts.vswitch(way);
        assert!(machine.find_ifindex("h1").is_some(), "{way}");
    }
}

#[test]
fn one_that_the_switch_made_and_somebody_renamed_is_deleted() {
    require!(NAMESPACES);
    for way in ["port del h1", "down"] {
        let hosts = Hosts::new(Vswitch::new().child("b", ""), Lab::new(Outside::Station, &["a", "b"]));
        let machine = &hosts.lab.switch;
        machine.rename("h1", "web0");
        hosts.vswitch(way);
        assert_eq!(machine.find_ifindex("web0"), None, "{way}");
        if way != "down" {
            hosts.ping("a", OUTSIDE, "-c 3 -i 0.01 -W 1").assert_all("pings of the others");
        }
    }
}
