//! `port`: the members of the switch, and what each may do.

mod flags;
mod source;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use vswitch_ebpf::frame::MacAddr;

use self::flags::FlagOptions;
use super::{
    Session,
    table::{Align, Table},
    usage::Usage,
    value::{self, Switch},
};
use crate::{
    config::{Datapath, FarEnd, Mode, PORT_FLAGS, PortConfig, Role, SwitchConfig},
    control,
    view::PortView,
};

/// Show and change the ports
#[derive(Args, Debug)]
#[command(
    infer_subcommands = true,
    after_help = "\
EXAMPLES
  vswitch port                                    all ports (show is the default verb)
  vswitch port add web1 --netns web1              a veth pair: web1 here, eth0 in the namespace web1
  vswitch port add vm1 --tap --isolated on        a tap, apart from other isolated ports
  vswitch port add web2 --netns web2 --mode vepa  everything through the adjacent switch, as a macvlan would
  vswitch port set web2 --mode private            from its next frame on
  vswitch port set web1 --flood off               no unknown unicast for web1
  vswitch port del web1"
)]
pub struct Port {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(Show),
    Add(Add),
    Set(Set),
    Del(Del),
    Source(source::Source),
}

/// Show one port or all
#[derive(Args, Debug, Default)]
#[command(after_help = "\
EXAMPLES
  vswitch port show
  vswitch -j port show web0 | jq '.[0].state'")]
struct Show {
    /// This port alone
    #[arg(value_name = "IF")]
    ifname: Option<String>,
}

/// Add an interface, or make one and add it
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch port add eth1 --uplink
  vswitch port add web1 --netns web1 --mac 02:00:00:00:00:01
  vswitch port add web2 --netns web2 --peer lan0 --mode private
  vswitch port add ids0 --netns ids --mode source --source 02:00:00:00:00:07
  vswitch port add eth2 --hairpin on        reflects for the VEPA ports of a switch behind eth2
  vswitch port add lxc0 --netns lxc --learning on --flood on    a namespace that bridges others
  vswitch port add vm1 --tap

The address of a port with --netns or --mac is known before its first frame. A downlink whose
address is known does not learn and takes no unknown unicast, unless --learning on --flood on.")]
struct Add {
    /// The interface
    #[arg(value_name = "IF")]
    ifname: String,
    /// Create it as a veth whose other end is in this namespace, up
    #[arg(long, value_name = "NS")]
    netns: Option<String>,
    /// The name of the other end there [default: eth0]
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// Create it as a persistent tap
    #[arg(long)]
    tap: bool,
    #[command(flatten)]
    options: Options,
}

/// Change a port
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch port set web0 --isolated on --flood off
  vswitch port set web0 --mode vepa
  vswitch port set web0 --mac 02:00:00:00:00:01      replaces the addresses it had
  vswitch port set eth1 --uplink=off                 a downlink again
  vswitch port set eth1 --datapath tc

What is not named stays as it is: the defaults above are those of `port add`. --datapath and
--uplink cannot change on an interface that vswitch made, nor --mode from or to passthru:
`port del`, then `port add`.")]
struct Set {
    /// The port
    #[arg(value_name = "IF")]
    ifname: String,
    #[command(flatten)]
    options: Options,
}

/// Remove a port; an interface that vswitch created is deleted
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch port del web0")]
struct Del {
    /// The port
    #[arg(value_name = "IF")]
    ifname: String,
}

#[derive(Args, Debug, Default, PartialEq, Eq)]
struct Options {
    /// A port towards the outside [default: off]
    #[arg(long, value_name = "on|off", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    uplink: Option<Switch>,
    /// What it exchanges with the other downlinks [default: bridge]
    #[arg(long, value_name = "MODE", value_parser = value::word::<Mode>())]
    mode: Option<Mode>,
    /// An address behind it, known before its first frame, never learned elsewhere; may be repeated
    #[arg(long, value_name = "MAC", value_parser = value::station)]
    mac: Vec<MacAddr>,
    /// With mode source: a sender whose frames it receives; may be repeated
    #[arg(long, value_name = "MAC", value_parser = value::station)]
    source: Vec<MacAddr>,
    #[command(flatten)]
    flags: FlagOptions,
    /// How its frames are taken and delivered [default: auto: xdp for NICs with native XDP, else tc]
    #[arg(long, value_name = "DATAPATH", value_parser = value::word::<Datapath>())]
    datapath: Option<Datapath>,
}

impl Port {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let scope = &session.scope;
        let report = match self.verb.unwrap_or_else(|| Verb::Show(Show::default())) {
            Verb::Show(args) => {
                let mut ports = control::ports(scope).await?;
                if let Some(ifname) = &args.ifname {
                    ports.retain(|port| port.ifname == *ifname);
                    if ports.is_empty() {
                        bail!(not_a_port(ifname, &scope.switch));
                    }
                }
                return session.print_rows(&ports, table);
            }
            Verb::Add(args) => {
                let port = args.port()?;
                control::change(scope, |config| add(config, &port)).await?
            }
            Verb::Set(args) => {
                args.check()?;
                control::change(scope, |config| args.change(config)).await?
            }
            Verb::Del(args) => control::change(scope, |config| args.change(config)).await?,
            Verb::Source(args) => control::change(scope, |config| args.change(config)).await?,
        };
        session.print_report(&report)
    }
}

impl Add {
    fn port(self) -> Result<PortConfig> {
        let mut port = PortConfig::new(&self.ifname);
        port.far_end = FarEnd::new(self.netns, self.peer, self.tap)
            .map_err(|(_, what)| Usage::new(format!("port {}: {what}", port.ifname.escape_debug())))?;
        self.options.put_what(&mut port);
        port.set_known_defaults();
        self.options.flags.put(&mut port.flags);
        Ok(port)
    }
}

fn add(config: &mut SwitchConfig, port: &PortConfig) -> Result<()> {
    if config.port(&port.ifname).is_some() {
        let ifname = port.ifname.escape_debug();
        bail!("port {ifname}: is a port of {} already; `vswitch port set {ifname}` changes it", config.name);
    }
    config.ports.push(port.clone());
    Ok(())
}

impl Set {
    fn check(&self) -> Result<()> {
        if self.options == Options::default() {
            let ifname = self.ifname.escape_debug();
            let problem =
                format!("port {ifname}: nothing to set; `vswitch port set --help` lists what can be");
            return Err(Usage::new(problem).into());
        }
        Ok(())
    }

    fn change(&self, config: &mut SwitchConfig) -> Result<()> {
        let Some(port) = config.ports.iter_mut().find(|port| port.ifname == self.ifname) else {
            bail!(not_a_port(&self.ifname, &config.name));
        };
        let mode = port.mode;
        self.options.put_what(port);
        if port.mode != mode {
            // As macvlan: whoever leaves mode source leaves its list, and so for what else is for one mode.
            port.flags.fit(port.mode);
            if self.options.source.is_empty() {
                port.source.clear();
            }
        }
        self.options.flags.put(&mut port.flags);
        Ok(())
    }
}

impl Del {
    fn change(&self, config: &mut SwitchConfig) -> Result<()> {
        if config.port(&self.ifname).is_none() {
            bail!(not_a_port(&self.ifname, &config.name));
        }
        config.ports.retain(|port| port.ifname != self.ifname);
        config.fdb.retain(|entry| entry.ifname != self.ifname);
        Ok(())
    }
}

impl Options {
    fn put_what(&self, port: &mut PortConfig) {
        port.role = match self.uplink {
            Some(Switch::On) => Role::Uplink,
            Some(Switch::Off) => Role::Downlink,
            None => port.role,
        };
        port.mode = self.mode.unwrap_or(port.mode);
        if !self.mac.is_empty() {
            port.mac.clone_from(&self.mac);
        }
        if !self.source.is_empty() {
            port.source.clone_from(&self.source);
        }
        port.datapath = self.datapath.unwrap_or(port.datapath);
    }
}

/// Why a command about a port cannot be done.
pub(super) fn not_a_port(ifname: &str, switch: &str) -> String {
    let ifname = ifname.escape_debug();
    format!("port {ifname}: is not a port of {switch}; `vswitch -s {switch} port` lists its ports")
}

fn table(ports: &[PortView]) -> String {
    let left = |name| (name, Align::Left);
    let names = ["IFNAME", "INDEX", "ROLE", "MODE", "STATE", "DATAPATH", "MAC", "FLAGS"];
    let mut table = Table::new(&names.map(left));
    for port in ports {
        let macs: Vec<_> = port.mac.iter().map(ToString::to_string).collect();
        table.row([
            port.ifname.clone(),
            port.ifindex.map_or_else(|| "-".to_owned(), |ifindex| ifindex.to_string()),
            port.role.to_string(),
            port.mode.to_string(),
            port.state.to_string(),
            port.datapath.map_or_else(|| "-".to_owned(), |datapath| datapath.to_string()),
            macs.join(","),
            flags(port),
        ]);
        if !port.source.is_empty() {
            let senders: Vec<_> = port.source.iter().map(ToString::to_string).collect();
            table.remark(format!("receives from {}", senders.join(", ")));
        }
        if port.promisc {
            table.remark("receives for any address (promiscuous)".to_owned());
        }
        if !port.filters.is_empty() {
            table.remark(format!("unicast filters for the stations: {}", port.filters.len()));
        }
        for note in &port.notes {
            table.remark(note.clone());
        }
        for fault in &port.faults {
            table.remark(format!("fault: {fault}"));
        }
    }
    table.render()
}

/// The flags that are not as they are by default.
fn flags(port: &PortView) -> String {
    let unusual = PORT_FLAGS.iter().filter(|flag| port.flags.has(flag.bit) != flag.usual);
    unusual.map(|flag| format!("{} {}", flag.key, value::on_off(!flag.usual))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
