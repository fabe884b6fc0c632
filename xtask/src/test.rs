//! Does the switch do what the specification says? Three levels, from cheap to dear: host, kernel, namespaces.

use std::{
    env, fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, Built},
    cargo, packages, probe,
    route::Privilege,
    setup,
};

/// What the property tests' fresh cases are made from.
const SEED: &str = "VSWITCH_SEED";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run one level only: 1 host (no privileges, no BPF toolchain), 2 kernel, 3 namespaces
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    level: Option<u8>,
    /// Run every campaign at full length, minutes each: 10,000,000 frames, 256 MiB on each path, a kill at every step
    #[arg(long)]
    full: bool,
    /// Run only the tests whose name contains this; after `--`, options for the test binaries
    filter: Vec<String>,
    #[arg(skip = env::var_os("VSWITCH_REQUIRE").is_some_and(|value| value == "all"))]
    require_all: bool,
}

impl Args {
    /// All levels, and none may be left out.
    pub(crate) fn everything() -> Self {
        Self { level: None, full: false, filter: Vec::new(), require_all: true }
    }
}

struct Level {
    number: u8,
    name: &'static str,
    /// Of package vswitch-tests; the rest of the workspace's tests are level 1.
    target: &'static str,
    needs_root: bool,
}

const LEVELS: [Level; 3] = [
    Level { number: 1, name: "host", target: "model", needs_root: false },
    Level { number: 2, name: "kernel", target: "kernel", needs_root: true },
    Level { number: 3, name: "namespaces", target: "net", needs_root: true },
];

enum Outcome {
    Passed,
    /// No test's name contains the filter.
    Empty,
    Failed(String),
    LeftOut(&'static str),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { level, full: _, filter: _, require_all } = args;
    let wanted: Vec<&Level> =
        LEVELS.iter().filter(|l| level.is_none_or(|number| number == l.number)).collect();
    // Level 1 alone must do without root and without a BPF toolchain.
    let asks_for_root = wanted.iter().any(|l| l.needs_root);
    let privilege = if asks_for_root { granted() } else { probe::privilege() };
    let built = if asks_for_root && privilege != Privilege::None {
        setup::ensure()?;
        Some(build::release()?)
    } else {
        None
    };

    let seed = seed()?;
    println!("fresh cases of the property tests: VSWITCH_SEED={seed} repeats them");
    let mut results = Vec::new();
    for level in wanted {
        println!("\n== level {}: {} ==", level.number, level.name);
        let started = Instant::now();
        let outcome = if level.needs_root && privilege == Privilege::None {
            Outcome::LeftOut("it needs root, and sudo gives it not: run `cargo xtask test` as root")
        } else if !args.filter.is_empty() && finds_none(command(level, privilege, built.as_ref(), args, seed))
        {
            Outcome::Empty
        } else {
            match cargo::run(&mut command(level, privilege, built.as_ref(), args, seed), "cargo test") {
                Ok(()) => Outcome::Passed,
                Err(error) => Outcome::Failed(format!("{error:#}")),
            }
        };
        results.push((level, outcome, started.elapsed()));
    }

    println!();
    let mut bad = 0;
    for (level, outcome, elapsed) in &results {
        let head = format!("level {} {:<11}", level.number, level.name);
        match outcome {
            Outcome::Passed => println!("{head} passed    {:6.1} s", elapsed.as_secs_f32()),
            Outcome::Empty => println!("{head} has no such test"),
            Outcome::Failed(error) => {
                bad += 1;
                println!("{head} FAILED    {:6.1} s  {error}", elapsed.as_secs_f32());
            }
            Outcome::LeftOut(why) => {
                bad += i32::from(*require_all);
                println!("{head} LEFT OUT  !!! NOT TESTED !!! {why}");
            }
        }
    }
    if bad > 0 {
        let left_out = results.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::LeftOut(_)));
        let demanded = if left_out { " (VSWITCH_REQUIRE=all: a level left out is a failure)" } else { "" };
        bail!("{bad} of {} test levels did not pass{demanded}", results.len());
    }
    if results.iter().all(|(_, outcome, _)| matches!(outcome, Outcome::Empty)) {
        bail!("no test was run: no name contains {}", args.filter.join(" or "));
    }
    Ok(())
}

/// What tests may run as. A sudo that refuses is none: what needs no root is tested all the same.
fn granted() -> Privilege {
    match packages::authorise() {
        Ok(()) => probe::privilege(),
        Err(error) => {
            println!("{error:#}");
            Privilege::None
        }
    }
}

/// Whether a filter leaves nothing, which libtest takes for a success. What does not compile is not for this to say.
fn finds_none(mut list: Command) -> bool {
    let listed = list.arg("--list").stderr(Stdio::inherit()).output();
    listed.is_ok_and(|listed| {
        let names = String::from_utf8_lossy(&listed.stdout);
        listed.status.success() && !names.lines().any(|line| line.ends_with(": test"))
    })
}

/// New each time, unless the user wants those of a run before.
fn seed() -> Result<u64> {
    match env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text}: not a number")),
        Err(_) => Ok(RandomState::new().build_hasher().finish()),
    }
}

fn command(level: &Level, privilege: Privilege, built: Option<&Built>, args: &Args, seed: u64) -> Command {
    let mut command = cargo::cargo("test");
    // The second is for the tests that leave all to proptest.
    let mut variables = vec![format!("{SEED}={seed}"), format!("PROPTEST_RNG_SEED={seed}")];
    if let Some(built) = built {
        variables.push(format!("VSWITCH_BIN={}", built.binary.display()));
        variables.push(format!("VSWITCH_BPF_OBJECT={}", built.object.display()));
    }
    if args.full {
        variables.push("VSWITCH_FULL=1".to_owned());
    }
    let as_root = level.needs_root || privilege == Privilege::Root;
    // Without root nobody can ask level 1 for all: level 2 has what it leaves out.
    command.env_remove("VSWITCH_REQUIRE");
    if args.require_all && as_root {
        variables.push("VSWITCH_REQUIRE=all".to_owned());
    }
    let privilege = if level.needs_root { privilege } else { Privilege::None };
    // --workspace throughout: with one package alone, features differ and the dependencies build twice.
    command.args(["--config", &runner(privilege, variables), "--workspace", "--test", level.target]);
    if !level.needs_root {
        command.args(["--lib", "--bins", "--no-fail-fast"]);
        for package in ["vswitch", "vswitch-ebpf", "xtask", "tests"] {
            for name in further_targets(&cargo::root().join(package).join("tests")) {
                command.args(["--test", &name]);
            }
        }
    } else if level.number == 2 && privilege == Privilege::Sudo {
        // The unit tests that need root, which level 1 had not.
        command.args(["--lib", "--no-fail-fast"]);
    }
    if !args.filter.is_empty() {
        command.arg("--").args(&args.filter);
    }
    command
}

/// How cargo starts the test binaries: the variables reach them alone, since cargo and build scripts that saw them
/// would rebuild; and so does sudo, since a target directory written by root is of no use to its owner.
pub(crate) fn runner(privilege: Privilege, variables: Vec<String>) -> String {
    let mut words = Vec::new();
    if privilege == Privilege::Sudo {
        words.push("sudo".to_owned());
    }
    words.push("env".to_owned());
    words.extend(variables);
    // A user's PATH leads past `ip` on Debian.
    words.push(format!("PATH={}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()));
    // sudo hands on no environment of its own accord.
    const CAMPAIGNS: [&str; 5] =
        ["VSWITCH_SWEEP", "VSWITCH_FRAMES", "VSWITCH_ROUNDS", "VSWITCH_CHURN", "VSWITCH_RECONCILES"];
    for name in ["RUST_BACKTRACE", "PROPTEST_CASES"].into_iter().chain(CAMPAIGNS) {
        if let Ok(value) = env::var(name) {
            words.push(format!("{name}={value}"));
        }
    }
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("target.'cfg(all())'.runner = [{}]", quoted.join(", "))
}

/// Integration tests beyond those that LEVELS names: a new file must not be left out in silence.
fn further_targets(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").is_file())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| LEVELS.iter().all(|level| level.target != name))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(level: usize, privilege: Privilege, args: &Args) -> Vec<String> {
        let command = command(&LEVELS[level - 1], privilege, None, args, 7);
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn level_1_names_no_privileged_target() {
        let words = words(1, Privilege::Root, &Args::everything());
        let has = |word: &str| words.iter().any(|w| w == word);
        assert!(has("model") && !has("kernel") && !has("net"), "{words:?}");
    }

    #[test]
    fn a_filter_reaches_the_test_binaries() {
        let args = Args { filter: vec!["flood".to_owned()], ..Args::everything() };
        let words = words(2, Privilege::Root, &args);
        assert!(
            words.ends_with(&["--workspace", "--test", "kernel", "--", "flood"].map(str::to_owned)),
            "{words:?}"
        );
    }

    #[test]
    fn all_is_demanded_where_there_is_root() {
        let demands = |level, privilege| {
            words(level, privilege, &Args::everything())[2].contains("VSWITCH_REQUIRE=all")
        };
        assert!(demands(1, Privilege::Root) && demands(2, Privilege::Root) && demands(2, Privilege::Sudo));
        assert!(!demands(1, Privilege::Sudo) && !demands(1, Privilege::None));
    }

    #[test]
    fn unit_tests_have_root_at_one_level() {
        let with_root = |level, privilege: Privilege| {
            let words = words(level, privilege, &Args::everything());
            words.iter().any(|word| word == "--lib") && (level > 1 || privilege == Privilege::Root)
        };
        for privilege in [Privilege::Root, Privilege::Sudo] {
            assert_eq!((1..=3).filter(|level| with_root(*level, privilege)).count(), 1, "{privilege:?}");
        }
    }
}
