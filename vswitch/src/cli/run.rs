//! `run`: stay as the controller of a switch.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{Session, config::read};
use crate::control::{self, RunOptions};

/// Stay as the controller: apply a file, then follow interfaces and remove aged entries
#[derive(Args, Debug)]
#[command(after_help = "\
Runs in the foreground. SIGTERM and Ctrl-C end the controller alone: the switch goes on forwarding.

EXAMPLES
  vswitch run                           look after the switch that `vswitch up` has made
  vswitch run /etc/vswitch/vs0.toml
  vswitch run --keep /etc/vswitch/vs0.toml  make it if there is none: no restart changes what is up
  vswitch run --log-packets             tell of every frame that tc decides; slow")]
pub struct Run {
    /// The switch as it shall be; `-`: stdin
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// If the switch is up already, leave it as it is
    #[arg(long, requires = "file")]
    keep: bool,
    /// Print a line for each frame, those excepted that XDP settles by itself
    #[arg(long)]
    log_packets: bool,
}

impl Run {
    pub(super) async fn run(self, mut session: Session) -> Result<()> {
        let config = match &self.file {
            Some(file) => Some(read(&mut session, file)?),
            None => None,
        };
        control::run(&session.scope, config, RunOptions { log_packets: self.log_packets, keep: self.keep })
            .await
    }
}
