//! How does xtask call cargo, so that the call is the one a developer would have typed?

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    let package = env!("CARGO_MANIFEST_DIR");
    Path::new(package).parent().map_or_else(|| PathBuf::from(package), Path::to_path_buf)
}

/// The one target directory, whatever CARGO_TARGET_DIR says: the documents name files in it.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// `cargo` of the toolchain that runs xtask, in the workspace and with its target directory.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = clean(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.arg(subcommand).current_dir(root()).env("CARGO_TARGET_DIR", target());
    command
}

/// A command without what `cargo run` put into xtask's environment: it would pin another toolchain's cargo to this
/// one's rustc and libraries, and hand build scripts xtask's own package variables.
pub(crate) fn clean(program: impl Into<OsString>) -> Command {
    let mut command = Command::new(program.into());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_cargo_run) {
            command.env_remove(name);
        }
    }
    if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
        let toolchain = env::var_os("CARGO")
            .and_then(|cargo| Some(Path::new(&cargo).parent()?.parent()?.to_path_buf()))
            .filter(|toolchain| toolchain.join("lib/rustlib").is_dir() && *toolchain != Path::new("/usr"));
        let kept: Vec<PathBuf> = env::split_paths(&paths)
            .filter(|path| {
                !path.starts_with(target()) && toolchain.as_ref().is_none_or(|t| !path.starts_with(t))
            })
            .collect();
        match env::join_paths(&kept) {
            Ok(kept) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", kept),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command
}

fn is_of_cargo_run(name: &str) -> bool {
    name == "CARGO"
        || name == "CARGO_TARGET_DIR"
        || name == "RUST_RECURSION_COUNT"
        || name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        // Where the object is, is for xtask to say: see build.rs.
        || name == "VSWITCH_BPF_OBJECT"
}

/// Runs `command` with the terminal to itself; `what` names it in the error.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<()> {
    let status =
        command.status().with_context(|| format!("{what}: cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{what} failed ({status}); the cause is printed above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_found() {
        assert!(root().join("xtask/Cargo.toml").is_file());
    }

    #[test]
    fn only_the_variables_of_cargo_run_go() {
        assert!(is_of_cargo_run("CARGO") && is_of_cargo_run("CARGO_PKG_NAME"));
        assert!(
            !is_of_cargo_run("CARGO_HOME") && !is_of_cargo_run("RUSTUP_HOME") && !is_of_cargo_run("PATH")
        );
    }
}
