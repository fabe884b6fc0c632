//! Who may change a switch now? One command at a time, and one controller.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

const RUN: &str = "/run/vswitch";

/// How long a command waits for another one to finish.
const PATIENCE: Duration = Duration::from_secs(10);

/// Holds a switch's lock until it is dropped; the kernel releases it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// The right to change the switch. Waits for a command that has it.
    pub(crate) fn change(switch: &str) -> Result<Self> {
        Self::acquire(switch, "lock", PATIENCE).with_context(|| {
            format!(r#"switch "{switch}": another command is changing it: try again when it is done"#)
        })
    }

    /// The right to be the switch's controller. Does not wait.
    pub(crate) fn run(switch: &str) -> Result<Self> {
        Self::acquire(switch, "run", Duration::ZERO).with_context(|| {
            format!(r#"switch "{switch}": `vswitch run` is at work already: end that one first"#)
        })
    }

    /// Removes the lock's file too: the switch is gone.
    pub(crate) fn remove(self) {
        // Under the lock: whoever waits for it finds that the file is another one by now, and starts again.
        let _gone = fs::remove_file(&self.path);
        let _others = self.path.parent().map(fs::remove_dir);
        let _others = fs::remove_dir(RUN);
    }

    fn acquire(switch: &str, name: &str, patience: Duration) -> Result<Self> {
        let dir = Path::new(RUN).join(switch);
        let path = dir.join(name);
        let start = Instant::now();
        loop {
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path);
            let mut file = match opened {
                // A `down` removed the directory in between.
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.with_context(|| format!("open {}", path.display()))?,
            };
            // SAFETY: the descriptor is open; flock takes no pointers.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                if !is_at(&file, &path) {
                    continue;
                }
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(Self { file, path });
            }
            let err = io::Error::last_os_error();
            if err.kind() != io::ErrorKind::WouldBlock {
                return Err(err).with_context(|| format!("lock {}", path.display()));
            }
            if start.elapsed() >= patience {
                let mut owner = String::new();
                let _unknown = file.read_to_string(&mut owner);
                bail!("process {} holds {}", owner.trim(), path.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: the descriptor is open; flock takes no pointers. Closing would do it too, but not if a child shares it.
        unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// Whether this is still the file that the path names.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        (_, _) => false,
    }
}
