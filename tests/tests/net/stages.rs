//! Does a change of many ports let others change the switch in between, and does what they have done stay?

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use vswitch_tests::{hosts::until, require};

use crate::bad_input::{Bench, NEEDS, TempFile, same};

/// More than the stages of two are.
const PORTS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);
/// What nobody shall wait longer for.
const LONGEST: Duration = Duration::from_secs(10);

/// A switch to which a file adds as many taps, which is about to be applied: some of them are there.
fn begun() -> (Bench, TempFile, Child) {
    let bench = Bench::new();
    bench.run("up h1 h2");
    let tap = |number| format!("\n[[port]]\nname = \"t{number}\"\ntap = true\n");
    let exported = String::from_utf8(bench.run("export").stdout).unwrap();
    let file = TempFile::new(&(exported + &(0..PORTS).map(tap).collect::<String>()));
    let apply = bench
        .command(&format!("apply {}", file.path()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("some are there", PATIENCE, || taps(&bench) > 0);
    (bench, file, apply)
}

fn exported(bench: &Bench) -> String {
    String::from_utf8(bench.run("export").stdout).unwrap()
}

fn taps(bench: &Bench) -> usize {
    exported(bench).matches("tap = true").count()
}

/// Three kinds of change, none of which waits for long. Returns how many of them were done while there were ports to come.
fn change(bench: &Bench) -> usize {
    let mut in_between = 0;
    for command in ["port set h2 --isolated on", "fdb add 02:00:00:00:07:01 h1 --static", "port add h3"] {
        let start = Instant::now();
        bench.run(command);
        println!("{command}: {:?}", start.elapsed());
        assert!(start.elapsed() < LONGEST, "{command}: {:?}", start.elapsed());
        in_between += usize::from(taps(bench) < PORTS);
    }
    in_between
}

fn assert_changed(bench: &Bench) {
    let text = exported(bench);
    for change in ["isolated = true", "mac = \"02:00:00:00:07:01\"", "name = \"h3\""] {
        assert!(text.contains(change), "{change}: {text}");
    }
    for note in ["journal", "goal", "origin"] {
        assert!(!bench.pins().join(note).exists(), "{note}");
    }
}

#[test]
fn others_change_the_switch_in_between() {
    require!(NEEDS);
    let (bench, _file, apply) = begun();
    assert!(change(&bench) > 0, "all was done before the first of them was");
    let output = apply.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(taps(&bench), PORTS);
    assert_changed(&bench);
    bench.run("down");
    bench.assert_gone();
}

#[test]
fn one_that_is_killed_is_completed() {
    require!(NEEDS);
    let (bench, _file, mut apply) = begun();
    apply.kill().unwrap();
    apply.wait().unwrap();
    assert!(taps(&bench) < PORTS, "it was not done yet");
    bench.run("port set h2 --isolated on");
    assert_eq!(taps(&bench), PORTS);
    change(&bench);
    assert_changed(&bench);
    bench.run("down");
    bench.assert_gone();
}

#[test]
fn one_that_fails_takes_back_what_is_its_own() {
    require!(NEEDS);
    let (bench, _file, apply) = begun();
    // It looked for it at its beginning.
    bench.machine.ip(&format!("tuntap add t{} mode tap", PORTS - 1));
    change(&bench);
    let output = apply.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("exists already") && !said.contains("taking it back failed"), "{said}");
    assert_eq!(taps(&bench), 0);
    assert_changed(&bench);
    assert!(bench.machine.find_ifindex(&format!("t{}", PORTS - 1)).is_some(), "a stranger's");
    let before = bench.state();
    bench.run("port set h2 --isolated on");
    same(&before, &bench.state(), "a command that finds nothing to do");
    bench.run("down");
    bench.assert_gone();
}
