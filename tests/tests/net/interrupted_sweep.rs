//! How is a command killed at each of its steps, and what is compared then?

use std::{env, fmt, fs, os::unix::process::CommandExt as _, path::Path, process::Command, time::Duration};

use aya::programs::{
    ProgramInfo,
    links::{FdLink, PinnedLink},
};
use vswitch_tests::{
    campaign::is_full,
    controller::Controller,
    hosts::until,
    interrupt::{Ran, before_change},
    patience::{Stopwatch, patience},
    topo::Netns,
};

use crate::bad_input::{Bench, same};

/// From the restart until all is as it was or shall be, not counting the time in which others want the CPUs too.
const WITHIN: Duration = Duration::from_secs(2);

/// How long it may take on a machine that compiles something at the same time.
const PATIENCE: Duration = Duration::from_secs(20);

/// After that long a controller has put right all that it found at its start.
const AT_WORK: Duration = Duration::from_secs(3);

/// How many steps of a command are tried where not all are.
const SOME: usize = 4;

/// A machine, and a namespace where far ends go.
pub(crate) struct Site {
    pub(crate) bench: Bench,
    pub(crate) there: Netns,
}

impl Site {
    pub(crate) fn new() -> Self {
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

    /// `vswitch COMMAND`, which ends at the latest when a controller would only wait.
    fn ending(&self, command: &str) -> Command {
        let mut vswitch = self.bench.command(command);
        if stays(command) {
            let seconds = patience(AT_WORK).as_secs() as libc::c_uint;
            // SAFETY: alarm takes no pointers and is safe to call between fork and exec, which it outlives.
            unsafe {
                vswitch.pre_exec(move || {
                    libc::alarm(seconds);
                    Ok(())
                });
            }
        }
        vswitch
    }

    /// All that a command might have changed. What is made anew has other numbers, and another place in lists.
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
        // Whose programs they are is a link's target.
        let build = fs::read_link(self.bench.pins().join("programs/build"));
        picture += &format!("build: {:?}\n", build.ok());
        picture += &format!("far end: {}\n", self.there.find_ifindex("eth0").is_some());
        let mut lines: Vec<_> = picture.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

/// What becomes of a command that is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// Nothing, until it has done all.
    Undone,
    /// All, once it has begun.
    Completed,
    /// All, for the controller does the same by itself.
    Done,
}

/// What was seen of one command.
#[derive(Default)]
struct Seen {
    steps: Vec<usize>,
    undone: usize,
    completed: usize,
    longest: Duration,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, undone, completed, longest } = self;
        write!(
            f,
            "killed before {steps:?}, {undone} undone, {completed} completed, at most {longest:?} after the restart"
        )
    }
}

/// Kills `command`, sent to a switch that `before` has made, before each of its changes.
pub(crate) fn sweep(site: &Site, before: &[&str], command: &str, wanted: Wanted) {
    sweep_prepared(site, before, |_| (), command, wanted);
}

/// As [`sweep`], of a switch to which more was done than commands do.
pub(crate) fn sweep_prepared(
    site: &Site,
    before: &[&str],
    prepare: impl Fn(&Site),
    command: &str,
    wanted: Wanted,
) {
    let owned = |args: &str| args.replace("THERE", site.there.name());
    let (before, command) = (before.iter().map(|args| owned(args)).collect::<Vec<_>>(), owned(command));
    let nothing = site.picture();
    site.run(&before);
    prepare(site);
    let from = site.picture();
    let total = match before_change(&mut site.ending(&command), usize::MAX) {
        Ran::Ended { changes, status: 0, .. } => changes,
        Ran::Ended { changes, status: -1, .. } if stays(&command) => changes,
        other @ (Ran::Killed(_) | Ran::Ended { .. }) => panic!("vswitch {command}: {other:?}"),
    };
    let (to, _) = (site.picture(), down(site));
    assert_ne!(from, to, "vswitch {command} is seen to have done something");
    let all = env::var("VSWITCH_SWEEP").map_or_else(|_| is_full(), |value| value == "all");
    let stride = if all { 1 } else { total.div_ceil(SOME).max(1) };
    // Whether it was completed, and how long that took.
    let step = |nth: usize| {
        site.run(&before);
        prepare(site);
        let killed = match before_change(&mut site.ending(&command), nth) {
            Ran::Killed(change) => change,
            Ran::Ended { .. } => {
                down(site);
                return None;
            }
        };
        let what = format!("vswitch {command}, killed before change {nth} of {total} ({killed}),");
        let left = site.picture();
        let completed = match wanted {
            Wanted::Undone => left == to,
            Wanted::Completed => left != from,
            Wanted::Done => true,
        };
        let expected = if completed { &to } else { &from };
        let restarted = Stopwatch::start();
        let controller = Controller::spawn(&site.bench.machine, &site.bench.name, "");
        until("the controller is at work or has nothing to control", PATIENCE, || {
            !controller.lines().is_empty()
        });
        let at = loop {
            let (at, alone) = (restarted.elapsed(), restarted.alone());
            // Every pin is in it: of what is neither, none is left.
            let picture = site.picture();
            if picture == *expected {
                assert!(
                    alone <= patience(WITHIN),
                    "{what} all is well only after {at:?}, {alone:?} of it alone"
                );
                break at;
            }
            if at > patience(PATIENCE) {
                eprintln!("{:#?}", controller.lines());
                same(expected, &picture, &what);
            }
        };
        drop(controller);
        down(site);
        same(&nothing, &site.picture(), &what);
        Some((completed, at))
    };
    let mut seen = Seen::default();
    // From another step on each time, so that many runs try many.
    let first = if all { 1 } else { 1 + std::process::id() as usize % stride };
    for nth in (first..=total).step_by(stride) {
        // Not every run makes as many changes: what is learned meanwhile is one more entry.
        let Some((completed, at)) = step(nth) else { continue };
        seen.longest = seen.longest.max(at);
        seen.steps.push(nth);
        *(if completed { &mut seen.completed } else { &mut seen.undone }) += 1;
    }
    println!("vswitch {command}: {total} changes, {seen}");
    assert!(!seen.steps.is_empty());
}

/// Whether a command ends by itself only when it fails.
fn stays(command: &str) -> bool {
    command.starts_with("run")
}

/// Takes the switch away, if there is one.
pub(crate) fn down(site: &Site) {
    let _none = site.bench.command("down").output();
    let _none = fs::remove_dir_all(Path::new("/run/vswitch").join(&site.bench.name));
}
