//! How does a long installation step show that it is alive, and what went wrong when it is not?

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::cargo;

const TAIL: usize = 20;

/// Runs `command` behind one status line; its output goes to a log, whose end is shown on failure.
pub(crate) fn run(what: &str, why: &str, command: &mut Command) -> Result<()> {
    let directory = cargo::target();
    std::fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let path = directory.join("setup.log");
    let log = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let errors = log.try_clone().with_context(|| format!("share {}", path.display()))?;
    println!("{what}: {why}");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("{what}: cannot start {:?}", command.get_program()))?;
    let terminal = io::stdout().is_terminal();
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("{what}: wait"))? {
            break status;
        }
        if terminal {
            print!("\r  {} s ", started.elapsed().as_secs());
            // A status line that cannot be shown is no reason to stop.
            let _ = io::stdout().flush();
        }
        thread::sleep(Duration::from_millis(100));
    };
    let clear = if terminal { "\r" } else { "" };
    if status.success() {
        println!("{clear}  done in {:.1} s", started.elapsed().as_secs_f32());
        return Ok(());
    }
    println!("{clear}  failed after {:.1} s; the end of its output:", started.elapsed().as_secs_f32());
    let text =
        std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
        println!("  | {line}");
    }
    bail!("{what} failed ({status}): all of its output is in {}", path.display());
}
