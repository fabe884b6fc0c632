//! Who may change a switch now? One command at a time, and one controller.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::dataplane::pins::Pins;

const RUN: &str = "/run/vswitch";

/// How long a command waits for another one to finish.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the lock is left alone between two stages of a change.
const WAY: Duration = Duration::from_millis(20);

/// The lock of whoever changes the switch in stages.
const STAGES: &str = "stages";

/// Holds a switch's lock until it is dropped; the kernel releases it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    switch: String,
}

impl Lock {
    /// The right to change the switch. Waits for a command that has it; whoever does not want to wait any more may drop the
    /// future.
    pub(crate) async fn change(switch: &str) -> Result<Self> {
        match Self::acquire(switch, "lock", PATIENCE).await? {
            Ok(lock) => Ok(lock),
            Err(owner) => bail!(
                r#"switch "{switch}": {owner} is changing it and has not finished in {} s: try again when it has, or end it"#,
                PATIENCE.as_secs()
            ),
        }
    }

    /// The right to change the switch in stages, between which others may change it. Waits as [`Lock::change`].
    pub(crate) async fn stages(switch: &str) -> Result<Self> {
        match Self::acquire(switch, STAGES, PATIENCE).await? {
            Ok(lock) => Ok(lock),
            Err(owner) => bail!(
                r#"switch "{switch}": {owner} is adding or removing many ports and has not finished in {} s: try again when it has, or end it"#,
                PATIENCE.as_secs()
            ),
        }
    }

    /// Whether somebody does.
    pub(crate) fn is_in_stages(switch: &str) -> bool {
        let Ok(file) = File::open(Path::new(RUN).join(switch).join(STAGES)) else { return false };
        // SAFETY: the descriptor is open; flock takes no pointers. Closing it gives the lock back.
        unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) != 0 }
    }

    /// Lets those change the switch who wait for it, and waits for them.
    pub(crate) async fn give_way(&mut self) -> Result<()> {
        // SAFETY: the descriptor is open; flock takes no pointers.
        unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
        // Longer than anybody pauses who waits.
        tokio::time::sleep(WAY).await;
        loop {
            if let Ok(lock) = Self::acquire(&self.switch, "lock", PATIENCE).await? {
                *self = lock;
                return Ok(());
            }
        }
    }

    /// The right to be the switch's controller. Does not wait.
    pub(crate) async fn run(switch: &str) -> Result<Self> {
        match Self::acquire(switch, "run", Duration::ZERO).await? {
            Ok(lock) => Ok(lock),
            Err(owner) => {
                bail!(r#"switch "{switch}": {owner} is its controller already: end that one first"#)
            }
        }
    }

    /// Tells whoever is the switch's controller that there is no switch any more.
    pub(crate) fn dismiss(switch: &str) {
        // Where there is no controller there may be the lock of one that was killed, or none.
        let _none = fs::remove_file(Path::new(RUN).join(switch).join("run"));
    }

    /// Whether it is a lock of nothing: see [`Lock::dismiss`].
    pub(crate) fn is_dismissed(&self) -> bool {
        !is_at(&self.file, &self.path)
    }

    /// The inner error is who has the lock.
    async fn acquire(switch: &str, name: &str, patience: Duration) -> Result<Result<Self, String>> {
        let dir = Path::new(RUN).join(switch);
        let path = dir.join(name);
        let start = Instant::now();
        loop {
            let open = || {
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
            };
            let opened = open().or_else(|_no_directory| make_dirs(&dir).and_then(|()| open()));
            let file = match opened {
                // Whoever had the lock last removed the directory in between.
                Err(err) if err.kind() == io::ErrorKind::NotFound && start.elapsed() < PATIENCE => continue,
                opened => opened.with_context(|| {
                    format!(r#"switch "{switch}": its lock {} cannot be made (run as root)"#, path.display())
                })?,
            };
            // SAFETY: the descriptor is open; flock takes no pointers.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                if !is_at(&file, &path) {
                    continue;
                }
                return Ok(Ok(Self { file, path, switch: switch.to_owned() }));
            }
            let err = io::Error::last_os_error();
            if err.kind() != io::ErrorKind::WouldBlock {
                return Err(err).with_context(|| format!("lock {}", path.display()));
            }
            if start.elapsed() >= patience {
                return Ok(Err(owner(&file)));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.path.ends_with(STAGES) && !self.is_dismissed() {
            // Nothing is left of it where nobody is at it.
            let _gone = fs::remove_file(&self.path);
        }
        // Where there is no switch, nothing of it shall be left.
        if matches!(Pins::of(&self.switch).exist(), Ok(false))
            && Pins::other_versions(&self.switch).is_empty()
        {
            // Under the lock: whoever waits for it finds that the file is another one by now, and starts again.
            let _gone = (!self.is_dismissed()).then(|| fs::remove_file(&self.path));
            let _others = self.path.parent().map(fs::remove_dir);
            let _others = fs::remove_dir(RUN);
        }
        // SAFETY: the descriptor is open; flock takes no pointers. Closing would do it too, but not if a child shares it.
        unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// Makes the directory of a switch's locks. Not all in one call: that one finds a directory, looks again what it is and
/// calls one that went meanwhile an "exists already".
fn make_dirs(dir: &Path) -> io::Result<()> {
    for dir in [Path::new(RUN), dir] {
        match fs::create_dir(dir) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether this is still the file that the path names.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        (_, _) => false,
    }
}

/// Who has locked the file, as the kernel knows it: a number written into the file would outlive its writer.
fn owner(file: &File) -> String {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = file.metadata().ok().and_then(|meta| holder(&locks, meta.ino()));
    match pid {
        Some(pid) => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim()),
            Err(_) => format!("process {pid}"),
        },
        None => "another process".to_owned(),
    }
}

/// `1: FLOCK  ADVISORY  WRITE 1234 00:17:5678 0 EOF`. By inode alone: the device is written as the mount has it.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = *words else { return None };
        let at = place.rsplit(':').next()?.parse::<u64>().ok()?;
        pid.parse().ok().filter(|_| at == inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::skipped;

    #[test]
    fn one_is_taken_while_the_last_of_the_others_goes() {
        if skipped("one_is_taken_while_the_last_of_the_others_goes") {
            return;
        }
        // Locks of no switches: each is gone when it is given back, and its directory.
        let switches = ["one", "other"].map(|name| format!("vst-lock-{}-{name}", std::process::id()));
        std::thread::scope(|scope| {
            for switch in switches.iter().chain(&switches) {
                scope.spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    for _ in 0..1_000 {
                        drop(runtime.block_on(Lock::change(switch)).unwrap());
                    }
                });
            }
        });
        assert!(switches.iter().all(|switch| !Path::new(RUN).join(switch).exists()));
    }

    #[test]
    fn the_holder_is_found_by_inode() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 10 00:17:5678 0 EOF
2: FLOCK  ADVISORY  WRITE 1234 00:17:5678 0 EOF
2: -> FLOCK  ADVISORY  WRITE 99 00:17:5678 0 EOF
3: FLOCK  ADVISORY  WRITE 77 00:17:56 0 EOF
";
        assert_eq!(holder(locks, 5678), Some(1234));
        assert_eq!(holder(locks, 56), Some(77));
        assert_eq!(holder(locks, 1), None);
    }
}
