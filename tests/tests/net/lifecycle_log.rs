//! Does `run --log-packets` tell of every frame, and cost nothing where it is not asked for?

use std::{fs, process::Command, thread, time::Duration};

use serde_json::Value;
use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    hosts::{Hosts, finish_ping, until},
    lab::{HOST, Lab, OUTSIDE, Outside, UPLINK},
    patience::patience,
    require,
    require::{NAMESPACES, Need},
    topo::expect_success,
    vswitch::{self, Vswitch, filters},
};

const PROGRAMS: [&str; 3] = ["vswitch_in", "vswitch_out", "vswitch_xdp"];
const NEEDS: &[Need] = &[Need::Tool("bpftool"), Need::Tool("ping")];

fn hosts() -> Hosts<Vswitch> {
    Hosts::new(Vswitch::new().datapath("b", "xdp"), Lab::new(Outside::Station, &["a", "b"]))
}

fn run(hosts: &Hosts<Vswitch>, args: &str) -> Controller {
    Controller::start(&hosts.lab.switch, &hosts.switch.name, args)
}

/// What the program that is attached to each port is, as the kernel numbers it, and its instructions' bytes after the
/// verifier has removed what can never run.
fn attached(hosts: &Hosts<Vswitch>) -> Vec<(String, u64)> {
    let links = vswitch::pins(&hosts.switch.name).join("links");
    let mut sizes = Vec::new();
    let size = |id: u64| {
        let program = bpftool(&["prog", "show", "id", &id.to_string()]);
        program["bytes_xlated"].as_u64().unwrap()
    };
    for pin in fs::read_dir(links).expect("the switch's links").flatten() {
        let link = bpftool(&["link", "show", "pinned", pin.path().to_str().unwrap()]);
        sizes.push((pin.file_name().into_string().unwrap(), size(link["prog_id"].as_u64().unwrap())));
    }
    for ifname in [UPLINK, "h0", "h1"] {
        let filters = filters(&hosts.lab.switch, ifname);
        sizes.extend(filters.into_iter().map(|(hook, id)| (format!("{ifname}-{hook}"), size(id))));
    }
    sizes.sort();
    sizes
}

/// The same of the programs that new ports will have.
fn pinned(hosts: &Hosts<Vswitch>) -> Vec<u64> {
    let dir = vswitch::pins(&hosts.switch.name).join("programs");
    let size = |name: &str| bpftool(&["prog", "show", "pinned", dir.join(name).to_str().unwrap()]);
    PROGRAMS.iter().map(|name| size(name)["bytes_xlated"].as_u64().unwrap()).collect()
}

fn bpftool(args: &[&str]) -> Value {
    let text = expect_success(Command::new("bpftool").arg("-j").args(args), None);
    serde_json::from_str(&text).expect("bpftool's JSON")
}

fn frame_lines(controller: &Controller) -> usize {
    controller.lines().iter().filter(|line| line.contains("from slot")).count()
}

#[test]
fn frames_are_told_while_it_is_asked_for_and_programs_are_as_before_afterwards() {
    require!(NAMESPACES);
    require!(NEEDS);
    let hosts = hosts();
    hosts.ping("a", "b", "-c 5 -i 0.01 -W 1").assert_all("pings before");
    let silent = (attached(&hosts), pinned(&hosts));
    assert_eq!(
        silent.0.len(),
        5,
        "three ports by tc, one also by XDP, the uplink also at egress: {silent:?}"
    );
    let (fdb, stats) = (hosts.json("fdb show"), hosts.json("stats"));
    let pings = [("a", "b"), ("b", "a"), (OUTSIDE, HOST), ("a", HOST)]
        .map(|(from, to)| hosts.start_ping(from, &hosts.address(to), "-i 0.01 -c 2000 -W 1"));
    thread::sleep(Duration::from_millis(200));
    let mut controller = run(&hosts, "--log-packets");
    let loud = (attached(&hosts), pinned(&hosts));
    for (with, without) in loud.0.iter().zip(&silent.0).filter(|(with, _)| !with.0.ends_with("xdp")) {
        assert!(with.1 > without.1, "{with:?} logs and is no longer than {without:?}");
    }
    until("frames are told", AT_ONCE, || frame_lines(&controller) > 20);
    controller.signal(libc::SIGTERM);
    assert!(controller.end(AT_ONCE).success(), "{:?}", controller.lines());
    assert_eq!((attached(&hosts), pinned(&hosts)), silent, "the silent programs are back");
    thread::sleep(Duration::from_millis(300));
    for ping in pings {
        let pings = finish_ping(ping);
        assert!(pings.sent > 30, "{pings:?}");
        pings.assert_all("pings while programs are replaced twice");
    }

    let keys = |rows: &Value| {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| (row["mac"].clone(), row["ifname"].clone())).collect::<Vec<_>>()
    };
    let now = hosts.json("fdb show");
    assert!(keys(&fdb).iter().all(|entry| keys(&now).contains(entry)), "{fdb} and then {now}");
    for (before, after) in stats.as_array().unwrap().iter().zip(hosts.json("stats").as_array().unwrap()) {
        let packets = |row: &Value| row["rx"]["packets"].as_u64().unwrap();
        assert!(packets(after) >= packets(before), "{before} and then {after}");
    }
}

#[test]
fn every_frame_has_one_line() {
    require!(NAMESPACES);
    require!(NEEDS);
    let lab = Lab::new(Outside::Nothing, &["a", "b"]);
    let hosts = Hosts::new(Vswitch::new(), lab);
    let controller = run(&hosts, "--log-packets");
    // Both know each other's address: requests and replies, and nothing else.
    let received = || {
        let rows = hosts.json("stats");
        rows.as_array().unwrap().iter().map(|row| row["rx"]["packets"].as_u64().unwrap()).sum::<u64>()
            as usize
    };
    // A frame that is counted by now and told later would be one too many.
    let told = || (frame_lines(&controller), received());
    let mut before = told();
    until("nobody sends", AT_ONCE, || {
        thread::sleep(patience(Duration::from_millis(200)));
        std::mem::replace(&mut before, told()) == before
    });
    let (lines, frames) = before;
    hosts.ping("a", "b", "-c 20 -i 0.01 -W 1").assert_all("pings");
    assert!(received() - frames >= 40);
    until("as many lines as frames", AT_ONCE, || frame_lines(&controller) - lines == received() - frames);
}

#[test]
fn the_next_controller_silences_what_a_killed_one_left() {
    require!(NAMESPACES);
    require!(NEEDS);
    let hosts = hosts();
    let silent = (attached(&hosts), pinned(&hosts));
    run(&hosts, "--log-packets").kill();
    hosts.ping("a", "b", "-c 5 -i 0.01 -W 1").assert_all("pings with nobody reading the log");
    assert_ne!((attached(&hosts), pinned(&hosts)), silent);
    let next = run(&hosts, "");
    assert_eq!((attached(&hosts), pinned(&hosts)), silent);
    drop(next);
    // And one that logs again is heard.
    run(&hosts, "--log-packets").kill();
    let again = run(&hosts, "--log-packets");
    hosts.ping("a", "b", "-c 5 -i 0.01 -W 1").assert_all("pings");
    until("frames are told", AT_ONCE, || frame_lines(&again) > 0);
}

#[test]
fn a_port_that_comes_while_frames_are_told_is_told_of_too() {
    require!(NAMESPACES);
    require!(NEEDS);
    let hosts = hosts();
    let silent = pinned(&hosts);
    let mut controller = run(&hosts, "--log-packets");
    hosts.vswitch("port del h0");
    hosts.vswitch("port add h0");
    hosts.await_ping("a", "b");
    until("frames are told", AT_ONCE, || frame_lines(&controller) > 0);
    controller.signal(libc::SIGINT);
    assert!(controller.end(AT_ONCE).success());
    for (link, size) in attached(&hosts).into_iter().filter(|(link, _)| link.ends_with("in")) {
        assert_eq!(size, silent[0], "{link}");
    }
}
