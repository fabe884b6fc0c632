//! What becomes of a port whose far end was made ready in a namespace that nobody can reach any more? It goes, and what stays
//! changed is told.

use std::fs::File;

use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    hosts::until,
    interrupt::{Ran, before_change},
    require,
    topo::{End, Netns, veth},
};

use crate::{
    abi_shapes::age,
    bad_input::{Bench, NEEDS, TempFile},
};

const ADD: &str = "port add x1 --datapath xdp";
const DEL: &str = "port del x1";
const LEFT: &str = r#"put "x1" back as it was: peer of "x1": its namespace cannot be reached from here"#;

/// A machine with the interface `x1`, whose far end is in the namespace.
fn bench() -> (Bench, Netns) {
    let (bench, there) = (Bench::new(), Netns::new("there"));
    veth(
        End { netns: &bench.machine, ifname: "x1", mac: [2, 0, 0, 0, 5, 1] },
        End { netns: &there, ifname: "y1", mac: [2, 0, 0, 0, 5, 2] },
    );
    bench.run("up h1");
    (bench, there)
}

/// Takes its name away. With no process in it, the descriptor alone keeps it.
fn hide(netns: Netns) -> File {
    let kept = File::open(netns.path()).unwrap();
    drop(netns);
    kept
}

#[test]
fn the_port_goes_and_the_next_command_finds_nothing_wrong() {
    require!(NEEDS);
    let (bench, there) = bench();
    bench.run(ADD);
    let _kept = hide(there);
    let output = bench.run(DEL);
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("note: {LEFT}\n"));
    let output = bench.run("port set h1 --flood off");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    bench.run("port add x1");
    bench.run("down");
    bench.assert_gone();
}

#[test]
fn a_switch_that_leaves_something_is_gone_and_says_so() {
    require!(NEEDS);
    let (bench, there) = bench();
    bench.run(ADD);
    let _kept = hide(there);
    let output = bench.command("down").output().unwrap();
    let line =
        format!("vswitch: switch \"{}\": is gone, and not all is as it was before it: {LEFT}\n", bench.name);
    assert_eq!(String::from_utf8_lossy(&output.stderr), line);
    assert_eq!(output.status.code(), Some(1));
    bench.assert_gone();
}

/// What vswitch made was nothing before.
#[test]
fn an_interface_that_vswitch_made_leaves_nothing_to_tell() {
    require!(NEEDS);
    let (bench, there) = (Bench::new(), Netns::new("there"));
    bench.run("up h1");
    for number in 1..=2 {
        let (netns, peer) = (there.name(), format!("e{number}"));
        bench.run(&format!("port add w{number} --netns {netns} --peer {peer} --datapath xdp"));
    }
    let _kept = hide(there);
    for args in ["port del w1", "down"] {
        assert_eq!(String::from_utf8_lossy(&bench.run(args).stderr), "", "{args}");
    }
    bench.assert_gone();
}

/// The command was killed before the switch went over to another ABI: whoever takes it over hears of what is left.
#[test]
fn a_controller_tells_what_it_could_not_complete() {
    require!(NEEDS);
    let (bench, there) = bench();
    let detaching = |nth| {
        // What was interrupted before is completed at first.
        let _gone = bench.command(DEL).output();
        bench.run(ADD);
        matches!(before_change(&mut bench.command(DEL), nth), Ran::Killed(change) if change == "BPF_LINK_DETACH")
    };
    assert!((1..50).any(detaching), "`{DEL}` detaches a link");
    let _kept = hide(there);
    age(&bench.name);
    let controller = Controller::spawn(&bench.machine, &bench.name, "");
    until("it is at work", AT_ONCE, || controller.lines().iter().any(|line| line.contains("is running")));
    let note = format!("note: {LEFT}");
    assert!(controller.lines().contains(&note), "no {note:?} in {:#?}", controller.lines());
}

/// An undoing goes on after a step that fails, and what is left of it is tried again until it is done, or wanted no more.
#[test]
fn what_cannot_be_undone_is_noted_until_it_is() {
    require!(NEEDS);
    let (bench, there) = (Bench::new(), Netns::new("there"));
    bench.run("up h1 h2 --fdb-max 4");
    bench.run(&format!("port add w0 --netns {}", there.name()));
    for last in 1..=3 {
        bench.run(&format!("fdb add 02:00:00:00:07:0{last} h1"));
    }
    let exported = || String::from_utf8(bench.run("export").stdout).unwrap();
    let before = exported();
    // There is room for one of the two addresses, once w0 is gone.
    let file = TempFile::new(
        r#"
switch.fdb-max = 4

[[port]]
name = "h1"

[[port]]
name = "h2"
isolated = true

[[port]]
name = "t0"
tap = true
mac = ["02:00:00:00:07:11", "02:00:00:00:07:12"]
"#,
    );
    let _kept = hide(there);
    let output = bench.command(&format!("apply {}", file.path())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the FDB is full") && said.contains("taking it back failed"), "{said}");
    // The namespace for w0 cannot be found again; all else is as it was.
    assert_eq!(exported(), before);
    assert_eq!(bench.machine.find_ifindex("t0"), None);
    let shown = String::from_utf8(bench.run("port show h2").stdout).unwrap();
    assert!(!shown.contains("isolated"), "{shown}");
    let is_noted = || bench.pins().join("journal").exists();
    assert!(is_noted());
    // Who wants w0 still is told what it lacks.
    let output = bench.command("port set h1 --flood off").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("could not be completed") && said.contains("vswitch: \"w0\": namespace"), "{said}");
    assert!(is_noted());
    bench.run("port del w0");
    assert!(!is_noted());
    assert_eq!(String::from_utf8_lossy(&bench.run("port set h1 --flood on").stderr), "");
    bench.run("down");
    bench.assert_gone();
}
