//! Which distribution packages are needed, and how are they installed?

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{
    cargo, probe,
    probe::find,
    route::{DEBIAN_PACKAGES, Privilege},
    step,
};

pub(crate) struct Tool {
    pub(crate) command: &'static str,
    pub(crate) package: &'static str,
    pub(crate) why: &'static str,
}

/// What the demo and the tests call.
pub(crate) const TOOLS: [Tool; 9] = [
    Tool { command: "ip", package: "iproute2", why: "makes namespaces and veth pairs" },
    Tool { command: "ping", package: "iputils-ping", why: "shows that hosts reach each other" },
    Tool { command: "ethtool", package: "ethtool", why: "reads and sets offloads" },
    Tool { command: "iperf3", package: "iperf3", why: "moves bulk TCP" },
    Tool { command: "tcpdump", package: "tcpdump", why: "shows frames" },
    Tool { command: "jq", package: "jq", why: "reads JSON output" },
    Tool {
        command: "systemd-analyze",
        package: "systemd",
        why: "checks the unit, and runs it in a namespace",
    },
    Tool { command: "bpftool", package: "bpftool", why: "shows programs, maps and links" },
    Tool {
        command: "strace",
        package: "strace",
        why: "shows that a controller with nothing to do changes nothing",
    },
];

pub(crate) fn missing_tools() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| find(tool.command).is_none()).collect()
}

/// A command run as root; None where that is impossible.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Option<Command> {
    match probe::privilege() {
        Privilege::Root => Some(cargo::clean(program.as_ref())),
        Privilege::Sudo => {
            let mut command = cargo::clean("sudo");
            command.arg(program.as_ref());
            Some(command)
        }
        Privilege::None => None,
    }
}

/// Asks for sudo's password now, where it is seen, and not behind a status line.
pub(crate) fn authorise() -> Result<()> {
    if probe::privilege() == Privilege::Sudo {
        cargo::run(cargo::clean("sudo").arg("true"), "sudo")?;
    }
    Ok(())
}

pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    authorise()?;
    let fresh = if packages.iter().all(|package| has_candidate(package)) {
        false
    } else {
        update()?;
        true
    };
    if let Some(unknown) = packages.iter().find(|package| !has_candidate(package)) {
        let remedy = if DEBIAN_PACKAGES.contains(unknown) {
            "it comes with Debian 12's security archive (suite bookworm-security, component main); or take rustup's \
             route: rustup toolchain install nightly --component rust-src"
        } else {
            "add the archive that carries it"
        };
        bail!("apt-get install {unknown}: no archive of this system has the package; {remedy}");
    }
    let what = format!("apt-get install {}", packages.join(" "));
    match step::run(&what, why, &mut apt_install(packages)?) {
        // A list older than the archive names files that are gone.
        Err(_) if !fresh => {
            update()?;
            step::run(&what, "once more, with fresh package lists", &mut apt_install(packages)?)
        }
        result => result,
    }
}

/// Fetches a package's file into a directory, without installing it.
pub(crate) fn download(package: &str, directory: &Path) -> Result<()> {
    let mut command = cargo::clean("apt-get");
    command.args(["-q", "download", package]).current_dir(directory);
    if command.output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    update()?;
    cargo::run(&mut command, &format!("apt-get download {package}"))
}

/// Fails if no archive of this system has the package.
pub(crate) fn know(package: &str) -> Result<()> {
    if !has_candidate(package) {
        update()?;
    }
    if !has_candidate(package) {
        bail!(
            "no archive of this system has the package {package}: Debian 12's are in bookworm and bookworm-security"
        );
    }
    Ok(())
}

/// A package that is here in another version than the archives have, by which others of its family cannot be installed: as an
/// argument of apt-get, the archives' version of it. None if it is not here, or is theirs.
pub(crate) fn as_archived(package: &str) -> Option<String> {
    let text = probe::output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))?;
    archived(&text).map(|version| format!("{package}={version}"))
}

/// By what `apt-cache policy` prints: after the installed version's line comes what has it; priority 100 is dpkg's own list.
fn archived(policy: &str) -> Option<&str> {
    let lines: Vec<&str> = policy.lines().map(str::trim).collect();
    let installed = lines.iter().find_map(|line| line.strip_prefix("Installed: "))?;
    let table = lines.split(|line| *line == "Version table:").nth(1)?;
    let versions = table.windows(2).filter(|pair| pair[1].starts_with("500 "));
    let mut versions = versions.filter_map(|pair| pair[0].trim_start_matches("*** ").split(' ').next());
    let theirs = versions.clone().any(|version| version == installed);
    if installed == "(none)" || theirs { None } else { versions.next() }
}

/// Whether an archive has a package, `name` or `name=version`.
fn has_candidate(package: &str) -> bool {
    let package = package.split('=').next().unwrap_or(package);
    probe::output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))
        .and_then(|text| {
            Some(text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))? != "(none)")
        })
        .unwrap_or(false)
}

fn update() -> Result<()> {
    let mut command = apt_get()?;
    command.arg("update");
    step::run("apt-get update", "this system's package lists are missing or old", &mut command)
}

fn apt_install(packages: &[&str]) -> Result<Command> {
    let mut command = apt_get()?;
    // --no-remove: rustc-web conflicts with Debian's own rustc and rustup, which are not ours to take away.
    command.args(["install", "-y", "--no-install-recommends", "--no-remove", "--allow-downgrades"]);
    command.args(packages);
    Ok(command)
}

fn apt_get() -> Result<Command> {
    let Some(mut command) = as_root("env") else {
        bail!("apt-get needs root, and there is no sudo: run this as root");
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::archived;

    #[test]
    fn what_no_archive_has_is_told_from_what_one_has() {
        let stranger = "q:\n  Installed: 10.0~bpo\n  Candidate: 10.0~bpo\n  Version table:\n *** 10.0~bpo 100\n        100 /var/lib/dpkg/status\n     7.2 500\n        500 http://archive main amd64 Packages\n     7.1 500\n        500 http://archive main amd64 Packages\n";
        assert_eq!(archived(stranger), Some("7.2"));
        let theirs = "q:\n  Installed: 7.2\n  Candidate: 7.2\n  Version table:\n *** 7.2 500\n        500 http://archive main amd64 Packages\n        100 /var/lib/dpkg/status\n";
        assert_eq!(archived(theirs), None);
        let missing = "q:\n  Installed: (none)\n  Candidate: 7.2\n  Version table:\n     7.2 500\n        500 http://archive main amd64 Packages\n";
        assert_eq!(archived(missing), None);
        assert_eq!(archived(""), None);
    }
}
