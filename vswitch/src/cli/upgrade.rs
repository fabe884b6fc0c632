//! `upgrade`: the switch goes over to this build.

use anyhow::Result;
use clap::Args;

use super::Session;
use crate::control;

/// Let a running switch go over to this build, without losing a frame
#[derive(Args, Debug)]
#[command(after_help = "\
Prints each operation. Ports, FDB and counters stay as they are. `vswitch run` does the same when it
starts. A switch that runs this build's programs already is not touched.

EXAMPLES
  vswitch upgrade
  vswitch -s lab upgrade")]
pub struct Upgrade {}

impl Upgrade {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        session.print_plan(&control::upgrade(&session.scope).await?, true)
    }
}
