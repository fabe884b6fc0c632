//! What is installed beside the binary: shell completions and man pages, from the one grammar of the command line.
//!
//! That grammar is in package vswitch, on which xtask must not depend otherwise (see `features` in Cargo.toml). So
//! without the feature `dist` this runs xtask again, with it.

use anyhow::Result;

#[cfg(not(feature = "dist"))]
pub(crate) fn run() -> Result<()> {
    use crate::cargo;

    // Without --package: cargo then resolves features for the whole workspace, and shares what tests have compiled.
    let mut command = cargo::cargo("run");
    command.args(["--quiet", "--bin", "xtask", "--features", "xtask/dist", "--", "dist"]);
    cargo::run(&mut command, "cargo run --features xtask/dist")
}

#[cfg(feature = "dist")]
pub(crate) fn run() -> Result<()> {
    generate::all(&crate::cargo::target().join("dist"))
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
        // Nothing of a command that is no more.
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", root.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let (completions, man) = (root.join("completions"), root.join("man"));
        for directory in [&completions, &man] {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        for (shell, place) in SHELLS {
            let path = generate_to(shell, &mut vswitch::cli::command(), "vswitch", &completions)
                .with_context(|| format!("write the completion for {shell}"))?;
            println!("{}  goes to {place}", path.display());
        }
        clap_mangen::generate_to(vswitch::cli::command(), &man)
            .with_context(|| format!("write man pages to {}", man.display()))?;
        let pages = fs::read_dir(&man).with_context(|| format!("read {}", man.display()))?.count();
        println!("{}/*.1  {pages} pages, go to /usr/share/man/man1", man.display());
        Ok(())
    }
}
