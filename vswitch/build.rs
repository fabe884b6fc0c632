//! What does the binary carry? The BPF object, and the name of the build.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const SOURCES: [&str; 3] = ["src", "../vswitch-ebpf/src", "../Cargo.lock"];

fn main() -> ExitCode {
    println!("cargo::rustc-env=VSWITCH_BUILD={}", build_name());
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

/// The objects, and what in the environment names another one.
const OBJECTS: [(&str, &str); 2] =
    [("vswitch.o", "VSWITCH_BPF_OBJECT"), ("bench.o", "VSWITCH_BENCH_BPF_OBJECT")];

/// Puts the objects into $OUT_DIR: empty where none was built, since host-only work needs no BPF toolchain.
fn embed() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo only")?;
    for (name, variable) in OBJECTS {
        println!("cargo::rerun-if-env-changed={variable}");
        let bytes = match env::var_os(variable) {
            Some(path) => {
                let path = PathBuf::from(path);
                watch(&path);
                fs::read(&path).map_err(|error| {
                    format!("read {variable}={}: {error}; unset it, or `cargo xtask build`", path.display())
                })?
            }
            None => {
                // A watched file that is missing makes every build dirty, so watch the directory, and have one.
                let directory = Path::new("../target/bpf");
                if fs::create_dir_all(directory).is_ok() {
                    watch(directory);
                }
                fs::read(directory.join(name)).unwrap_or_default()
            }
        };
        let target = Path::new(&out_dir).join(name);
        fs::write(&target, bytes).map_err(|error| format!("write {}: {error}", target.display()))?;
    }
    Ok(())
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

fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

fn git(args: &[&str]) -> Option<String> {
    // Without optional locks: a build must not disturb a git command beside it.
    let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
