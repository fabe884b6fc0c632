//! Whose programs does a switch run, and how do others take their place without a frame passing in between?
//!
//! The mark `programs/build` names the object that the programs come from. It is a symbolic link whose target is a word:
//! the one thing that bpffs keeps besides maps, programs and links, and changes in one step. It is taken away before
//! the first program is replaced and set after the last: without it, programs may be mixed. They work on the same maps
//! and frames go on flowing, and whoever comes next replaces them all again.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::Ebpf;

use super::{
    Dataplane,
    links::{self, Hook},
    load,
    pins::{Pins, gone},
};
use crate::net::Ethtool;

/// Whether the switch runs this build's programs, all of them: those that tell of every frame, or the silent ones.
pub(crate) fn are_current(pins: &Pins, log_packets: bool) -> bool {
    fs::read_link(mark(pins)).is_ok_and(|build| build.to_str() == Some(&ours(log_packets)))
}

/// Whether a command that replaced the programs was interrupted.
pub(crate) fn are_mixed(pins: &Pins) -> bool {
    let missing =
        |path: PathBuf| path.symlink_metadata().is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
    // Where a program is missing too, somebody else was here.
    missing(mark(pins)) && load::PROGRAMS.iter().all(|program| pins.program(program).exists())
}

/// Says that all programs are this build's.
pub(super) fn set_mark(pins: &Pins, log_packets: bool) -> Result<()> {
    let path = mark(pins);
    symlink(ours(log_packets), &path).with_context(|| format!("make {}", path.display()))
}

/// What the mark says, if there is one.
pub(super) fn read_mark(pins: &Pins) -> Option<PathBuf> {
    fs::read_link(mark(pins)).ok()
}

/// Makes the mark say again what it said, unless it says something.
pub(super) fn restore_mark(pins: &Pins, build: &Path) -> Result<()> {
    let path = mark(pins);
    match symlink(build, &path) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
            Err(err).with_context(|| format!("make {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts this build's programs in the place of whatever the switch runs. Returns the ports that ran others.
pub(crate) fn replace(dataplane: &Dataplane) -> Result<Vec<String>> {
    install(dataplane, &mut load(dataplane, false)?, false)
}

/// Loads this build's programs for the switch's maps; nobody runs them yet.
pub(crate) fn load(dataplane: &Dataplane, log_packets: bool) -> Result<Ebpf> {
    load::load_again(&dataplane.pins, dataplane.fdb_shape(), log_packets).context("load the dataplane")
}

/// Makes loaded programs the switch's: first those that new ports are attached with, then those of each port. Returns the
/// ports that ran others.
pub(crate) fn install(dataplane: &Dataplane, ebpf: &mut Ebpf, log_packets: bool) -> Result<Vec<String>> {
    let pins = &dataplane.pins;
    clear_mark(pins)?;
    load::repin_programs(pins, ebpf)?;
    let ports = follow(dataplane)?;
    dataplane.raise();
    set_mark(pins, log_packets)?;
    Ok(ports)
}

/// Says that the programs may be mixed.
pub(super) fn clear_mark(pins: &Pins) -> Result<()> {
    let path = mark(pins);
    gone(fs::remove_file(&path), &path)
}

/// Lets every port run the pinned programs. Returns the ports that did not.
pub(super) fn follow(dataplane: &Dataplane) -> Result<Vec<String>> {
    let (names, mut changed) = (Ethtool::open()?, Vec::new());
    for member in dataplane.members()?.iter().filter(|member| member.is_present()) {
        let mut any = false;
        // What it is called now: nobody may have followed a change.
        let called = match dataplane.is_there(member.slot)? {
            true => names.name_of(member.port.ifindex).ok(),
            false => None,
        };
        for hook in [Hook::In, Hook::Out, Hook::Xdp] {
            let ifname = called.as_deref().filter(|_| hook != Hook::Out || member.is_uplink());
            any |= links::follow(&dataplane.pins, member.slot, ifname, hook)?;
        }
        if any {
            changed.push(member.ifname());
        }
    }
    Ok(changed)
}

/// The mark of this build.
fn ours(log_packets: bool) -> String {
    let object = load::object_hash();
    if log_packets { format!("{object:016x}-log-packets") } else { format!("{object:016x}") }
}

fn mark(pins: &Pins) -> PathBuf {
    pins.program("build")
}
