//! Who takes the bench's namespaces and switches away, however it ends? A process of its own.
//!
//! It waits for its stdin to end, which the kernel does for it when the bench dies, of Ctrl-C or of anything else. It is
//! in a process group of its own, where Ctrl-C does not reach it.

use std::{
    env,
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    lab::{NAMESPACES, remove},
    nic::Pair,
};
use vswitch::{
    control::{self, Scope},
    net::Netns,
};

/// What the bench says when it ends by itself, well or not.
const FINISHED: &[u8] = b"finished";

/// The bench's hold on its guard; when it is dropped, all is taken away.
pub(super) struct Guard {
    process: Child,
    stdin: Option<ChildStdin>,
}

impl Guard {
    /// Of all whose names begin with `prefix` and a dash.
    pub(super) fn start(prefix: &str, pair: Option<&Pair>) -> Result<Self> {
        let own = env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.args(["bench", "--guard", prefix]);
        if let Some(pair) = pair {
            command.args(["--tx", &pair.tx, "--rx", &pair.rx]);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the process that cleans up")?;
        let stdin = process.stdin.take();
        Ok(Self { process, stdin })
    }

    /// Takes all away, and fails if something is left.
    pub(super) fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(mut stdin) = self.stdin.take() else { return Ok(()) };
        stdin.write_all(FINISHED).context("reach the process that cleans up")?;
        drop(stdin);
        let status = self.process.wait().context("wait for the process that cleans up")?;
        if status.success() { Ok(()) } else { bail!("not all could be taken away; see above") }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The failure that led here is the one to tell; the guard has printed its own.
        let _reported = self.end();
    }
}

/// The guard itself.
pub fn run(prefix: &str, pair: Option<&Pair>) -> Result<()> {
    // What ends the bench's terminal shall not end this first.
    for signal in [libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let mut word = Vec::new();
    // An error is an end as well.
    let _end = io::stdin().read_to_end(&mut word);
    let interrupted = word != FINISHED;
    if interrupted {
        let _unread = writeln!(io::stderr(), "\nbench: interrupted: taking all away");
    }
    for name in of(prefix, Path::new(NAMESPACES)) {
        if let (Some(switch), Ok(netns)) = (name.strip_suffix("-s"), Netns::open(&name)) {
            let scope = Scope { switch: switch.to_owned(), netns: Some(name.clone()) };
            // Most labs have none of ours.
            let _none = netns.run_async_in(|| async { control::down(&scope).await });
        }
        if let (Some(pair), Ok(netns)) = (pair, Netns::open(&name)) {
            pair.bring_home(&netns)?;
        }
        remove(&Path::new(NAMESPACES).join(name));
    }
    let mut left = of(prefix, Path::new(NAMESPACES));
    for version in list(Path::new("/sys/fs/bpf/vswitch")) {
        left.extend(of(prefix, &Path::new("/sys/fs/bpf/vswitch").join(version)));
    }
    if !left.is_empty() {
        bail!("left behind: {}: report this as a bug", left.join(", "));
    }
    if interrupted {
        let _unread = writeln!(io::stderr(), "bench: nothing is left behind");
    }
    Ok(())
}

/// The names in a directory that are the bench's.
fn of(prefix: &str, directory: &Path) -> Vec<String> {
    let ours = format!("{prefix}-");
    list(directory).into_iter().filter(|name| name.starts_with(&ours)).collect()
}

fn list(directory: &Path) -> Vec<String> {
    let Ok(entries) = directory.read_dir() else { return Vec::new() };
    entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
