//! How is a target fuzzed, and its corpus kept small? cargo-fuzz, as far as the stable toolchain takes it.
//!
//! Without a sanitizer, which is nightly's: the targets are safe code, and what they look for are panics and differences.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{cargo, probe, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to fuzz, one of the files in tests/fuzz/targets; without it each in turn
    target: Option<String>,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { target, seconds } = args;
    let all = targets()?;
    if let Some(unknown) = target.as_ref().filter(|target| !all.contains(target)) {
        bail!("there is no target {unknown}; choose one of {}", all.join(", "));
    }
    if probe::output(cargo::clean("cargo-fuzz").arg("--version")).is_none() {
        let mut install = cargo::cargo("install");
        install.args(["--locked", "cargo-fuzz"]).env_remove("CARGO_TARGET_DIR");
        step::run("cargo install cargo-fuzz", "builds and runs libFuzzer's targets", &mut install)?;
    }
    // The versions of the workspace, and libFuzzer's on top.
    let lock = directory().join("Cargo.lock");
    fs::copy(cargo::root().join("Cargo.lock"), &lock).with_context(|| format!("write {}", lock.display()))?;
    for target in all.iter().filter(|name| target.as_ref().is_none_or(|target| target == *name)) {
        fuzz(target, *seconds)?;
    }
    Ok(())
}

/// Adds to the target's seeds what reaches new code, and then takes out what others reach as well.
fn fuzz(target: &str, seconds: u32) -> Result<()> {
    // Where cargo-fuzz looks for it.
    let corpus = directory().join("corpus").join(target);
    let seeds = directory().join("seeds").join(target).with_extension("tar");
    unpack(&seeds, &corpus)?;
    let longest = format!("-max_len={}", longest(target));
    let mut run = cargo_fuzz("run", target);
    run.args(["--", &longest, &format!("-max_total_time={seconds}"), "-timeout=10"]);
    cargo::run(&mut run, &format!("fuzzing {target}")).context(
        "keep the input that cargo-fuzz names: fix the cause, and move it to tests/fuzz/crashes under a name that says what it was",
    )?;
    let mut minimise = cargo_fuzz("cmin", target);
    // Of inputs that reach the same code, how often does not count: a small corpus is replayed by every CI run.
    minimise.args(["--", &longest, "-set_cover_merge=1", "-use_counters=0"]);
    cargo::run(&mut minimise, &format!("minimising the corpus of {target}"))?;
    pack(&corpus, &seeds)
}

/// Adds the inputs in an archive to those in a directory; what an interrupted run has found stays there.
fn unpack(archive: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    if !archive.exists() {
        return Ok(());
    }
    let mut tar = cargo::clean("tar");
    tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(directory);
    cargo::run(&mut tar, &format!("unpacking {}", archive.display()))
}

/// Makes the archive of the inputs in a directory: the same of the same inputs, whoever makes it.
fn pack(directory: &Path, archive: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    names.sort();
    let mut tar = cargo::clean("tar");
    tar.args(["--create", "--format=ustar", "--mtime=@0", "--mode=644", "--owner=0", "--group=0"]);
    tar.arg("--numeric-owner")
        .arg("--file")
        .arg(archive)
        .arg("--directory")
        .arg(directory)
        .arg("--")
        .args(&names);
    cargo::run(&mut tar, &format!("packing {}", archive.display()))
}

fn cargo_fuzz(verb: &str, target: &str) -> Command {
    let mut command = cargo::cargo("fuzz");
    command.arg(verb).arg("--fuzz-dir").arg(directory()).args(["--sanitizer", "none", target]);
    // A target directory of its own: its flags are not the workspace's.
    command.env("CARGO_TARGET_DIR", directory().join("target"));
    command
}

/// Bytes of an input: short ones are found, read and replayed sooner.
fn longest(target: &str) -> u32 {
    match target {
        "mac" => 32,
        "cli" | "frames" => 300,
        "decide" => 500,
        _ => 1000,
    }
}

fn targets() -> Result<Vec<String>> {
    let directory = directory().join("targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let names = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut names: Vec<String> =
        names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

fn directory() -> PathBuf {
    cargo::root().join("tests/fuzz")
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn targets_are_found_by_their_files() {
        assert_eq!(targets().unwrap(), ["cli", "config", "decide", "frames", "mac"]);
    }

    #[test]
    fn seeds_that_are_unpacked_and_packed_are_the_same() {
        let inputs = env::temp_dir().join(format!("vswitch-seeds-{}", std::process::id()));
        for target in targets().unwrap() {
            let seeds = directory().join("seeds").join(&target).with_extension("tar");
            unpack(&seeds, &inputs).unwrap();
            let again = inputs.with_extension("tar");
            pack(&inputs, &again).unwrap();
            assert_eq!(fs::read(&seeds).unwrap(), fs::read(&again).unwrap(), "{target}");
            fs::remove_file(&again).unwrap();
            fs::remove_dir_all(&inputs).unwrap();
        }
    }
}
