//! What must pass before a change is taken?

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    build::{BPF_BINS, bpf_cargo, for_bpf},
    cargo, dist, packages, probe,
    route::Route,
    setup::{self, Toolchain},
    test, vm,
};

/// Within this all is to be done.
const TIME: Duration = Duration::from_secs(15 * 60);
/// Two emulated machines take five minutes where the rest takes so long.
const TIME_BEFORE_OTHER_KERNELS: Duration = Duration::from_secs(8 * 60);
/// To compile what makes the package, where that has not been done before, and to try the package takes four.
const TIME_BEFORE_PACKAGE: Duration = Duration::from_secs(10 * 60);

const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";

pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    heading("format");
    cargo::run(cargo::cargo("fmt").args(["--all", "--check"]), "cargo fmt --all --check")?;
    heading("lints, host");
    let mut clippy = cargo::cargo("clippy");
    clippy.args(["--workspace", "--all-targets", "--features", "xtask/dist", "--", "-D", "warnings"]);
    cargo::run(&mut clippy, "cargo clippy")?;
    heading("lints, BPF");
    lint_bpf(&setup::toolchain()?)?;
    heading("completions and man pages");
    dist::run(&dist::Args::generated())?;
    test::run(&test::Args::everything())?;
    heading("other kernels");
    let deadline = started + TIME;
    if started.elapsed() < TIME_BEFORE_OTHER_KERNELS {
        vm::quick(deadline)?;
    } else {
        println!(
            "LEFT OUT, as this machine has taken its time: all but the programs on 6.1; \
             cargo xtask vm --quick --kernel 6.1 (and 6.12) runs it"
        );
        vm::least(deadline)?;
    }
    heading("package");
    if dist::is_ready() || started.elapsed() < TIME_BEFORE_PACKAGE {
        dist::run(&dist::Args::checked())?;
    } else {
        println!("LEFT OUT, as this machine has taken its time: cargo xtask dist --check");
    }
    println!("\nci passed in {:.0} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// Clippy must be the compiler's own, to the version: rustup's stable one has no `core` for BPF and cannot read Debian's.
/// Debian packages the match of rustc-web; nightly has one as a component. Both share the build's target directory:
/// the flags are the same, and check's artefacts are others than build's.
fn lint_bpf(toolchain: &Toolchain) -> Result<()> {
    let mut command = match toolchain.route {
        Route::Nightly => {
            if probe::output(probe::in_nightly("cargo-clippy").arg("--version")).is_none() {
                bail!(
                    "nightly has no clippy: `rustup component add --toolchain nightly clippy`, then this again"
                );
            }
            bpf_cargo(toolchain, "clippy")
        }
        Route::Debian => {
            if !debian_clippy_fits() {
                packages::install(
                    &["rust-web-clippy"],
                    "the lints of the compiler that builds the BPF object",
                )?;
            }
            let mut command = cargo::clean(DEBIAN_CLIPPY);
            // It calls whichever cargo it is told to, with the clippy-driver beside itself.
            command.arg("clippy").env("CARGO", env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            for_bpf(toolchain, command)
        }
    };
    command.arg("--lib").args(BPF_BINS).args(["--", "-D", "warnings"]);
    cargo::run(&mut command, "cargo clippy for BPF")
}

fn debian_clippy_fits() -> bool {
    let clippy = probe::output(cargo::clean(DEBIAN_CLIPPY).arg("--version"));
    match (clippy, probe::debian()) {
        // "clippy 0.1.96" goes with rustc 1.96.
        (Some(clippy), Some(rustc)) => {
            clippy.split_whitespace().nth(1) == Some(format!("0.1.{}", rustc.version.1).as_str())
        }
        _ => false,
    }
}

fn heading(text: &str) {
    println!("\n== {text} ==");
}
