//! Who takes the demo's namespaces and switch away, however it ends? A process of its own.
//!
//! It waits for its stdin to end, which the kernel does for it when the demo dies, of Ctrl-C or of anything else. It is
//! in a process group of its own, where Ctrl-C does not reach it.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// What the demo says when it ends by itself, well or not.
const FINISHED: &[u8] = b"finished";

/// The demo's hold on its guard; when it is dropped, all is taken away.
pub(super) struct Guard {
    process: Child,
    stdin: Option<ChildStdin>,
}

impl Guard {
    /// Of the switch, and of the namespaces whose names begin with its name and a dash.
    pub(super) fn start(binary: &Path, switch: &str) -> Result<Self> {
        let mut process = Command::new(super::xtask())
            .args(["demo", "guard"])
            .arg(binary)
            .arg(switch)
            .stdin(Stdio::piped())
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
pub(super) fn run(binary: &Path, switch: &str) -> Result<()> {
    let mut word = Vec::new();
    // An error is an end as well.
    let _end = io::stdin().read_to_end(&mut word);
    let interrupted = word != FINISHED;
    if interrupted {
        eprintln!("\ndemo: interrupted: taking all away");
    }
    let namespaces = namespaces(switch);
    for netns in &namespaces {
        // A host's processes keep its namespace alive. None but the demo's can be in it.
        for pid in output(Command::new("ip").args(["netns", "pids", netns])).split_whitespace() {
            output(Command::new("kill").args(["-KILL", pid]));
        }
    }
    // After a success the switch is down already.
    output(Command::new(binary).args(["-s", switch, "-n", &format!("{switch}-host"), "down"]));
    for netns in &namespaces {
        output(Command::new("ip").args(["netns", "delete", netns]));
    }
    let mut left = self::namespaces(switch);
    left.extend(pins(switch));
    if !left.is_empty() {
        bail!("left behind: {}: report this as a bug", left.join(", "));
    }
    if interrupted {
        eprintln!("demo: nothing is left behind");
    }
    Ok(())
}

fn namespaces(switch: &str) -> Vec<String> {
    let of_demo = format!("{switch}-");
    let names = list(Path::new("/run/netns"));
    names.into_iter().filter(|name| name.starts_with(&of_demo)).collect()
}

/// The switch's directories in bpffs, whichever ABI version's.
fn pins(switch: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/bpf/vswitch");
    let paths = list(root).into_iter().map(|version| root.join(version).join(switch));
    paths.filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
}

fn list(directory: &Path) -> Vec<String> {
    let Ok(entries) = directory.read_dir() else { return Vec::new() };
    entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What a command prints, if it can be run at all: what is not there needs no taking away.
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}
