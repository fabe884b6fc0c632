//! Pins that somebody removed, and commands that come at once. Of commands that were killed: see `interrupted`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use vswitch_tests::{
    controller::AT_ONCE, hosts::until, patience::patience, require, require::Need, topo::Netns, vswitch,
};

use crate::bad_input::{Bench, NEEDS, same};

const FLOCK: &[Need] =
    &[Need::Root, Need::Tool("ip"), Need::Tool("nsenter"), Need::Tool("ethtool"), Need::Tool("flock")];

/// A switch with an uplink, a port whose far end was changed for XDP, and a port that vswitch made.
fn whole(bench: &Bench, there: &Netns) {
    bench.run("up --uplink h1 h2");
    bench.run("port add h4 --datapath xdp");
    bench.run(&format!("port add w0 --netns {}", there.name()));
}

/// What does `up` say, and is the machine as before after `down`?
#[track_caller]
fn found_and_taken_away(bench: &Bench, before: &str, what: &str) {
    let name = &bench.name;
    let line = format!(r#"switch "{name}": incomplete: {what}: take it away with `vswitch -s {name} down`"#);
    bench.refuses("up h3", 1, &line);
    bench.run("down");
    same(before, &bench.state(), what);
    bench.assert_gone();
}

#[test]
fn single_pins_removed() {
    require!(NEEDS);
    let (bench, there) = (Bench::new(), Netns::new("there"));
    let before = bench.state();
    for map in [
        "COUNTERS",
        "DEVMAP",
        "FDB",
        "FDB_USED",
        "FILTERS",
        "GENERATION",
        "IDENTITY",
        "INTENT",
        "INTERFACES",
        "LISTS",
        "MEMBERS",
        "PORTS",
        "PRESENT",
        "SETTINGS",
        "SOURCES",
        "STATES",
        "VERDICTS",
    ] {
        whole(&bench, &there);
        fs::remove_file(bench.pins().join("maps").join(map)).unwrap();
        let line = format!("its map {map} is missing");
        let name = &bench.name;
        let shown =
            format!(r#"switch "{name}": incomplete: {line}: take it away with `vswitch -s {name} down`"#);
        bench.refuses("port del h2", 1, &shown);
        found_and_taken_away(&bench, &before, &line);
        assert_eq!(there.find_ifindex("eth0"), None);
    }
    for program in ["vswitch_xdp", "vswitch_in", "vswitch_out"] {
        whole(&bench, &there);
        fs::remove_file(bench.pins().join("programs").join(program)).unwrap();
        found_and_taken_away(&bench, &before, &format!("its program {program} is missing"));
    }
    let links = [
        ("3-xdp", "vswitch_xdp", "h4"),
        ("1-in", "vswitch_in", "h1"),
        ("1-out", "vswitch_out", "h1"),
        ("2-in", "vswitch_in", "h2"),
        ("4-in", "vswitch_in", "w0"),
    ];
    // Filters have no pins: see `hostile_clsact`.
    let pinned = if require::kernel_has_tcx() { links.len() } else { 1 };
    for (link, program, ifname) in &links[..pinned] {
        whole(&bench, &there);
        // The kernel detaches in the background what nobody holds any more.
        let attached = || bench.state().matches(" program ").count();
        let whole = attached();
        fs::remove_file(bench.pins().join("links").join(link)).unwrap();
        until("it is detached", AT_ONCE, || attached() < whole);
        found_and_taken_away(
            &bench,
            &before,
            &format!(r#"its program {program} is not attached to "{ifname}""#),
        );
    }
    assert_eq!(there.find_ifindex("eth0"), None);
}

/// With nothing but known stations the uplink has a filter for each.
#[test]
fn a_map_removed_leaves_no_unicast_filter() {
    require!(NEEDS);
    let (bench, there) = (Bench::new(), Netns::new("there"));
    let mac = Bench::known();
    let filters = || bench.machine.bridge("fdb show dev h1");
    let before = filters();
    for map in ["PORTS", "SETTINGS", "IDENTITY", "FDB"] {
        bench.run("up --uplink h1");
        bench.run(&format!("port add w0 --netns {} --mac {mac}", there.name()));
        bench.run(&format!("port add w1 --netns {} --peer eth1", there.name()));
        assert_eq!(filters().lines().count(), before.lines().count() + 2, "{}", filters());
        fs::remove_file(bench.pins().join("maps").join(map)).unwrap();
        bench.run("down");
        assert_eq!(filters(), before, "without {map}");
        bench.assert_gone();
    }
}

/// Which ports it had is known to this map alone.
#[test]
fn the_records_removed() {
    require!(NEEDS);
    let bench = Bench::new();
    let before = bench.state();
    // Without an uplink nothing was changed on them.
    bench.run("up h1 h2");
    fs::remove_file(bench.pins().join("maps/RECORDS")).unwrap();
    found_and_taken_away(&bench, &before, "its map RECORDS is missing");
    let there = Netns::new("there");
    whole(&bench, &there);
    fs::remove_file(bench.pins().join("maps/RECORDS")).unwrap();
    let output = bench.run("down");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "note: which ports it had is lost: interfaces that it set promiscuous or changed for XDP stay so\n"
    );
    bench.assert_gone();
    // What it made says so itself.
    assert_eq!((bench.machine.find_ifindex("w0"), there.find_ifindex("eth0")), (None, None));
}

/// Namespaces are deleted without asking the switch.
#[test]
fn the_namespace_deleted() {
    require!(NEEDS);
    let (home, elsewhere, name) = (Netns::new("home"), Netns::new("elsewhere"), vswitch::unique_name());
    vswitch::run(&home, &name, "up");
    drop(home);
    let output = vswitch::command(&elsewhere, &name, "show").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stderr,
        format!(
            "vswitch: switch \"{name}\": its network namespace is gone, or cannot be seen from here: take it away with `vswitch -s {name} down`\n"
        )
    );
    let output = vswitch::run(&elsewhere, &name, "down");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "note: its network namespace is gone, or cannot be seen from here: nothing was done about interfaces\n"
    );
    let output = vswitch::command(&elsewhere, &name, "show").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is none of that name"));
}

#[test]
fn whole_directories_removed_or_empty() {
    require!(NEEDS);
    let (bench, there) = (Bench::new(), Netns::new("there"));
    let before = bench.state();
    let unlinked = if require::kernel_has_tcx() {
        r#"its program vswitch_in is not attached to "h1""#
    } else {
        r#"its program vswitch_xdp is not attached to "h4""#
    };
    for (dir, what) in [("programs", "its program vswitch_xdp is missing"), ("links", unlinked)] {
        whole(&bench, &there);
        fs::remove_dir_all(bench.pins().join(dir)).unwrap();
        found_and_taken_away(&bench, &before, what);
    }
    // As `up` leaves it when it is killed at once; a directory of bpffs is nobody's.
    let other = vswitch::unique_name();
    vswitch::run(&bench.machine, &other, "up");
    fs::create_dir(bench.pins()).unwrap();
    // It was killed under its lock.
    let _refused = bench.command("up h3").output().unwrap();
    found_and_taken_away(&bench, &before, "its map FDB is missing");
    vswitch::run(&bench.machine, &other, "down");
}

#[test]
fn commands_at_once_wait_for_each_other() {
    require!(NEEDS);
    let (bench, there) = (Bench::new(), Netns::new("there"));
    let before = bench.state();
    bench.run("up --uplink h1");
    let add = |number| {
        let args = format!("port add w{number} --netns {} --peer e{number}", there.name());
        bench.command(&args).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in (0..8).map(add).collect::<Vec<_>>() {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let ports = vswitch::json(&bench.machine, &bench.name, "port show");
    let mut names =
        ports.as_array().unwrap().iter().map(|port| port["ifname"].as_str().unwrap()).collect::<Vec<_>>();
    names.sort_unstable();
    assert_eq!(names, ["h1", "w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7"]);
    assert!(ports.as_array().unwrap().iter().all(|port| port["state"] == "forwarding"), "{ports}");
    bench.run("down");
    same(&before, &bench.state(), "all of this");

    // One of two wins; the other says what it found.
    let up = || bench.command("up h1 h2").stderr(Stdio::piped()).spawn().unwrap();
    let mut outputs = [up(), up()].map(|child| child.wait_with_output().unwrap());
    outputs.sort_by_key(|output| output.status.code());
    assert_eq!(outputs.each_ref().map(|output| output.status.code()), [Some(0), Some(1)]);
    assert!(String::from_utf8_lossy(&outputs[1].stderr).contains(": up already: "));
}

#[test]
fn a_lock_that_is_held_for_long_names_its_owner() {
    require!(FLOCK);
    let bench = Bench::up();
    let lock = bench.locks().join("lock");
    let mut holder = Command::new("flock").arg(&lock).args(["sleep", "60"]).spawn().unwrap();
    wait_for_lock(&lock);
    let line = format!(
        r#"switch "{}": process {} (flock) is changing it and has not finished in 10 s: try again when it has, or end it"#,
        bench.name,
        holder.id()
    );
    let start = Instant::now();
    bench.refuses("port set h2 --flood off", 1, &line);
    assert!(start.elapsed() >= Duration::from_secs(10));
    // Reading needs no lock.
    bench.run("port show");
    holder.kill().unwrap();
    holder.wait().unwrap();
    end_sleepers(&lock);
    // The file is there, and nobody holds it: no obstacle.
    bench.run("port set h2 --flood off");
}

fn wait_for_lock(lock: &Path) {
    let deadline = Instant::now() + patience(Duration::from_secs(5));
    while Command::new("flock").arg("-n").arg(lock).arg("true").status().unwrap().success() {
        assert!(Instant::now() < deadline, "flock(1) does not get the lock");
        thread::sleep(Duration::from_millis(20));
    }
}

/// `flock`'s child has the descriptor too.
fn end_sleepers(lock: &Path) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(fds) = fs::read_dir(entry.path().join("fd")) else { continue };
        if fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == lock)) {
            // SAFETY: kill takes no pointers. The process holds the lock of this test's own switch: it is this test's.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}
