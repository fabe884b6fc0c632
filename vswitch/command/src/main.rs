//! The command `vswitch`: parse, run, exit code.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser as _, error::ErrorKind};
use vswitch::{
    cli::{ReaderGone, Usage},
    failure::in_words,
    net::{Netns, Refused},
};
use vswitch_command::Cli;

/// Wrong usage or wrong configuration.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    match parse().map_err(Into::into).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            if Usage::is_cause_of(&error) { ExitCode::from(WRONG) } else { ExitCode::FAILURE }
        }
    }
}

/// Does not return when help or version is asked for.
fn parse() -> Result<Cli, Usage> {
    Cli::try_parse().map_err(|error| {
        if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            error.exit();
        }
        Usage::from_clap(&error)
    })
}

fn run(cli: Cli) -> Result<()> {
    if let Some(netns) = cli.netns() {
        enter(netns)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(cli.run())
}

/// Enters the namespace with the whole process, which has one thread yet.
fn enter(name: &str) -> Result<()> {
    let netns = Netns::open(name)?;
    // SAFETY: setns takes no pointers; the descriptor is open for as long as `netns` lives.
    if unsafe { libc::setns(netns.as_fd().as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
        let what = format!(r#"enter namespace "{name}""#);
        return Err(Refused::last(what).remedy("run as root, or with CAP_SYS_ADMIN").into());
    }
    Ok(())
}

/// A line for each problem. Where stderr is closed, nobody wants to know.
fn complain(error: &anyhow::Error) {
    let mut stderr = io::stderr().lock();
    for line in in_words(error).lines() {
        let _ = writeln!(stderr, "vswitch: {line}");
    }
}
