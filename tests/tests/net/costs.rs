//! What does a switch cost that does not forward anything just now: time to make it, to list it, memory, a controller?

use std::{
    fs,
    io::Read as _,
    mem,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use vswitch_ebpf::abi::ABI_VERSION;
use vswitch_tests::{
    controller::Controller,
    frame::{BROADCAST, ETHERTYPE, Mac},
    require,
    require::NAMESPACES,
    topo::{End, Netns, veth},
    vswitch::{self, unique_name},
    wire::{Ear, Station},
};

/// As many as a switch has room for by default.
const ADDRESSES: u32 = 65_536;
/// Other tests run at the same time: the best of so many tells.
const ATTEMPTS: u32 = 5;

/// On a machine with nothing else to do it is less than 300 ms, nearly all of it the kernel's verifier.
const UP: Duration = Duration::from_secs(1);
const SHOW: Duration = Duration::from_millis(150);
const FDB_BYTES: u64 = 8 << 20;
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
    assert!(best <= UP, "{best:?}");
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
