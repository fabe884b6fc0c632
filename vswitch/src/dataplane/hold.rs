//! What of a switch does its controller hold open? While it does, a pin that somebody removes costs no frame, and it is
//! put back.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirEntryExt as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use super::{load, pins::Pins, programs, state::Member, sys};
use crate::privileges::with_reserve;

/// The pinned maps, programs and links of a switch, held.
pub(crate) struct Hold {
    pins: Pins,
    maps: Dir,
    programs: Dir,
    links: Dir,
    /// What the programs' mark said.
    build: Option<PathBuf>,
    /// The newest link of the machine at the last look, whoever's.
    newest: u32,
}

/// What differed from what is held, at one look.
#[derive(Default)]
pub(crate) struct Seen {
    /// Pins are missing.
    pub(crate) missing: bool,
    /// Slots of links that are attached to nothing any more.
    pub(crate) loose: Vec<u16>,
    /// Interfaces that somebody has attached a link to since the last look.
    pub(crate) linked: Vec<u32>,
}

/// Some of the pins of one directory, by their names, with their inodes.
struct Dir {
    path: PathBuf,
    held: BTreeMap<String, (u64, OwnedFd)>,
}

impl Hold {
    /// Takes hold of what is pinned.
    pub(crate) fn new(pins: &Pins) -> Self {
        let dir = |path| Dir { path, held: BTreeMap::new() };
        let mut hold = Self {
            pins: pins.clone(),
            maps: dir(pins.map("")),
            programs: dir(pins.program("")),
            links: dir(pins.links()),
            build: None,
            newest: 0,
        };
        hold.look();
        hold
    }

    /// Takes hold of what was pinned since the last look, and tells what is not as it was. One look at three
    /// directories, and a system call for each link: that is what it costs each half second.
    pub(crate) fn look(&mut self) -> Seen {
        let maps = self.maps.look(|_| true);
        let programs = self.programs.look(|name| load::PROGRAMS.contains(&name));
        let links = self.links.look(|_| true);
        self.build = programs::read_mark(&self.pins).or_else(|| self.build.take());
        let mut loose = Vec::new();
        self.links.held.retain(|name, (_, link)| {
            let attached = sys::attached_to(&*link).is_ok_and(|ifindex| ifindex != 0);
            // Without a pin it is one that a command has taken off.
            if !attached && links.contains_key(name) {
                loose.extend(slot(name));
            }
            attached
        });
        let missing = self.maps.misses(&maps) || self.programs.misses(&programs) || self.links.misses(&links);
        Seen { missing, loose, linked: self.linked() }
    }

    /// The interfaces that links were attached to since the last time.
    fn linked(&mut self) -> Vec<u32> {
        let mut interfaces = Vec::new();
        // The kernel tells of links by their numbers to CAP_SYS_ADMIN alone.
        with_reserve(|| {
            while let Some(id) = sys::link_after(self.newest) {
                self.newest = id;
                let interface = sys::link(id).and_then(sys::attached_to);
                interfaces.extend(interface.ok().filter(|ifindex| *ifindex != 0));
            }
        });
        interfaces
    }

    /// Puts back the pins that are missing: all maps and programs, and the links of ports. Returns which.
    pub(crate) fn restore(&mut self, members: &[Member]) -> Result<Vec<PathBuf>> {
        let of_port = |name: &str, link: &OwnedFd| {
            let member = members.iter().find(|member| slot(name) == Some(member.slot));
            let attached = sys::attached_to(link).unwrap_or(0);
            member.is_some_and(|member| member.is_present() && member.port.ifindex == attached)
        };
        // What a command has detached meanwhile, or what is left of a slot's last owner, is nobody's.
        self.links.held.retain(|name, (_, link)| of_port(name, link) || self.links.path.join(name).exists());
        let mut back = Vec::new();
        // Without the mark alone, a command is replacing the programs or was interrupted.
        let lost_programs = load::PROGRAMS.iter().any(|name| !self.pins.program(name).exists());
        for dir in [&self.maps, &self.programs, &self.links] {
            for (name, (_, held)) in &dir.held {
                let path = dir.path.join(name);
                if path.try_exists()? {
                    continue;
                }
                self.pins.restore()?;
                sys::pin(held, &path).with_context(|| format!("pin {} again", path.display()))?;
                if dir.path == self.maps.path {
                    self.pins.protect_map(name)?;
                }
                back.push(path);
            }
        }
        if let (true, Some(build)) = (lost_programs, &self.build) {
            programs::restore_mark(&self.pins, build)?;
        }
        Ok(back)
    }
}

impl Dir {
    /// The pins that are there. Opens those that are `wanted` and new, or in the place of another one.
    fn look(&mut self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
        let there = self.entries().unwrap_or_default();
        for (name, inode) in there.iter().filter(|(name, _)| wanted(name)) {
            if self.held.get(name).is_none_or(|(held, _)| held != inode)
                && let Ok(fd) = sys::open_pin(&self.path.join(name))
            {
                self.held.insert(name.clone(), (*inode, fd));
            }
        }
        there
    }

    fn misses(&self, there: &BTreeMap<String, u64>) -> bool {
        self.held.keys().any(|name| !there.contains_key(name))
    }

    fn entries(&self) -> io::Result<BTreeMap<String, u64>> {
        let entry = |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.ino());
        Ok(fs::read_dir(&self.path)?.flatten().map(entry).collect())
    }
}

/// Whose link it is, by its pin's name.
fn slot(name: &str) -> Option<u16> {
    name.split('-').next()?.parse().ok()
}
