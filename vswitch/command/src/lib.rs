//! What can the user say? The grammar of the command line: what is asked of a switch, and of the bench.

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};
use vswitch::{
    cli::{self, Session, switch_name},
    config::DEFAULT_SWITCH,
    control::Scope,
    view::BUILD,
};
use vswitch_bench::Bench;
use vswitch_ebpf::abi::ABI_VERSION;

/// Heading of the options that every command takes.
const EVERYWHERE: &str = "Options of every command";

/// A switch for Linux whose whole forwarding path is eBPF
#[derive(Debug, Parser)]
#[command(
    name = "vswitch",
    version = version(),
    infer_subcommands = true,
    subcommand_value_name = "COMMAND",
    max_term_width = 110,
    after_help = "\
Commands may be abbreviated as long as they are unambiguous; `show` is the default verb.
Exit status: 0 done, 1 failed, 2 wrong usage or wrong configuration.

EXAMPLES
  vswitch up --uplink eth0 web0 db0               create the switch vs0 with three ports
  vswitch port add web1 --netns web1              add a namespace: web1 here, eth0 there
  vswitch -j port show | jq '.[].ifname'          every table is available as JSON
  vswitch stats --watch 1                         rates, and why frames are dropped
  vswitch down                                    take it all away"
)]
pub struct Cli {
    /// The switch to work on [default: vs0]
    #[arg(short, long, global = true, value_name = "SWITCH", value_parser = switch_name, help_heading = EVERYWHERE)]
    switch: Option<String>,
    // The long form is not global: `port add --netns` means the far end's namespace.
    /// Work in this network namespace, as `ip -n`
    #[arg(short = 'n', global = true, value_name = "NETNS", id = "in_netns", help_heading = EVERYWHERE)]
    netns: Option<String>,
    #[arg(
        long = "netns",
        hide = true,
        value_name = "NETNS",
        id = "in_netns_long",
        conflicts_with = "in_netns"
    )]
    long_netns: Option<String>,
    /// Print JSON: an array of objects
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Switch(cli::Command),
    Bench(Bench),
}

/// The grammar, for shell completion and man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

impl Cli {
    /// The network namespace to work in, if it is not this one.
    pub fn netns(&self) -> Option<&str> {
        self.netns.as_deref().or(self.long_netns.as_deref())
    }

    /// Does what the user said. The calling thread is in [`Cli::netns`] already.
    pub async fn run(self) -> Result<()> {
        let session = Session {
            scope: Scope {
                netns: self.netns().map(str::to_owned),
                switch: self.switch.as_deref().unwrap_or(DEFAULT_SWITCH).to_owned(),
            },
            named: self.switch,
            json: self.json,
        };
        match self.command {
            Command::Switch(command) => command.run(session).await,
            Command::Bench(command) => command.run(&session),
        }
    }
}

fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| format!("{} ({BUILD}, ABI {ABI_VERSION})", env!("CARGO_PKG_VERSION")))
}
