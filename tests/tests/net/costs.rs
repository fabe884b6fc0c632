//! What does a switch cost that does not forward anything just now: time to make it, to list it, memory, a controller?

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    mem,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::MapData,
    programs::{SchedClassifier, TcAttachType},
};
use vswitch_ebpf::abi::{ABI_VERSION, INTERFACES_MAX, PROBES};
use vswitch_tests::{
    controller::Controller,
    frame::{BROADCAST, ETHERTYPE, Mac, colons, to},
    hosts::until,
    interrupt::bpf_before_write,
    patience::patience,
    require,
    require::{NAMESPACES, kernel_has_tcx},
    topo::{End, Netns, veth},
    vswitch::{self, unique_name},
    wire::{Ear, Station},
};

use crate::strangers;

/// As many as a switch has room for by default.
const ADDRESSES: u32 = 65_536;
/// Other tests run at the same time: the best of so many tells.
const ATTEMPTS: u32 = 5;

/// On a machine with nothing else to do it is less than 100 ms, nearly all of it the kernel's verifier.
const UP: Duration = Duration::from_millis(300);
const SHOW: Duration = Duration::from_millis(150);
const FDB_BYTES: u64 = 8 << 20;
/// With so many ports.
const PORTS: u16 = 300;
const PORT_ADD: Duration = Duration::from_millis(30);
/// A controller with nothing to do.
const IDLE: Duration = Duration::from_secs(2);
const CONTROLLER_KIB: u64 = 12 << 10;

/// A switch's namespace, and the far end of its first port.
struct Room {
    switch: Netns,
    stations: Netns,
    name: String,
}

impl Room {
    fn new() -> Self {
        let (switch, stations) = (Netns::new("switch"), Netns::new("stations"));
        for (near, far, number) in [("p0", "f0", 0), ("p1", "f1", 1)] {
            let mac = |side| [0x02, 0xc0, 0, 0, side, number];
            veth(
                End { netns: &switch, ifname: near, mac: mac(0) },
                End { netns: &stations, ifname: far, mac: mac(1) },
            );
        }
        Self { switch, stations, name: unique_name() }
    }

    fn up(&self) -> &Self {
        vswitch::run(&self.switch, &self.name, "up p0 p1");
        self
    }

    /// Lets it learn so many addresses.
    fn learn(&self, addresses: u32) -> &Self {
        let station = Station::new("many", &self.stations, "f0", [2; 6], Ear::Stack(ETHERTYPE));
        station.await_carrier("f0");
        let mut frame = [0; 60];
        for number in 0..addresses {
            let [a, b, c, d] = number.to_be_bytes();
            let source: Mac = [0x02, 0xc1, a, b, c, d];
            frame[..6].copy_from_slice(&BROADCAST);
            frame[6..12].copy_from_slice(&source);
            frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
            station.send(&frame);
        }
        self
    }

    /// What the command prints, and the CPU time that it took, its own and the kernel's for it.
    fn cost(&self, args: &str) -> (Vec<u8>, Duration) {
        let mut command = vswitch::command(&self.switch, &self.name, args);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("start vswitch");
        let mut printed = Vec::new();
        child.stdout.take().expect("piped").read_to_end(&mut printed).expect("read what it prints");
        (printed, ended(child))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _down = vswitch::command(&self.switch, &self.name, "down").output();
    }
}

/// The port in a slot, where they were all added in this order.
fn near(slot: u16) -> String {
    format!("n{slot}")
}

fn station(slot: u16) -> Mac {
    let [high, low] = slot.to_be_bytes();
    [0x02, 0xc2, 0, 0, high, low]
}

/// A namespace with as many interfaces, and one with their far ends. Three each have indices that are the same to the switch's
/// look-up, as those of a machine on which interfaces come and go may be.
fn cabled() -> (Netns, Netns) {
    let (switch, stations) = (Netns::new("switch"), Netns::new("stations"));
    let alike = |slot: u16| 100_000 + u32::from(slot / 3) * PROBES + u32::from(slot % 3) * INTERFACES_MAX;
    switch.ip_all((1..=PORTS).flat_map(|slot| {
        let (near, index, mac, netns) = (near(slot), alike(slot), colons(station(slot)), stations.name());
        let pair =
            format!("link add {near} index {index} type veth peer name f{slot} address {mac} netns {netns}");
        [pair, format!("link set {near} up")]
    }));
    stations.ip_all((1..=PORTS).map(|slot| format!("link set f{slot} up")));
    (switch, stations)
}

/// Waits until it ends well; the CPU time that it took.
fn ended(child: Child) -> Duration {
    let mut status = 0;
    // SAFETY: a plain C struct, for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    let pid = child.id().cast_signed();
    // SAFETY: status and usage are ours; the child is nobody else's to wait for.
    assert_eq!(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }, pid);
    assert_eq!(status, 0, "it failed");
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The memory that a pinned map takes, as the kernel charges it.
fn memory(pin: &Path) -> u64 {
    let map = MapData::from_pin(pin).unwrap_or_else(|err| panic!("open {}: {err}", pin.display()));
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(path).expect("read fdinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).expect("memlock");
    line.trim().parse().expect("a number")
}

#[test]
fn a_switch_with_two_ports_is_up_at_once() {
    require!(NAMESPACES);
    let room = Room::new();
    // By the clock it is up to the other tests.
    let (mut best, mut waited) = (Duration::MAX, Duration::MAX);
    for _ in 0..ATTEMPTS {
        let started = Instant::now();
        let (_, took) = room.cost("up p0 p1");
        (best, waited) = (best.min(took), waited.min(started.elapsed()));
        vswitch::run(&room.switch, &room.name, "down");
    }
    println!("up with two ports: {best:?} of CPU time, {waited:?} by the clock");
    assert!(best <= patience(UP), "{best:?}");
}

#[test]
fn with_many_ports_one_more_is_added_at_once_and_all_are_reached() {
    require!(NAMESPACES);
    let (switch, stations) = cabled();
    let ear = |slot| {
        Station::new(&near(slot), &stations, &format!("f{slot}"), station(slot), Ear::Stack(ETHERTYPE))
    };
    let [sender, others @ ..] = [2, 1, PORTS - 256, 256, PORTS].map(ear);
    others.iter().chain([&sender]).for_each(|ear| ear.await_carrier(&ear.name.replace('n', "f")));
    let before = switch.ip("-d -o link");
    let room = Room { switch, stations, name: unique_name() };
    let all = (1..PORTS).map(near).collect::<Vec<_>>().join(" ");
    let (_, up) = room.cost(&format!("up {all}"));
    let mut best = Duration::MAX;
    for attempt in 1..=ATTEMPTS {
        best = best.min(room.cost(&format!("port add {}", near(PORTS))).1);
        if attempt < ATTEMPTS {
            vswitch::run(&room.switch, &room.name, &format!("port del {}", near(PORTS)));
        }
    }
    println!("up with {} ports: {up:?} of CPU time; port add of one more: {best:?}", PORTS - 1);
    assert!(best <= patience(PORT_ADD), "{best:?}");

    // Who hears it: by slots, the first, the last, and those that are one another's where a slot is taken for a byte.
    let hears = |what: &str, expected: &[u16]| {
        let mut heard = BTreeMap::new();
        until(what, Duration::from_secs(5), || {
            for ear in &others {
                let frames = strangers::heard(ear).len();
                *heard.entry(ear.mac).or_insert(0) += frames;
            }
            expected.iter().all(|slot| heard[&station(*slot)] > 0)
        });
        let expected = |ear: &Station| usize::from(expected.iter().any(|slot| station(*slot) == ear.mac));
        let expected: BTreeMap<_, _> = others.iter().map(|ear| (ear.mac, expected(ear))).collect();
        assert_eq!(heard, expected, "{what}");
    };
    sender.send(&to(BROADCAST).bytes(BROADCAST, sender.mac, 1));
    hears("a broadcast", &[1, PORTS - 256, 256, PORTS]);
    for speaks in &others {
        speaks.send(&to(sender.mac).bytes(sender.mac, speaks.mac, 2));
    }
    until("all are heard", Duration::from_secs(5), || {
        vswitch::json(&room.switch, &room.name, "fdb show").as_array().unwrap().len() > others.len()
    });
    for slot in [PORTS, 256, PORTS - 256, 1] {
        sender.send(&to(station(slot)).bytes(station(slot), sender.mac, 3));
        hears(&format!("what is for slot {slot}"), &[slot]);
    }

    vswitch::run(&room.switch, &room.name, "down");
    assert!(!vswitch::pins(&room.name).exists());
    assert_eq!(room.switch.ip("-d -o link"), before);
    if kernel_has_tcx() {
        room.switch.run(|| {
            for slot in 1..=PORTS {
                let query = SchedClassifier::query_tcx(&near(slot), TcAttachType::Ingress);
                assert!(query.is_ok_and(|(_, programs)| programs.is_empty()), "{}", near(slot));
            }
        });
    }
}

#[test]
fn a_full_fdb_is_small_and_listed_at_once() {
    require!(NAMESPACES);
    let room = Room::new();
    room.up();
    room.learn(ADDRESSES);
    let pin = format!("/sys/fs/bpf/vswitch/v{ABI_VERSION}/{}/maps/FDB", room.name);
    let bytes = memory(Path::new(&pin));
    let (mut best, mut listed) = (Duration::MAX, 0);
    for _ in 0..ATTEMPTS {
        let (printed, took) = room.cost("fdb show");
        (best, listed) = (best.min(took), printed.split(|byte| *byte == b'\n').count());
    }
    println!("FDB of {listed} entries: {bytes} bytes, shown in {best:?} of CPU time");
    // A frame that found the CPU's backlog full has taught nothing.
    assert!(listed > ADDRESSES as usize * 9 / 10, "{listed} of {ADDRESSES} were learned");
    assert!(best <= SHOW, "{best:?}");
    assert!(bytes <= FDB_BYTES, "{bytes} bytes");
}

#[test]
fn a_controller_is_small_and_rests() {
    require!(NAMESPACES);
    let room = Room::new();
    room.up();
    let controller = Controller::start(&room.switch, &room.name, "");
    room.learn(1000);
    thread::sleep(IDLE / 4);
    let before = controller.ticks();
    thread::sleep(IDLE);
    let (ticks, kib) = (controller.ticks() - before, controller.rss_kib());
    println!("controller: {kib} KiB, {ticks} ticks of 10 ms in {IDLE:?}");
    assert!(kib <= CONTROLLER_KIB, "{kib} KiB");
    assert!(ticks <= 1, "{ticks} ticks of 10 ms in {IDLE:?}");
}

/// To read one thing takes as long with 65,536 addresses as with few, and the second time nothing is opened.
#[test]
fn what_is_looked_at_is_opened_once() {
    const OBJ_GET: u64 = 7;
    const LOOKUP_BATCH: u64 = 24;
    require!(NAMESPACES);
    let room = Room::new();
    room.up();
    let bound = "02:c3:00:00:00:01";
    vswitch::run(&room.switch, &room.name, &format!("fdb add {bound} p0 --static"));
    let calls = |args: &str, writes: usize| {
        let calls = bpf_before_write(&mut vswitch::command(&room.switch, &room.name, args), writes);
        let count = |wanted: u64| calls.iter().filter(|call| **call == wanted).count();
        (calls.len(), count(OBJ_GET), count(LOOKUP_BATCH))
    };
    let (all, opened, batches) = calls(&format!("fdb get {bound}"), 2);
    println!("fdb get: {all} calls of bpf(2), {opened} of them open something, {batches} read a table");
    assert_eq!(batches, 0, "one key is looked up");
    let (all, opened, batches) = calls("port set p0 --isolated on", 1);
    println!("port set: {all} calls of bpf(2), {opened} of them open something, {batches} read a table");
    assert!(
        batches <= 6,
        "each table is read once, and the records once more for what was interrupted: {batches}"
    );
    let (once, again) = (calls("stats --watch 1", 1), calls("stats --watch 1", 3));
    println!("stats --watch: {} calls of bpf(2) for the first, {} for three", once.0, again.0);
    assert_eq!(again.1, once.1, "it is open");
}

/// Whoever watches a switch sees the one that has its name by now.
#[test]
fn what_is_watched_is_the_switch_of_that_name() {
    require!(NAMESPACES);
    let room = Room::new();
    room.up();
    let mut command = vswitch::command(&room.switch, &room.name, "stats --watch 1");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start vswitch");
    thread::sleep(Duration::from_millis(1500));
    vswitch::run(&room.switch, &room.name, "down");
    vswitch::run(&room.switch, &room.name, "up p1");
    thread::sleep(Duration::from_millis(2500));
    vswitch::run(&room.switch, &room.name, "down");
    until("it says that the switch is gone", Duration::from_secs(5), || {
        child.try_wait().expect("wait").is_some()
    });
    let output = child.wait_with_output().expect("what it said");
    let said = String::from_utf8_lossy(&output.stdout);
    let (first, last) = (said.split("IFNAME").nth(1).unwrap(), said.split("IFNAME").last().unwrap());
    assert!(first.contains("p0") && !last.contains("p0") && last.contains("p1"), "{said}");
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(refused.contains("there is none of that name"), "{refused}");
}
