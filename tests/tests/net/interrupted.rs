//! Is every step of every command one at which it may be killed? The controller that is started next completes or undoes
//! what was begun, and nothing is left of it.
//!
//! The full form, or `VSWITCH_SWEEP=all`, stops at each change that a command makes, one after another: minutes. Otherwise at some.

use std::{fs, os::unix::fs::symlink, time::Duration};

use serde_json::Value;
use vswitch_ebpf::{abi::FdbKey, fdb::Set, frame::MacAddr};
use vswitch_tests::{
    controller::Controller,
    hosts::until,
    interrupt::{Ran, before_change},
    require,
    require::kernel_has_tcx,
};

use crate::{
    abi_shapes::{BPFTOOL, Shape, age, array, reshape, sets, to_v1},
    bad_input::{NEEDS, TempFile},
    interrupted_sweep::{Site, Wanted, down, sweep, sweep_prepared},
};

const UP: &str = "up --uplink h1 h2 h3";
const ADD_VETH: &str = "port add w0 --netns THERE --mac 02:00:00:00:09:01";

#[test]
fn up_is_undone() {
    require!(NEEDS);
    sweep(&Site::new(), &[], UP, Wanted::Undone);
}

#[test]
fn down_is_completed() {
    require!(NEEDS);
    sweep(
        &Site::new(),
        &[UP, ADD_VETH, "port add h4 --datapath xdp", "port add t0 --tap"],
        "down",
        Wanted::Completed,
    );
}

#[test]
fn port_add_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    sweep(&site, &[UP], ADD_VETH, Wanted::Completed);
    sweep(&site, &[UP], "port add t0 --tap", Wanted::Completed);
    sweep(&site, &[UP], "port add h4 --datapath xdp --isolated on", Wanted::Completed);
}

#[test]
fn port_del_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    sweep(&site, &[UP, ADD_VETH], "port del w0", Wanted::Completed);
    sweep(
        &site,
        &[UP, "port add h4 --datapath xdp", "fdb add 02:00:00:00:09:02 h4 --static"],
        "port del h4",
        Wanted::Completed,
    );
}

#[test]
fn port_set_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    let known = "port set h2 --mac 02:00:00:00:09:03 --learning off --flood off";
    sweep(&site, &["up --uplink h1 h2"], known, Wanted::Completed);
    sweep(
        &site,
        &["up --uplink h1 h2", known],
        "port set h2 --mac 02:00:00:00:09:04 --mode vepa",
        Wanted::Completed,
    );
    sweep(
        &site,
        &[UP],
        "port set h3 --mode source --source 02:00:00:00:09:05 --source 02:00:00:00:09:06 --nodst on",
        Wanted::Completed,
    );
}

#[test]
fn port_source_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    let source = "port set h3 --mode source --source 02:00:00:00:09:05";
    let several = "port source add h3 02:00:00:00:09:06 02:00:00:00:09:0a 02:00:00:00:09:0b";
    sweep(&site, &[UP, source], several, Wanted::Completed);
    sweep(&site, &[UP, source, several], "port source flush h3", Wanted::Completed);
}

#[test]
fn a_passthru_port_is_completed() {
    require!(NEEDS);
    let passthru = "port add w0 --netns THERE --mode passthru --mac 02:00:00:00:09:0d";
    sweep(&Site::new(), &["up --uplink h1"], passthru, Wanted::Completed);
}

/// A configuration file; far ends go to the site's other namespace.
fn file(site: &Site) -> TempFile {
    TempFile::new(&format!(
        r#"
[switch]
ageing = 77

[[port]]
name = "h1"
role = "uplink"

[[port]]
name = "h2"
hairpin = true

[[port]]
name = "h4"
datapath = "xdp"

[[port]]
name = "w1"
netns = "{}"
mac = "02:00:00:00:09:07"

[[fdb]]
mac = "02:00:00:00:09:08"
port = "h4"
"#,
        site.there.name()
    ))
}

#[test]
fn apply_is_completed_and_a_switch_that_it_makes_is_undone() {
    require!(NEEDS);
    let site = Site::new();
    let file = file(&site);
    sweep(
        &site,
        &[UP, "fdb add 02:00:00:00:09:08 h2 --static"],
        &format!("apply {}", file.path()),
        Wanted::Completed,
    );
    sweep(&site, &[], &format!("apply {}", file.path()), Wanted::Undone);
}

/// As `apply`: the controller that is started next has no file.
#[test]
fn run_with_a_file_is_completed_and_a_switch_that_it_makes_is_undone() {
    require!(NEEDS);
    let site = Site::new();
    let file = file(&site);
    sweep(&site, &[UP], &format!("run {}", file.path()), Wanted::Completed);
    sweep(&site, &[], &format!("run {}", file.path()), Wanted::Undone);
}

/// The controller itself is killed, at each step of its repairs.
#[test]
fn a_repair_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    let before =
        [UP, "port add h4 --datapath xdp", "port set h2 --mac 02:00:00:00:09:0c --learning off --flood off"];
    let damage = |site: &Site| {
        let pins = site.bench.pins();
        // Nobody else holds them: they are detached.
        for pin in ["links/4-xdp", "links/2-in"].into_iter().take(if kernel_has_tcx() { 2 } else { 1 }) {
            fs::remove_file(pins.join(pin)).unwrap();
        }
        site.bench.machine.ip("link set h1 promisc off");
    };
    sweep_prepared(&site, &before, damage, "run", Wanted::Done);
}

/// It is killed while it makes ports of interfaces that are back. What it has changed on one by then is undone in the end.
#[test]
fn a_return_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    let replace = |site: &Site| {
        for number in [1, 4] {
            site.bench.machine.ip(&format!("link del h{number}"));
            site.bench.plug(number);
            site.bench.machine.ip(&format!("link set h{number} up"));
        }
    };
    sweep_prepared(&site, &[UP, "port add h4 --datapath xdp"], replace, "run", Wanted::Done);
}

/// Makes the switch one that runs another build's programs.
fn estrange(site: &Site) {
    let mark = site.bench.pins().join("programs/build");
    fs::remove_file(&mark).unwrap();
    symlink("another", &mark).unwrap();
}

/// What makes a switch that is then another build's.
const OLD: [&str; 3] = [UP, "port add h4 --datapath xdp", "fdb add 02:00:00:00:09:09 h4 --static"];

#[test]
fn upgrade_is_completed() {
    require!(NEEDS);
    require!(BPFTOOL);
    sweep_prepared(&Site::new(), &OLD, estrange, "upgrade", Wanted::Done);
}

#[test]
fn upgrade_of_another_abi_is_completed() {
    require!(NEEDS);
    require!(BPFTOOL);
    let site = Site::new();
    // Of another ABI, with the same maps, with ABI 1's, and with others.
    sweep_prepared(&site, &OLD, |site| drop(age(&site.bench.name)), "upgrade", Wanted::Done);
    let v1 = |site: &Site| drop(to_v1(&site.bench.machine, &site.bench.name));
    sweep_prepared(&site, &OLD, v1, "upgrade", Wanted::Done);
    let other = |site: &Site| {
        let older = age(&site.bench.name);
        for (map, kind, value, entries) in [("FDB", "array", 64, 16_384), ("COUNTERS", "array", 256, 1024)] {
            reshape(&site.bench.machine, &older, Shape { map, kind, value, entries });
        }
    };
    sweep_prepared(&site, &OLD, other, "upgrade", Wanted::Done);
}

/// `fdb` writes words of a table that it has in its memory, by no system call that could be counted. This is what a death leaves
/// there: a key without an entry, and a count that is another.
#[test]
fn an_fdb_that_is_half_written_is_mended() {
    require!(NEEDS);
    let site = Site::new();
    let bench = &site.bench;
    bench.run("up h1 h2 --fdb-max 8");
    let root = bench.pins();
    let mac = |last: u8| MacAddr([2, 0, 0, 0, 9, last]);
    let mut used = array::<u64, 1>(&root, "FDB_USED");
    let leave = |last: u8| {
        let (shape, mut sets) = sets(&root);
        let word = FdbKey { mac: mac(last), vlan: 0 }.word();
        let [place, _] = shape.places(word);
        let set = sets.get_mut(&place).unwrap();
        let way = set.first_free().unwrap();
        set.ways[way].key = word;
        let mut table = array::<Set, { size_of::<Set>() / 8 }>(&root, "FDB");
        table.set(place, bytemuck::cast::<_, [u64; size_of::<Set>() / 8]>(*set), 0).unwrap();
    };
    // The same command again gives the key its entry.
    leave(1);
    bench.run("fdb add 02:00:00:00:09:01 h2 --static");
    let rows = |args: &str| {
        let rows: Value = serde_json::from_slice(&bench.run(args).stdout).unwrap();
        rows.as_array().unwrap().clone()
    };
    let [row] = rows("-j fdb get 02:00:00:00:09:01").try_into().expect("one entry");
    assert_eq!((&row["ifname"], &row["type"]), (&"h2".into(), &"static".into()));
    // And another one is not kept from entering, neither by a key that is nobody's nor by the count.
    leave(2);
    used.set(0, [8], 0).unwrap();
    bench.run("fdb add 02:00:00:00:09:03 h2 --static");
    let (_, after) = sets(&root);
    let keys = after.values().flat_map(|set| set.ways).filter(|way| way.key != 0);
    let keys: Vec<_> = keys.map(|way| FdbKey::from_word(way.key).mac).collect();
    assert!(keys.contains(&mac(1)) && keys.contains(&mac(3)) && !keys.contains(&mac(2)), "{keys:?}");
    assert_eq!(used.get(&0, 0).unwrap(), [keys.len() as u64]);
    // `flush` that was killed has left some: the next one takes them.
    bench.run("fdb add 02:00:00:00:09:04 h2");
    leave(5);
    bench.run("fdb flush");
    assert!(rows("-j fdb show").iter().all(|row| row["type"] != "learned"));
    down(&site);
}

/// Nobody types another command, and the controller is at work all the time.
#[test]
fn a_controller_completes_what_is_killed_beside_it() {
    require!(NEEDS);
    let site = Site::new();
    site.bench.run(UP);
    let controller = Controller::start(&site.bench.machine, &site.bench.name, "");
    let add = ADD_VETH.replace("THERE", site.there.name());
    let Ran::Killed(_) = before_change(&mut site.bench.command(&add), 20) else {
        panic!("it makes more changes")
    };
    until("the port is there", Duration::from_secs(15), || {
        let port = site.bench.command("-j port show w0").output().expect("start vswitch");
        let there = String::from_utf8_lossy(&port.stdout).contains(r#""state":"forwarding""#);
        there && !site.bench.pins().join("journal").exists()
    });
    drop(controller);
    down(&site);
}
