//! What does the binary carry? The BPF object, and the name of the build.

mod embed;

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use embed::{embed, watch};

const SOURCES: [&str; 5] = ["src", "command/src", "bench/src", "../vswitch-ebpf/src", "../Cargo.lock"];

fn main() -> ExitCode {
    println!("cargo::rustc-env=VSWITCH_BUILD={}", build_name());
    match embed("vswitch.o", "VSWITCH_BPF_OBJECT", Path::new("../target")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

/// The commit, and whether what goes into the binary differs from it.
fn build_name() -> String {
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    // The reflog gains a line with every commit, checkout and reset; HEAD alone names a branch.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            watch(Path::new(&path));
        }
    }
    for source in SOURCES {
        watch(Path::new(source));
    }
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    let dirty = git(&status).is_none_or(|changes| !changes.is_empty());
    if dirty { format!("{hash}-dirty") } else { hash }
}

fn git(args: &[&str]) -> Option<String> {
    // Without optional locks: a build must not disturb a git command beside it.
    let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
