//! Namespaces, ports and interfaces come and go by the hundred while frames flow: does one go astray, is anything left?

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use vswitch_tests::{
    campaign,
    controller::{AT_ONCE, Controller},
    frame::{Mac, colons, to},
    hosts::{Hosts, finish_ping, until},
    lab::{Lab, Outside},
    patience::patience,
    require,
    require::{NAMESPACES, Need},
    topo::{Netns, expect_success},
    vswitch::{self, Vswitch},
    wire::{Ear, Station},
};

use crate::strangers::{Stranger, heard};

/// Namespaces that come and go; `VSWITCH_CHURN` overrides both.
const NAMESPACES_IN_ALL: u64 = 60;
const NAMESPACES_IN_FULL: u64 = 500;
/// Of those at a time, where they come and go in turn. In full, there is a round in which all come, and then all go.
const AT_A_TIME: usize = 12;
/// In how many of its ways a guest may go, see [`Guest::leave`]. To make strangers takes netlink as long as the guests do.
const WAYS: usize = 4;
const WAYS_WITHOUT_STRANGERS: usize = 2;
/// One comes or one goes: 20 a second. An add and a del in turn take 70 ms, most of it grace periods of the kernel's (a
/// program is attached, is taken off, an interface is deleted).
const PERIOD: Duration = Duration::from_millis(50);
/// What 99 of 100 `port add` take at most, on a machine that does nothing else.
const PORT_ADD: Duration = Duration::from_millis(50);

const NEEDS: &[Need] = &[Need::Tool("bpftool"), Need::Tool("ping")];

const fn mac(number: usize) -> Mac {
    [0x02, 0, 0, 9, (number >> 8) as u8, number as u8]
}

/// A namespace with a port of the switch.
struct Guest {
    netns: Netns,
    port: String,
    mac: Mac,
    ear: Station,
}

impl Guest {
    fn new(hosts: &Hosts<Vswitch>, number: usize, took: &mut Vec<Duration>) -> Self {
        let (netns, port, mac) = (Netns::new("guest"), format!("g{number}"), mac(number));
        let start = Instant::now();
        hosts.vswitch(&format!("port add {port} --netns {} --mac {}", netns.name(), colons(mac)));
        took.push(start.elapsed());
        let ear = Station::new(&port, &netns, "eth0", mac, Ear::Tap);
        Self { netns, port, mac, ear }
    }

    /// Only frames for it alone may have come.
    fn check(&self) -> usize {
        let heard = heard(&self.ear);
        let wrong: Vec<_> = heard.iter().filter(|to| **to != self.mac).collect();
        assert!(wrong.is_empty(), "{} received frames for {wrong:x?}", self.port);
        heard.len()
    }

    /// Leaves, in one of the ways in which guests do. Its port is there until it is deleted.
    fn leave(self, hosts: &Hosts<Vswitch>, way: usize) -> Leaving {
        let heard = self.check();
        let Self { netns, port, ear, .. } = self;
        let switch = &hosts.lab.switch;
        match way {
            // As it should.
            0 => Leaving { port, heard, rest: Some((ear, netns)), stranger: None },
            // Its namespace is deleted, and its interface with it.
            1 => {
                drop((ear, netns));
                Leaving { port, heard, rest: None, stranger: None }
            }
            // The interface is deleted, or moves to another namespace, and a stranger is given its index before
            // anybody has noticed.
            way => {
                let (index, away) = (switch.ifindex(&port), Netns::new("away"));
                let move_it = format!("link set {port} netns {}", away.name());
                switch.ip(&if way == 2 { format!("link del {port}") } else { move_it });
                let stranger = Some(Stranger::new(switch, index));
                Leaving { port, heard, rest: Some((ear, netns)), stranger }
            }
        }
    }
}

/// What remains of a guest until its port is deleted.
struct Leaving {
    port: String,
    heard: usize,
    rest: Option<(Station, Netns)>,
    stranger: Option<Stranger>,
}

/// Begins one thing each [`PERIOD`]; one that took longer is made up for.
struct Pace(Instant);

impl Pace {
    fn wait(&mut self) {
        thread::sleep(self.0.saturating_duration_since(Instant::now()));
        self.0 += PERIOD;
    }
}

#[test]
fn frames_do_not_go_astray_while_ports_come_and_go() {
    require!(NAMESPACES);
    require!(NEEDS);
    let all = campaign::number("VSWITCH_CHURN", NAMESPACES_IN_ALL, NAMESPACES_IN_FULL) as usize;
    churn(all, AT_A_TIME, WAYS);
    if campaign::is_full() {
        churn(all, all, WAYS_WITHOUT_STRANGERS);
    }
}

/// So many come and go, of which so many are there at a time.
fn churn(all: usize, at_a_time: usize, ways: usize) {
    let hosts = Hosts::new(Vswitch::new(), Lab::new(Outside::Station, &["a", "b"]));
    let controller = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    thread::sleep(Duration::from_secs(1));
    let before = (left(&hosts), controller.descriptors());
    let (mut took, mut to_guests, mut lasted) = (Vec::new(), 0, Duration::ZERO);
    let (stop, newest) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ping = hosts.start_ping("a", &hosts.address("b"), "-i 0.002 -c 60000 -W 1");
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| send_to_all(&hosts, at_a_time, &newest, &stop));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (mut guests, mut strangers) = (BTreeMap::new(), Vec::new());
            let first = Instant::now();
            let (mut pace, mut leaving) = (Pace(first), None);
            for number in 0..=all + at_a_time {
                newest.store(number, Ordering::Relaxed);
                if number < all {
                    pace.wait();
                    guests.insert(number, Guest::new(&hosts, number, &mut took));
                }
                let next = number.checked_sub(at_a_time).and_then(|first| guests.remove(&first));
                let hosts = &hosts;
                let next = next.map(|guest| scope.spawn(move || guest.leave(hosts, number % ways)));
                let Some(left) = std::mem::replace(&mut leaving, next) else { continue };
                pace.wait();
                let Leaving { port, heard, rest, stranger } = left.join().unwrap();
                hosts.vswitch(&format!("port del {port}"));
                scope.spawn(move || drop(rest));
                to_guests += heard;
                strangers.extend(stranger);
            }
            lasted = first.elapsed();
            for stranger in &strangers {
                let heard = stranger.heard();
                assert!(heard.is_empty(), "a stranger received frames for {heard:x?}");
            }
            strangers.len()
        }));
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        (sent, done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    finish_ping(ping).assert_all("pings between two that stay");
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let rate = (2 * all) as f64 / lasted.as_secs_f64();
    println!(
        "{all} ports came and {all} went, {at_a_time} at a time, {rate:.1} a second, {} strangers: {} frames sent, {to_guests} received by whom they were for; \
         port add: median {:?}, p99 {:?}, longest {:?}",
        sent.1,
        sent.0,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    if campaign::is_full() {
        assert!(at(0.99) <= patience(PORT_ADD), "99 of 100 port adds within {PORT_ADD:?}");
        // It cannot be faster, and the machine may be slow in the end.
        let should = PERIOD * 2 * all as u32 * 11 / 10;
        assert!(lasted <= patience(should), "one each {PERIOD:?}, and {lasted:?} for all");
    }
    assert!(to_guests > all, "frames reached the guests while they were there");
    until("maps, links and descriptors are as before", AT_ONCE, || {
        (left(&hosts), controller.descriptors()) == before
    });
}

/// Frames for the guests that are there and for as many that are gone or to come, until told to stop. Returns how many.
fn send_to_all(hosts: &Hosts<Vswitch>, at_a_time: usize, newest: &AtomicUsize, stop: &AtomicBool) -> usize {
    let a = hosts.lab.member("a");
    let station = Station::new("a", &a.netns, "eth0", a.mac, Ear::Stack(0));
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let newest = newest.load(Ordering::Relaxed);
        for number in newest.saturating_sub(at_a_time * 3 / 2)..newest + at_a_time / 2 {
            let mac = mac(number);
            station.send(&to(mac).bytes(mac, a.mac, sent as u64));
            sent += 1;
            if sent % 24 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
    sent
}

/// What a port leaves traces in: the number of elements that are in use of each map, and of links.
fn left(hosts: &Hosts<Vswitch>) -> BTreeMap<String, usize> {
    let pins = vswitch::pins(&hosts.switch.name);
    let mut left = BTreeMap::new();
    left.insert("links".to_owned(), fs::read_dir(pins.join("links")).unwrap().count());
    // Of those that were learned, some may have been forgotten.
    let fdb = hosts.json("fdb show");
    let told = fdb.as_array().unwrap().iter().filter(|entry| entry["type"] != "learned").count();
    left.insert("FDB".to_owned(), told);
    for map in ["PORTS", "RECORDS", "INTERFACES", "DEVMAP", "PRESENT", "SOURCES"] {
        let mut command = Command::new("bpftool");
        let text = expect_success(
            command.args(["-j", "map", "dump", "pinned"]).arg(pins.join("maps").join(map)),
            None,
        );
        let json: Value = serde_json::from_str(&text).expect("bpftool's JSON");
        let is_used = |element: &&Value| {
            element["value"].as_array().is_some_and(|bytes| bytes.iter().any(|byte| byte != "0x00"))
        };
        left.insert(map.to_owned(), json.as_array().unwrap().iter().filter(is_used).count());
    }
    left
}
