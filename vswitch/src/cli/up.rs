//! `up` and `down`: a switch from one line, and away with it.

use anyhow::Result;
use clap::Args;

use super::{Session, value::Switch};
use crate::{
    config::{DEFAULT_AGEING, PortConfig, Role, SwitchConfig},
    control,
};

/// Create the switch and add ports
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch up --uplink eth0 web0 db0      a NIC and two interfaces that exist already
  vswitch up tap0 tap1 --ageing 60       no uplink: an isolated network
  vswitch -s lab -n lab up p0 p1         another switch, in the namespace lab
  vswitch up --uplink eth0 --macvlan-compat

An interface that vswitch shall make is added later: see `vswitch port add --help`.")]
pub struct Up {
    /// Existing interfaces that become downlinks
    #[arg(value_name = "IF")]
    downlink: Vec<String>,
    /// An existing interface that becomes an uplink, a port towards the outside; may be repeated
    #[arg(long, value_name = "IF")]
    uplink: Vec<String>,
    /// Forget a learned address after so many seconds; 0: learn nothing
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_AGEING)]
    ageing: u32,
    /// Know at most so many addresses
    #[arg(long, value_name = "N", default_value_t = vswitch_ebpf::abi::DEFAULT_FDB_MAX)]
    fdb_max: u32,
    /// Whether downlinks and this machine reach each other directly [default: on]
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    host_access: Option<Switch>,
    /// Keep to the kernel macvlan's rules where vswitch differs on purpose, as if without host access
    #[arg(long)]
    macvlan_compat: bool,
}

/// Take the switch away, with the interfaces that vswitch itself created
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch down
  vswitch -s lab -n lab down")]
pub struct Down {}

impl Up {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let config = self.config(&session.scope.switch);
        config.check()?;
        session.print_report(&control::up(&session.scope, config).await?)
    }

    fn config(self, name: &str) -> SwitchConfig {
        let uplinks =
            self.uplink.iter().map(|ifname| PortConfig { role: Role::Uplink, ..PortConfig::new(ifname) });
        let downlinks = self.downlink.iter().map(|ifname| PortConfig::new(ifname));
        let mut config = SwitchConfig {
            ageing: self.ageing,
            fdb_max: self.fdb_max,
            macvlan_compat: self.macvlan_compat,
            ports: uplinks.chain(downlinks).collect(),
            ..SwitchConfig::new(name)
        };
        Switch::set(self.host_access, &mut config.host_access);
        config
    }
}

impl Down {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        session.print_report(&control::down(&session.scope).await?)
    }
}
