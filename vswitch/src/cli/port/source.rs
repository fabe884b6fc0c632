//! `port source`: the senders whose frames a port in source mode receives, as `ip link set ... type macvlan macaddr`.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use vswitch_ebpf::frame::MacAddr;

use super::{super::value, not_a_port};
use crate::config::{PortConfig, SwitchConfig};

/// Change the source list of a port in source mode
#[derive(Args, Debug)]
#[command(
    infer_subcommands = true,
    after_help = "\
EXAMPLES
  vswitch port source add web0 02:00:00:00:00:07 02:00:00:00:00:08
  vswitch port source del web0 02:00:00:00:00:07
  vswitch port source flush web0"
)]
pub(super) struct Source {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add senders; those that are there already stay
    Add(Senders),
    /// Remove senders
    Del(Senders),
    /// Remove all senders
    Flush(Flush),
}

#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch port source add web0 02:00:00:00:00:07")]
struct Senders {
    /// The port
    #[arg(value_name = "IF")]
    ifname: String,
    /// The senders
    #[arg(value_name = "MAC", required = true, value_parser = value::station)]
    mac: Vec<MacAddr>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch port source flush web0")]
struct Flush {
    /// The port
    #[arg(value_name = "IF")]
    ifname: String,
}

impl Source {
    pub(super) fn change(&self, config: &mut SwitchConfig) -> Result<()> {
        match &self.verb {
            Verb::Add(Senders { ifname, mac }) => {
                let port = port(config, ifname)?;
                for mac in mac {
                    if !port.source.contains(mac) {
                        port.source.push(*mac);
                    }
                }
            }
            Verb::Del(Senders { ifname, mac }) => {
                let port = port(config, ifname)?;
                if let Some(missing) = mac.iter().find(|mac| !port.source.contains(mac)) {
                    bail!(
                        "port {}: {missing} is not in its source list; `vswitch port show` prints it",
                        ifname.escape_debug()
                    );
                }
                port.source.retain(|listed| !mac.contains(listed));
            }
            Verb::Flush(Flush { ifname }) => port(config, ifname)?.source.clear(),
        }
        Ok(())
    }
}

fn port<'a>(config: &'a mut SwitchConfig, ifname: &str) -> Result<&'a mut PortConfig> {
    let name = config.name.clone();
    let found = config.ports.iter_mut().find(|port| port.ifname == ifname);
    found.ok_or_else(|| anyhow::anyhow!(not_a_port(ifname, &name)))
}
