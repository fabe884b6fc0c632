//! `apply`, `check` and `export`: a switch from a file, and back into one.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};
use vswitch_ebpf::frame::MacAddr;

use super::{Session, output};
use crate::{
    config::{self, FarEnd, PORT_FLAGS, PortConfig, SwitchConfig, print::print},
    control,
};

/// Make the running switch match a file
#[derive(Args, Debug)]
#[command(after_help = "\
Prints each operation. What is as it should be is not touched; if one operation fails, all are
undone.

EXAMPLES
  vswitch apply /etc/vswitch/vs0.toml --dry-run   only say what would be done
  vswitch apply /etc/vswitch/vs0.toml
  vswitch export | sed 's/eth0/eth1/' | vswitch apply -")]
pub struct Apply {
    /// The switch as it shall be; `-`: stdin
    file: PathBuf,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Validate a file, without looking at this machine
#[derive(Args, Debug)]
#[command(after_help = "\
Every mistake is reported at once, one a line, with its place in the file.

EXAMPLES
  vswitch check /etc/vswitch/vs0.toml && vswitch apply /etc/vswitch/vs0.toml")]
pub struct Check {
    /// The switch as it shall be; `-`: stdin
    file: PathBuf,
}

/// Print the running switch as a file for `apply`
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch export > /etc/vswitch/vs0.toml")]
pub struct Export {}

/// What `check` says of a file without mistakes.
#[derive(Serialize)]
struct Checked {
    file: String,
    name: String,
    ports: usize,
}

impl Apply {
    pub(super) async fn run(self, mut session: Session) -> Result<()> {
        let config = read(&mut session, &self.file)?;
        let report = control::apply(&session.scope, config, self.dry_run).await?;
        session.print_plan(&report, !self.dry_run)
    }
}

impl Check {
    pub(super) fn run(self, mut session: Session) -> Result<()> {
        let config = read(&mut session, &self.file)?;
        let checked =
            Checked { file: self.file.display().to_string(), name: config.name, ports: config.ports.len() };
        session.print_rows(&[checked], |rows| {
            let line =
                |row: &Checked| format!("{}: valid: switch {}, {} ports\n", row.file, row.name, row.ports);
            rows.iter().map(line).collect()
        })
    }
}

impl Export {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let config = control::export(&session.scope).await?;
        if session.json {
            output::print(&output::json(&[object(&config)])?)
        } else {
            output::print(&print(&config))
        }
    }
}

/// The switch that `file` describes. It is what the command is about from now on.
pub(super) fn read(session: &mut Session, file: &Path) -> Result<SwitchConfig> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        ("stdin".to_owned(), read.map(|_| text))
    } else {
        (file.display().to_string(), fs::read_to_string(file))
    };
    let text = text.with_context(|| format!("{name}: cannot be read"))?;
    let (config, notes) = config::parse_noting(&name, &text, session.named.as_deref())?;
    control::tell(&notes);
    session.scope.switch.clone_from(&config.name);
    Ok(config)
}

/// The whole configuration, defaults included, with the file's keys in snake_case.
fn object(config: &SwitchConfig) -> Value {
    let entries = config
        .fdb
        .iter()
        .map(|entry| json!({ "mac": entry.mac.to_string(), "vlan": entry.vlan, "port": entry.ifname }));
    json!({
        "name": config.name,
        "ageing": config.ageing,
        "fdb_max": config.fdb_max,
        "host_access": config.host_access,
        "macvlan_compat": config.macvlan_compat,
        "port": config.ports.iter().map(port_object).collect::<Vec<_>>(),
        "fdb": entries.collect::<Vec<_>>(),
    })
}

fn port_object(port: &PortConfig) -> Map<String, Value> {
    let (netns, peer) = match &port.far_end {
        FarEnd::Veth { netns, peer } => (json!(netns), json!(peer)),
        FarEnd::Existing | FarEnd::Tap => (Value::Null, Value::Null),
    };
    let flags = PORT_FLAGS.map(|flag| (flag.json_key(), json!(port.flags.has(flag.bit))));
    let texts = |addresses: &[MacAddr]| json!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    let rest = [
        ("name", json!(port.ifname)),
        ("role", json!(port.role.to_string())),
        ("mode", json!(port.mode.to_string())),
        ("mac", texts(&port.mac)),
        ("source", texts(&port.source)),
        ("netns", netns),
        ("peer", peer),
        ("tap", json!(port.far_end == FarEnd::Tap)),
        ("datapath", json!(port.datapath.to_string())),
    ];
    rest.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(flags).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_as_json_has_every_key_of_the_file() {
        let mut config = SwitchConfig::new("vs0");
        config.ports.push(PortConfig { far_end: FarEnd::Tap, ..PortConfig::new("vm0") });
        let mut expected = json!({
            "name": "vs0",
            "ageing": 300,
            "fdb_max": 65_536,
            "host_access": true,
            "macvlan_compat": false,
            "port": [{
                "name": "vm0",
                "role": "downlink",
                "mode": "bridge",
                "mac": [],
                "source": [],
                "netns": null,
                "peer": null,
                "tap": true,
                "datapath": "auto",
            }],
            "fdb": [],
        });
        for flag in PORT_FLAGS {
            expected["port"][0][flag.json_key()] = json!(flag.usual);
        }
        assert_eq!(object(&config), expected);
    }
}
