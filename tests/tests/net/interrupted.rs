//! Is every step of every command one at which it may be killed? The controller that is started next completes or undoes
//! what was begun, and nothing is left of it.
//!
//! `VSWITCH_SWEEP=all` stops at each change that a command makes, one after another: minutes. Without it, some.

use std::{env, fmt, fs, os::unix::fs::symlink, path::Path, time::Duration};

use aya::programs::{
    ProgramInfo,
    links::{FdLink, PinnedLink},
};
use vswitch_tests::{
    controller::Controller,
    hosts::until,
    interrupt::{Ran, before_change},
    patience::{Stopwatch, patience},
    require,
    topo::Netns,
};

use crate::{
    abi_shapes::{BPFTOOL, Shape, age, reshape},
    bad_input::{Bench, NEEDS, TempFile, same},
};

/// From the restart until all is as it was or shall be, not counting the time in which others want the CPUs too.
const WITHIN: Duration = Duration::from_secs(2);

/// How long it may take on a machine that compiles something at the same time.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many steps of a command are tried where not all are.
const SOME: usize = 6;

/// A machine, and a namespace where far ends go.
struct Site {
    bench: Bench,
    there: Netns,
}

impl Site {
    fn new() -> Self {
        let site = Self { bench: Bench::new(), there: Netns::new("there") };
        // A change that is undone must not turn out to be one of the kernel's own, later.
        for number in 1..=5 {
            site.bench.machine.ip(&format!("link set h{number} up"));
        }
        site
    }

    fn run(&self, args: &[String]) {
        args.iter().for_each(|args| drop(self.bench.run(args)));
    }

    /// All that a command might have changed. What is made anew has other numbers.
    fn picture(&self) -> String {
        let mut picture = String::new();
        for line in self.bench.state().lines() {
            let words = line.split_whitespace().collect::<Vec<_>>();
            let line = match *words.as_slice() {
                _ if line.starts_with("/run/") => continue,
                // What the switch had is not told of one that is gone.
                _ if line.starts_with("vswitch: ") => "no switch".to_owned(),
                [.., "program", _] => words[..words.len() - 1].join(" "),
                [name, _, _, ref rest @ ..] if line.contains(" promiscuity ") => {
                    format!("{name} {}", rest.join(" "))
                }
                _ => line.to_owned(),
            };
            picture += &line;
            picture.push('\n');
        }
        // Half made, or another version's.
        for version in fs::read_dir("/sys/fs/bpf/vswitch").into_iter().flatten().flatten() {
            for entry in fs::read_dir(version.path()).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(&self.bench.name) && entry.path() != self.bench.pins() {
                    picture += &format!("{} is left\n", entry.path().display());
                }
            }
        }
        for pin in fs::read_dir(self.bench.pins().join("links")).into_iter().flatten().flatten() {
            let name = pin.file_name().to_string_lossy().into_owned();
            let (_, hook) = name.split_once('-').expect("slot and hook");
            let program =
                ProgramInfo::from_pin(self.bench.pins().join("programs").join(format!("vswitch_{hook}")));
            let link = FdLink::from(PinnedLink::from_pin(pin.path()).expect("a link"));
            let same = program.expect("a program").id() == link.info().expect("a link's info").program_id();
            picture += &format!("{name} runs the pinned program: {same}\n");
        }
        picture + &format!("far end: {}\n", self.there.find_ifindex("eth0").is_some())
    }
}

/// What was seen of one command.
#[derive(Default)]
struct Seen {
    steps: usize,
    undone: usize,
    completed: usize,
    longest: Duration,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, undone, completed, longest } = self;
        write!(
            f,
            "{steps} steps tried, {undone} undone, {completed} completed, at most {longest:?} after the restart"
        )
    }
}

/// Kills `command`, sent to a switch that `before` has made, before each of its changes.
fn sweep(site: &Site, before: &[&str], command: &str) {
    sweep_prepared(site, before, |_| (), command);
}

/// As [`sweep`], of a switch to which more was done than commands do.
fn sweep_prepared(site: &Site, before: &[&str], prepare: impl Fn(&Site), command: &str) {
    let owned = |args: &str| args.replace("THERE", site.there.name());
    let (before, command) = (before.iter().map(|args| owned(args)).collect::<Vec<_>>(), owned(command));
    let nothing = site.picture();
    site.run(&before);
    prepare(site);
    let from = site.picture();
    let total = match before_change(&mut site.bench.command(&command), usize::MAX) {
        Ran::Ended { changes, status: 0, .. } => changes,
        other @ (Ran::Killed(_) | Ran::Ended { .. }) => panic!("vswitch {command}: {other:?}"),
    };
    let (to, _) = (site.picture(), down(site));
    let all = env::var("VSWITCH_SWEEP").is_ok_and(|value| value == "all");
    let stride = if all { 1 } else { total.div_ceil(SOME).max(1) };
    // How all was after that, and how long that took.
    let step = |nth: usize| {
        site.run(&before);
        prepare(site);
        let killed = match before_change(&mut site.bench.command(&command), nth) {
            Ran::Killed(change) => change,
            Ran::Ended { .. } => {
                down(site);
                return None;
            }
        };
        let what = format!("vswitch {command}, killed before change {nth} of {total} ({killed}),");
        let restarted = Stopwatch::start();
        let controller = Controller::spawn(&site.bench.machine, &site.bench.name, "");
        until("the controller is at work or has nothing to control", PATIENCE, || {
            !controller.lines().is_empty()
        });
        let (after, at) = loop {
            let (at, alone) = (restarted.elapsed(), restarted.alone());
            // Every pin is in it: of what is neither, none is left.
            let picture = site.picture();
            if picture == from || picture == to {
                assert!(
                    alone <= patience(WITHIN),
                    "{what} all is well only after {at:?}, {alone:?} of it alone"
                );
                break (picture, at);
            }
            if at > patience(PATIENCE) {
                eprintln!("{:#?}", controller.lines());
                same(&to, &picture, &what);
            }
        };
        drop(controller);
        down(site);
        same(&nothing, &site.picture(), &what);
        Some((after, at))
    };
    let mut seen = Seen::default();
    // From another step on each time, so that many runs try many.
    let first = if all { 1 } else { 1 + std::process::id() as usize % stride };
    for nth in (first..=total).step_by(stride) {
        // Not every run makes as many changes: what is learned meanwhile is one more entry.
        let Some((after, at)) = step(nth) else { continue };
        seen.longest = seen.longest.max(at);
        seen.steps += 1;
        *(if after == to { &mut seen.completed } else { &mut seen.undone }) += 1;
    }
    println!("vswitch {command}: {total} changes; {seen}");
    assert!(seen.steps > 0);
}

/// Takes the switch away, if there is one.
fn down(site: &Site) {
    let _none = site.bench.command("down").output();
    let _none = fs::remove_dir_all(Path::new("/run/vswitch").join(&site.bench.name));
}

const UP: &str = "up --uplink h1 h2 h3";
const ADD_VETH: &str = "port add w0 --netns THERE --mac 02:00:00:00:09:01";

#[test]
fn up_is_undone() {
    require!(NEEDS);
    sweep(&Site::new(), &[], UP);
}

#[test]
fn down_is_completed() {
    require!(NEEDS);
    sweep(&Site::new(), &[UP, ADD_VETH, "port add h4 --datapath xdp", "port add t0 --tap"], "down");
}

#[test]
fn port_add_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    sweep(&site, &[UP], ADD_VETH);
    sweep(&site, &[UP], "port add t0 --tap");
    sweep(&site, &[UP], "port add h4 --datapath xdp --isolated on");
}

#[test]
fn port_del_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    sweep(&site, &[UP, ADD_VETH], "port del w0");
    sweep(&site, &[UP, "port add h4 --datapath xdp", "fdb add 02:00:00:00:09:02 h4 --static"], "port del h4");
}

#[test]
fn port_set_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    let known = "port set h2 --mac 02:00:00:00:09:03 --learning off --flood off";
    sweep(&site, &["up --uplink h1 h2"], known);
    sweep(&site, &["up --uplink h1 h2", known], "port set h2 --mac 02:00:00:00:09:04 --mode vepa");
    sweep(
        &site,
        &[UP],
        "port set h3 --mode source --source 02:00:00:00:09:05 --source 02:00:00:00:09:06 --nodst on",
    );
}

#[test]
fn apply_is_completed() {
    require!(NEEDS);
    let site = Site::new();
    let file = TempFile::new(&format!(
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
    ));
    sweep(&site, &[UP, "fdb add 02:00:00:00:09:08 h2 --static"], &format!("apply {}", file.path()));
}

/// Makes the switch one that runs another build's programs.
fn estrange(site: &Site) {
    let mark = site.bench.pins().join("programs/build");
    fs::remove_file(&mark).unwrap();
    symlink("another", &mark).unwrap();
}

#[test]
fn upgrade_is_completed() {
    require!(NEEDS);
    require!(BPFTOOL);
    let site = Site::new();
    let before = [UP, "port add h4 --datapath xdp", "fdb add 02:00:00:00:09:09 h4 --static"];
    sweep_prepared(&site, &before, estrange, "upgrade");
    // Of another ABI, with the same maps, and with others.
    sweep_prepared(&site, &before, |site| drop(age(&site.bench.name)), "upgrade");
    let other = |site: &Site| {
        let older = age(&site.bench.name);
        for (map, kind, value, entries) in [("FDB", "array", 64, 16_384), ("COUNTERS", "array", 256, 1024)] {
            reshape(&site.bench.machine, &older, Shape { map, kind, value, entries });
        }
    };
    sweep_prepared(&site, &before, other, "upgrade");
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
