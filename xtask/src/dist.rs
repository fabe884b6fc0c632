//! What is installed: shell completions and man pages, from the one grammar of the command line, and a Debian package with
//! them, the binary and `vswitch/dist`.
//!
//! That grammar is in package vswitch-command, on which xtask must not depend otherwise (see `features` in Cargo.toml). So
//! without the feature `dist` this runs xtask again, with it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{build, cargo, packages, probe, step, test};

/// Made from `[package.metadata.deb]` in vswitch/command/Cargo.toml.
const CARGO_DEB: &str = "3.8.0";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Completions and man pages only: needs neither the BPF toolchain nor cargo-deb
    #[arg(long)]
    no_deb: bool,
    /// Install, run, upgrade and remove the package, under systemd in namespaces; as root
    #[arg(long, conflicts_with = "no_deb")]
    check: bool,
}

impl Args {
    /// What needs nothing installed.
    pub(crate) fn generated() -> Self {
        Self { no_deb: true, check: false }
    }

    /// The package, made and tried.
    pub(crate) fn checked() -> Self {
        Self { no_deb: false, check: true }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    generated()?;
    if args.no_deb {
        return Ok(());
    }
    let package = package()?;
    if args.check { check(&package) } else { Ok(()) }
}

#[cfg(not(feature = "dist"))]
fn generated() -> Result<()> {
    // Without --package: cargo then resolves features for the whole workspace, and shares what tests have compiled.
    let mut command = cargo::cargo("run");
    command.args(["--quiet", "--bin", "xtask", "--features", "xtask/dist", "--", "dist", "--no-deb"]);
    cargo::run(&mut command, "cargo run --features xtask/dist")
}

#[cfg(feature = "dist")]
fn generated() -> Result<()> {
    generate::all(&directory())
}

fn directory() -> PathBuf {
    cargo::target().join("dist")
}

/// Returns where it is.
fn package() -> Result<PathBuf> {
    build::release()?;
    let mut deb = cargo_deb()?;
    // The binary is the one with the BPF object in it, which cargo alone would build without.
    let package = directory().join("vswitch.deb");
    deb.args(["--no-build", "--strip", "--quiet", "--package", "vswitch-command", "--output"]).arg(&package);
    deb.current_dir(cargo::root()).env("CARGO_TARGET_DIR", cargo::target());
    cargo::run(&mut deb, "cargo deb")?;
    Ok(package)
}

fn check(package: &Path) -> Result<()> {
    packages::authorise()?;
    if probe::find("man").is_none() {
        packages::install(&["man-db"], "finds the package's man pages")?;
    }
    let variables = vec![format!("VSWITCH_DEB={}", package.display()), "VSWITCH_REQUIRE=all".to_owned()];
    let mut test = cargo::cargo("test");
    test.args(["--config", &test::runner(probe::privilege(), variables), "--workspace", "--test", "net"]);
    test.args(["--", "--ignored", "the_package_comes_and_goes"]);
    cargo::run(&mut test, "the package's test")
}

/// The program, installed where nothing but this finds it.
fn cargo_deb() -> Result<Command> {
    if !is_ready() {
        let mut install = cargo::cargo("install");
        install.args(["cargo-deb", "--version", CARGO_DEB, "--locked", "--no-default-features", "--root"]);
        install.arg(tools()).env_remove("CARGO_TARGET_DIR");
        step::run("cargo install cargo-deb", "makes the Debian package", &mut install)?;
    }
    Ok(installed())
}

/// Whether what makes the package need not be compiled first, which takes minutes.
pub(crate) fn is_ready() -> bool {
    let version = probe::output(installed().arg("--version"));
    version.is_some_and(|version| version.split_whitespace().last() == Some(CARGO_DEB))
}

fn installed() -> Command {
    cargo::clean(tools().join("bin/cargo-deb"))
}

fn tools() -> PathBuf {
    cargo::target().join("tools")
}

#[cfg(feature = "dist")]
mod generate {
    use std::{fs, io, path::Path};

    use anyhow::{Context as _, Result};
    use clap_complete::{Shell, generate_to};

    const SHELLS: [(Shell, &str); 3] = [
        (Shell::Bash, "/usr/share/bash-completion/completions/vswitch"),
        (Shell::Zsh, "/usr/share/zsh/vendor-completions/_vswitch"),
        (Shell::Fish, "/usr/share/fish/vendor_completions.d/vswitch.fish"),
    ];

    pub(super) fn all(root: &Path) -> Result<()> {
        let (completions, man) = (root.join("completions"), root.join("man"));
        for directory in [&completions, &man] {
            // Nothing of a command that is no more.
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", directory.display()));
                }
                Ok(()) | Err(_) => {}
            }
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        for (shell, place) in SHELLS {
            let path = generate_to(shell, &mut vswitch_command::command(), "vswitch", &completions)
                .with_context(|| format!("write the completion for {shell}"))?;
            println!("{}  goes to {place}", path.display());
        }
        clap_mangen::generate_to(vswitch_command::command(), &man)
            .with_context(|| format!("write man pages to {}", man.display()))?;
        let pages = fs::read_dir(&man).with_context(|| format!("read {}", man.display()))?.count();
        println!("{}/*.1  {pages} pages, go to /usr/share/man/man1", man.display());
        Ok(())
    }
}
