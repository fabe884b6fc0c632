//! What can the user ask of a switch? The commands, and who answers: one noun a file. `vswitch-command` has the whole
//! grammar.

mod config;
mod fdb;
pub mod output;
mod port;
mod run;
mod show;
mod stats;
pub mod table;
mod up;
mod upgrade;
mod usage;
mod value;

use anyhow::Result;
use clap::Subcommand;

pub use self::{output::ReaderGone, usage::Usage, value::switch_name};
use crate::control::Scope;

/// A command about a switch.
#[derive(Debug, Subcommand)]
pub enum Command {
    Up(up::Up),
    Down(up::Down),
    Apply(config::Apply),
    Check(config::Check),
    Export(config::Export),
    Run(run::Run),
    Upgrade(upgrade::Upgrade),
    Show(show::Show),
    Port(port::Port),
    Fdb(fdb::Fdb),
    Stats(stats::Stats),
}

/// What holds for a command whatever it is: the switch it works on, and how it answers.
pub struct Session {
    /// Where it is.
    pub scope: Scope,
    /// The switch, if it was named on the command line.
    pub named: Option<String>,
    /// Whether it answers in JSON.
    pub json: bool,
}

impl Command {
    /// Does what the user said. The calling thread is in the scope's namespace already.
    pub async fn run(self, session: Session) -> Result<()> {
        match self {
            Self::Up(args) => args.run(&session).await,
            Self::Down(args) => args.run(&session).await,
            Self::Apply(args) => args.run(session).await,
            Self::Check(args) => args.run(session),
            Self::Export(args) => args.run(&session).await,
            Self::Run(args) => args.run(session).await,
            Self::Upgrade(args) => args.run(&session).await,
            Self::Show(args) => args.run(&session).await,
            Self::Port(args) => args.run(&session).await,
            Self::Fdb(args) => args.run(&session).await,
            Self::Stats(args) => args.run(&session).await,
        }
    }
}
