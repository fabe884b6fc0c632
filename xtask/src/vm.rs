//! Does the switch work on a kernel that this machine does not run? Debian's, in QEMU, with the tests of levels 2 and 3.

mod image;
mod kernel;
mod left_out;
mod machine;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

use self::{kernel::Kernel, left_out::LeftOut};
use crate::{
    build::{self, Built},
    cargo, packages, probe, setup,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel
    #[arg(long)]
    kernel: Kernel,
    /// Run one level only: 2 kernel, 3 namespaces
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=3))]
    level: Option<u8>,
    /// Only what minutes are enough for: fewer cases, and a few tests of each part
    #[arg(long)]
    quick: bool,
    /// Use KVM. Not by itself: in a virtual machine /dev/kvm may be there and not work
    #[arg(long)]
    kvm: bool,
    /// Seconds after which the machine is taken for hung
    #[arg(long, default_value_t = 3600)]
    limit: u64,
    /// Run only the tests whose name contains this; after `--`, options for the test binaries
    filter: Vec<String>,
}

/// A test binary, as the guest has it.
struct Level {
    number: u8,
    /// Of package vswitch-tests.
    target: &'static str,
    /// Cases of the property tests where time is short.
    quick_cases: u32,
}

/// What booting and level 2 may take, in seconds, where time is short.
const LEAST_SECONDS: u64 = 120;

/// Rounds of campaigns where time is short.
const QUICK_ROUNDS: u32 = 2;

const LEVELS: [Level; 2] = [
    Level { number: 2, target: "kernel", quick_cases: 50 },
    Level { number: 3, target: "net", quick_cases: 20 },
];

/// Where the guest has what is under test.
const TESTED: &str = "/tested";
/// How much longer than on a machine the tests wait for something that must happen, when the CPU is emulated.
const PATIENCE: u32 = 10;
/// What the emulator and the image come from.
const PACKAGES: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("cpio", "cpio"),
];

pub(crate) fn run(args: &Args) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels are Debian's for x86-64, and this machine's programs do not run on them");
    }
    install()?;
    setup::ensure()?;
    let directory = cargo::target().join("vm").join(args.kernel.name());
    let kernel = args.kernel.unpack(&directory)?;
    let built = build::release()?;
    let tests = tests()?;
    left_out::check(&tests)?;
    let script = script(args, &tests);
    let started = Instant::now();
    let image = image::make(&directory, &kernel, &contents(&built, &tests), &script)?;
    println!("\n== Linux {} in QEMU ==", kernel.release);
    let outcome = machine::run(&directory, &kernel.image, &image, args.kvm, Duration::from_secs(args.limit));
    for LeftOut { test, why, .. } in left_out::on(args.kernel) {
        println!("left out on {}: {}: {why}", args.kernel.name(), test.trim_end_matches("::"));
    }
    println!("Linux {}: {:.0} s", kernel.release, started.elapsed().as_secs_f32());
    outcome.with_context(|| format!("Linux {}", kernel.release))
}

/// Each kernel, as far as CI has time for it.
pub(crate) fn quick(deadline: Instant) -> Result<()> {
    Kernel::value_variants().iter().try_for_each(|kernel| briefly(*kernel, None, deadline))
}

/// What CI runs when it is late: the programs load on the oldest kernel, keep their budget and do as specified.
pub(crate) fn least(deadline: Instant) -> Result<()> {
    briefly(Kernel::V6_1, Some(2), deadline)
}

/// However late it is, the machine has the time to boot and run level 2.
fn briefly(kernel: Kernel, level: Option<u8>, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now()).as_secs();
    let limit = left.max(LEAST_SECONDS);
    run(&Args { kernel, level, quick: true, kvm: false, limit, filter: Vec::new() })
}

/// Installs what runs the machine, if it is not here.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(command, _)| probe::find(command).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    // One that somebody has from elsewhere keeps the archives' emulator out.
    let utils = packages::as_archived("qemu-utils");
    let missing: Vec<&str> = missing.into_iter().chain(utils.as_deref()).collect();
    packages::install(&missing, "other kernels, in an emulator")
}

/// Builds the test binaries; returns each level's.
fn tests() -> Result<Vec<(&'static Level, PathBuf)>> {
    let mut command = cargo::cargo("test");
    command.args(["--workspace", "--no-run", "--message-format", "json-render-diagnostics"]);
    command.args(LEVELS.iter().flat_map(|level| ["--test", level.target]));
    let output = command.stderr(std::process::Stdio::inherit()).output().context("start cargo test")?;
    if !output.status.success() {
        bail!("the tests do not compile; the cause is printed above");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<serde_json::Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    LEVELS
        .iter()
        .map(|level| {
            let executable = messages
                .iter()
                .filter(|message| message["target"]["name"] == level.target)
                .find_map(|message| message["executable"].as_str());
            let path = executable.with_context(|| format!("cargo names no test binary {}", level.target))?;
            Ok((level, PathBuf::from(path)))
        })
        .collect()
}

/// What the guest has in [`TESTED`]. Without debug information, which is most of it: the image is in memory.
fn contents(built: &Built, tests: &[(&Level, PathBuf)]) -> Vec<(PathBuf, String)> {
    let mut contents: Vec<(PathBuf, String)> =
        tests.iter().map(|(level, path)| (path.clone(), level.target.to_owned())).collect();
    contents.push((built.binary.clone(), "vswitch".to_owned()));
    contents.push((built.object.clone(), "vswitch.o".to_owned()));
    contents
}

/// What the guest does.
fn script(args: &Args, tests: &[(&Level, PathBuf)]) -> String {
    let mut script = format!(
        "export VSWITCH_BIN={TESTED}/vswitch VSWITCH_BPF_OBJECT={TESTED}/vswitch.o VSWITCH_REQUIRE=all\n"
    );
    if !args.kvm {
        script += &format!("export VSWITCH_PATIENCE={PATIENCE}\n");
    }
    script += "failed=0\n";
    for (level, _) in tests.iter().filter(|(level, _)| args.level.is_none_or(|number| number == level.number))
    {
        let Level { number, target, quick_cases } = level;
        let mut words = Vec::new();
        if args.quick {
            words.push(format!("env PROPTEST_CASES={quick_cases} VSWITCH_ROUNDS={QUICK_ROUNDS}"));
        }
        // What other kernels cannot is marked `ignore`; what this one cannot is left out by name.
        words.push(format!("{TESTED}/{target} --show-output --include-ignored"));
        for left_out in left_out::on(args.kernel).filter(|left_out| left_out.target == *target) {
            words.push(format!("--skip {}", left_out.test));
        }
        if args.quick && args.filter.is_empty() {
            words.extend(left_out::quick(level).map(str::to_owned));
        }
        words.extend(args.filter.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))));
        script += &format!("echo '== level {number} =='\n{} || failed=1\n", words.join(" "));
    }
    script + "exit $failed\n"
}

/// Runs a tool with its output kept for the error.
fn quietly(command: &mut Command, what: &str) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{what}: start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{what} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// An empty directory.
fn fresh(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err),
        Ok(()) | Err(_) => fs::create_dir_all(directory),
    }
    .with_context(|| format!("make {}", directory.display()))
}
