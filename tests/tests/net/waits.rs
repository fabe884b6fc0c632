//! What does a controller do while somebody else has the switch, and after that?

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    time::Duration,
};

use vswitch_ebpf::abi::ABI_VERSION;
use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    hosts::until,
    patience::patience,
    require, vswitch,
};

use crate::{
    abi_shapes::{BPFTOOL, rename, root},
    bad_input::{Bench, NEEDS},
};

/// Longer than a sweep and a round wait for the lock, one after the other.
const LOCKED: Duration = Duration::from_secs(22);

/// The right to change the switch, as a command has it.
fn lock(bench: &Bench) -> File {
    let file = File::open(Path::new("/run/vswitch").join(&bench.name).join("lock")).unwrap();
    // SAFETY: the descriptor is open; flock takes no pointers.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
    file
}

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Self {
        let path = Path::new("/tmp").join(format!("{name}.notify"));
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path }
    }

    /// A controller with this manager, which wants to hear of it once a second.
    fn start(&self, bench: &Bench) -> Controller {
        let mut command = vswitch::command(&bench.machine, &bench.name, "run");
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "1000000");
        let controller = Controller::of(command);
        controller.await_ready();
        controller
    }

    /// What was said within that time.
    fn hears(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(len) => return Some(String::from_utf8_lossy(&buffer[..len]).into_owned()),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return None,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => panic!("{err}"),
            }
        }
    }

    fn hears_of_progress(&self) {
        until("there is progress", AT_ONCE, || {
            self.hears(AT_ONCE).is_some_and(|said| said.contains("WATCHDOG=1"))
        });
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}

#[test]
fn a_round_that_failed_is_no_progress() {
    require!(NEEDS);
    let bench = Bench::new();
    let manager = Manager::new(&bench.name);
    bench.run("up h1 h2");
    let controller = manager.start(&bench);
    manager.hears_of_progress();
    let locked = lock(&bench);
    let said = loop {
        let said = manager.hears(patience(LOCKED)).expect("the round has failed");
        if said.contains("is changing it") {
            break said;
        }
    };
    assert!(said.contains("STATUS=") && !said.contains("WATCHDOG"), "{said}");
    drop(locked);
    manager.hears_of_progress();
    drop(controller);
    bench.run("down");
}

/// Such as by an upgrade to another ABI, which leaves the old one's pins to nobody.
#[test]
fn a_switch_that_went_while_the_controller_waited_stays_gone() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up h1 h2");
    let mut controller = Controller::start(&bench.machine, &bench.name, "");
    let locked = lock(&bench);
    controller.signal(libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    let (pins, run) = (bench.pins(), Path::new("/run/vswitch").join(&bench.name));
    fs::remove_dir_all(&pins).unwrap();
    fs::remove_file(run.join("run")).unwrap();
    drop(locked);
    assert!(controller.end(AT_ONCE).success(), "{:?}", controller.lines());
    assert!(!pins.exists(), "{:?}", controller.lines());
    assert!(controller.lines().iter().any(|line| line.contains("is gone")), "{:?}", controller.lines());
}

/// What happens while a round waits for the lock, and to a port that it is not about.
#[test]
fn an_interface_that_goes_while_the_controller_waits_is_missed() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up h1 h2");
    let controller = Controller::start(&bench.machine, &bench.name, "");
    let locked = lock(&bench);
    bench.machine.ip("link set h1 mtu 1400");
    std::thread::sleep(Duration::from_millis(300));
    bench.machine.ip("link del h2");
    // Sooner than it looks at everything.
    controller.tells("\"h2\": the interface is gone", AT_ONCE, || drop(locked));
    bench.run("down");
}

#[test]
fn an_upgrade_that_is_refused_leaves_the_controller_alone() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up h1 h2");
    let controller = Controller::start(&bench.machine, &bench.name, "");
    // As if a newer build had made the switch, and this were its controller. It is stopped without the switch's lock.
    let locked = lock(&bench);
    controller.signal(libc::SIGSTOP);
    drop(locked);
    let newer = root(ABI_VERSION + 1, &bench.name);
    rename(&bench.pins(), &newer);
    let refused = bench.command("upgrade").output().unwrap();
    rename(&newer, &bench.pins());
    let _others = fs::remove_dir(newer.parent().unwrap());
    controller.signal(libc::SIGCONT);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("was made by a newer build"));
    controller.tells("\"h2\": the interface is gone", AT_ONCE, || {
        bench.machine.ip("link del h2");
    });
    bench.run("down");
}

/// It waits for ten seconds at most, which is longer than whoever stops it should have to.
#[test]
fn a_controller_that_waits_for_the_lock_ends_when_it_is_asked_to() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up h1 h2");
    for asked in [libc::SIGTERM, libc::SIGINT] {
        let mut controller = Controller::start(&bench.machine, &bench.name, "");
        let locked = lock(&bench);
        // The round that follows wants the lock.
        controller.signal(libc::SIGHUP);
        std::thread::sleep(Duration::from_millis(300));
        controller.signal(asked);
        assert!(controller.end(AT_ONCE).success(), "{:?}", controller.lines());
        drop(locked);
    }
    bench.run("down");
}

/// To an interface that goes no frame is sent, whoever has the lock, and whatever else the controller waits for it with.
#[test]
fn an_interface_that_goes_is_cut_off_while_the_controller_waits() {
    require!(NEEDS);
    require!(BPFTOOL);
    let bench = Bench::new();
    bench.run("up h1 h2");
    let controller = Controller::start(&bench.machine, &bench.name, "");
    let pin = bench.pins().join("maps/PRESENT");
    // A device map's elements mean something in the switch's namespace.
    let is_present = || {
        let mut look = bench.machine.command("bpftool");
        let look = look.args(["map", "lookup", "pinned"]).arg(&pin).args(["key", "2", "0", "0", "0"]);
        look.output().expect("start bpftool").status.success()
    };
    let locked = lock(&bench);
    bench.machine.ip("link set h1 mtu 1400");
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_present());
    bench.machine.ip("link del h2");
    until("it is cut off", AT_ONCE, || !is_present());
    controller.tells("\"h2\": the interface is gone", AT_ONCE, || drop(locked));
    bench.run("down");
}

/// An uplink that comes makes the other one promiscuous, which is renamed in the same round: what the record says of both stays.
#[test]
fn what_a_round_does_for_one_port_is_not_forgotten_with_the_next() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up --uplink h1 --uplink h2");
    bench.run("port add h3 --mac 02:00:00:00:07:01 --learning off --flood off");
    let controller = Controller::start(&bench.machine, &bench.name, "");
    let promiscuous = |ifname: &str| bench.machine.ip(&format!("link show {ifname}")).contains("PROMISC");
    controller.tells("\"h1\": the interface is gone", AT_ONCE, || drop(bench.machine.ip("link del h1")));
    until("a filter does for one uplink", AT_ONCE, || !promiscuous("h2"));
    let locked = lock(&bench);
    bench.machine.ip("link set h2 name h9");
    bench.plug(1);
    std::thread::sleep(Duration::from_millis(300));
    controller.tells("\"h1\": attached", AT_ONCE, || drop(locked));
    controller.await_line("\"h2\": is now called \"h9\"");
    until("there are two uplinks", AT_ONCE, || promiscuous("h9"));
    drop(controller);
    bench.run("down");
    assert!(!promiscuous("h9"), "the switch made it so");
}
