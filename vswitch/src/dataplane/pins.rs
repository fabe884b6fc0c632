//! Where is a switch in the file system, and who may read it?
//!
//! `/sys/fs/bpf/vswitch/v<ABI>/<switch>/{maps,programs,links}`. The ABI's version is in the path: a program never meets
//! maps of another layout. `<switch>~` beside it is not a switch yet, or no longer: it gets its name when it is whole and
//! loses it before it is taken apart, so that what a command leaves behind that is interrupted is known for what it is.

use std::{
    ffi::CString,
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use vswitch_ebpf::abi::ABI_VERSION;

use super::{
    bpffs::{BPFFS, mount},
    sys,
};
use crate::net::Refused;

/// The group that may read counters and FDB, where it exists.
pub(super) const GROUP: &str = "vswitch";

/// Maps that [`GROUP`] may read; the others are for root alone.
const READABLE: [&str; 12] = [
    "BASES",
    "COUNTERS",
    "FDB",
    "FILTERS",
    "IDENTITY",
    "INTENT",
    "INTERFACES",
    "PORTS",
    "PRESENT",
    "RECORDS",
    "SETTINGS",
    "SOURCES",
];

/// The pins of one switch.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// Of a directory that the group may enter.
const SHARED: u32 = 0o750;

/// How often the common directories are made again.
const TRIES: u32 = 100;

/// Ends the name of what is being made or taken apart. No switch's name can.
const SCRATCH: char = '~';

impl Pins {
    /// Those of the switch `name`, whether it exists or not.
    pub fn of(name: &str) -> Self {
        Self::of_version(ABI_VERSION, name)
    }

    /// Those of a switch of another build.
    pub(crate) fn of_version(version: u32, name: &str) -> Self {
        Self { root: versioned(version).join(name) }
    }

    /// Where these are made and taken apart.
    pub(crate) fn scratch(&self) -> Self {
        let mut root = self.root.clone().into_os_string();
        root.push(SCRATCH.to_string());
        Self { root: root.into() }
    }

    /// Names of the switches of this ABI version, whole or not.
    pub fn switches() -> Vec<String> {
        let mut names = names(&versioned(ABI_VERSION));
        names.retain(|name| !name.ends_with(SCRATCH));
        names.sort();
        names
    }

    /// The other ABI versions of which there is a switch `name`, in order.
    pub(crate) fn other_versions(name: &str) -> Vec<u32> {
        let versions = names(&Path::new(BPFFS).join("vswitch"));
        let mut versions: Vec<u32> =
            versions.iter().filter_map(|version| version.strip_prefix('v')?.parse().ok()).collect();
        versions.retain(|version| *version != ABI_VERSION && Self::of_version(*version, name).root.exists());
        versions.sort_unstable();
        versions
    }

    /// Whether anything of the switch is there.
    pub fn exist(&self) -> io::Result<bool> {
        self.root.try_exists()
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// The pin of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("programs").join(name)
    }

    /// The directory of the links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// What the command that is at work wants the switch to be.
    pub(crate) fn journal(&self) -> PathBuf {
        self.document("journal")
    }

    /// What is noted of a change beside the maps.
    pub(crate) fn document(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes the directories. Fails if the switch exists.
    pub fn create(&self) -> Result<()> {
        self.make(false)
    }

    /// Makes those directories that are missing.
    pub(super) fn restore(&self) -> Result<()> {
        self.make(true)
    }

    fn make(&self, again: bool) -> Result<()> {
        mount()?;
        // The last switch of all takes the common directories with it, perhaps at this moment.
        let mut made = self.make_root(again);
        for _again in 0..TRIES {
            if made.as_ref().is_err_and(Refused::is_gone) {
                made = self.make_root(again);
            }
        }
        made?;
        make_dir(&self.root.join("maps"), SHARED, again)?;
        make_dir(&self.root.join("programs"), 0o700, again)?;
        Ok(make_dir(&self.links(), 0o700, again)?)
    }

    fn make_root(&self, again: bool) -> Result<(), Refused> {
        // Not all in one call: that one finds a directory, looks again what it is and calls one that went meanwhile an
        // "exists already".
        for dir in [self.parent().parent(), Some(self.parent())].into_iter().flatten() {
            make_dir(dir, SHARED, true)?;
        }
        make_dir(&self.root, SHARED, again)
    }

    /// Sets who may read a map's pin.
    pub fn protect_map(&self, name: &str) -> Result<()> {
        self.protect(&self.map(name), name)
    }

    /// As [`Pins::protect_map`], where the map is pinned elsewhere until it gets its place.
    pub(crate) fn protect(&self, path: &Path, name: &str) -> Result<()> {
        let mode = if READABLE.contains(&name) { 0o640 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("set the mode of {}", path.display()))?;
        give_to_group(path);
        Ok(())
    }

    /// Gives what was made here the name of the switch: from this moment on it exists.
    pub(crate) fn become_switch(&self, switch: &Self) -> Result<()> {
        fs::rename(&self.root, &switch.root)
            .with_context(|| format!("rename {} to {}", self.root.display(), switch.root.display()))
    }

    /// Removes what is left of the switch: its name first, then links, so that no program outlives the maps that it is
    /// found by.
    pub fn remove(&self) -> Result<()> {
        let scratch = self.scratch();
        scratch.clear()?;
        for entry in names(&self.links()) {
            // Without its pin alone a program would go on for a moment. What is no link any more needs it not.
            let _detached = sys::detach_link(&self.links().join(entry));
        }
        match fs::rename(&self.root, &scratch.root) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(err).with_context(|| format!("remove {}", self.root.display()));
            }
            Ok(()) | Err(_) => {}
        }
        scratch.clear()
    }

    /// Removes the pins. What is pinned elsewhere too stays as it is, links attached.
    pub(crate) fn clear(&self) -> Result<()> {
        for dir in [self.links(), self.root.join("programs"), self.root.join("maps"), self.root.clone()] {
            for name in names(&dir) {
                let path = dir.join(name);
                gone(fs::remove_file(&path), &path)?;
            }
            gone(fs::remove_dir(&dir), &dir)?;
        }
        // The last switch takes the common directories with it; with others left they are not empty.
        if fs::remove_dir(self.parent()).is_ok() {
            let _others = self.parent().parent().map(fs::remove_dir);
        }
        Ok(())
    }

    fn parent(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }
}

/// The names in a directory; none, if it cannot be read.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Something that was to be removed: that it is not there is no error.
pub(crate) fn gone(removed: io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn versioned(version: u32) -> PathBuf {
    Path::new(BPFFS).join("vswitch").join(format!("v{version}"))
}

/// Makes a directory that is shared if its mode is; one that is there will do if `again`.
fn make_dir(dir: &Path, mode: u32, again: bool) -> Result<(), Refused> {
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Err(err) if !again || err.kind() != io::ErrorKind::AlreadyExists => {
            Err(Refused::from_io(format!("create {}", dir.display()), &err))
        }
        Ok(()) | Err(_) if mode == SHARED => share(dir, mode),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Lets the group enter a directory, whatever the umask was when it was made.
fn share(dir: &Path, mode: u32) -> Result<(), Refused> {
    let set = fs::metadata(dir).and_then(|meta| {
        fs::set_permissions(dir, fs::Permissions::from_mode(meta.permissions().mode() | mode))
    });
    set.map_err(|err| Refused::from_io(format!("set the mode of {}", dir.display()), &err))?;
    give_to_group(dir);
    Ok(())
}

/// Lets the group read, where there is such a group; else the owner's group stays.
fn give_to_group(path: &Path) {
    let (Ok(name), Ok(path)) = (CString::new(GROUP), CString::new(path.as_os_str().as_bytes())) else {
        return;
    };
    // SAFETY: the name is zero-terminated. The result is read before any other call could replace it: nothing else in
    // this process asks for groups.
    let gid = unsafe { libc::getgrnam(name.as_ptr()).as_ref() }.map(|group| group.gr_gid);
    if let Some(gid) = gid {
        // SAFETY: the path is zero-terminated; -1 leaves the owner.
        let _unreadable = unsafe { libc::chown(path.as_ptr(), libc::uid_t::MAX, gid) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::skipped;

    #[test]
    fn one_is_made_while_the_last_of_the_others_goes() {
        if skipped("one_is_made_while_the_last_of_the_others_goes") {
            return;
        }
        // Of a version that nobody has: the common directory is these two's alone.
        let pins = |name: &str| Pins::of_version(u32::MAX - std::process::id(), name);
        std::thread::scope(|scope| {
            for name in ["one", "other"] {
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        pins(name).create().unwrap();
                        pins(name).clear().unwrap();
                    }
                });
            }
        });
        assert!(!pins("one").parent().exists());
    }
}
