//! `fdb`: which address is behind which port.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use vswitch_ebpf::frame::MacAddr;

use super::{Session, port::not_a_port, table::Table, value};
use crate::{
    config::{DEFAULT_SWITCH, PortConfig, StaticEntry, SwitchConfig},
    control,
    view::{FdbView, HOST},
};

/// Show and change the forwarding database
#[derive(Args, Debug)]
#[command(
    infer_subcommands = true,
    after_help = "\
EXAMPLES
  vswitch fdb                                    every address (show is the default verb)
  vswitch fdb get 02:00:00:00:00:01              where is it?
  vswitch fdb add 02:00:00:00:00:01 web0 --static
  vswitch fdb flush web0                         forget what was learned on web0"
)]
pub struct Fdb {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(Show),
    Get(Get),
    Add(Add),
    Del(Del),
    Flush(Flush),
}

/// Show the addresses of one port or all
#[derive(Args, Debug, Default)]
#[command(after_help = "\
EXAMPLES
  vswitch fdb show
  vswitch fdb show host                          this machine's own addresses
  vswitch -j fdb show | jq '.[] | select(.type == \"static\")'")]
struct Show {
    /// Those behind this port, or `host`
    #[arg(value_name = "IF")]
    ifname: Option<String>,
}

/// Show the entry of an address
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch fdb get 02:00:00:00:00:01
  vswitch -j fdb get 02:00:00:00:00:01 | jq -r '.[0].ifname'")]
struct Get {
    /// The address
    #[arg(value_parser = value::mac)]
    mac: MacAddr,
    /// In this VLAN (0 only for now)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = value::vlan())]
    vlan: u16,
}

/// Bind an address to a port
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch fdb add 02:00:00:00:00:01 web0             as if it had been learned: ages and moves
  vswitch fdb add 02:00:00:00:00:01 web0 --static    stays until it is deleted")]
struct Add {
    /// The address
    #[arg(value_parser = value::station)]
    mac: MacAddr,
    /// The port
    #[arg(value_name = "IF")]
    ifname: String,
    /// Never forget it
    #[arg(long = "static")]
    is_static: bool,
    /// In this VLAN (0 only for now)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = value::vlan())]
    vlan: u16,
}

/// Delete the entry of an address
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch fdb del 02:00:00:00:00:01")]
struct Del {
    /// The address
    #[arg(value_parser = value::mac)]
    mac: MacAddr,
    /// In this VLAN (0 only for now)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = value::vlan())]
    vlan: u16,
}

/// Forget what was learned; static and local entries stay
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch fdb flush
  vswitch fdb flush web0")]
struct Flush {
    /// On this port alone
    #[arg(value_name = "IF")]
    ifname: Option<String>,
}

#[derive(Serialize)]
struct Flushed {
    removed: u64,
}

impl Fdb {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        match self.verb.unwrap_or_else(|| Verb::Show(Show::default())) {
            Verb::Show(args) => args.run(session).await,
            Verb::Get(args) => args.run(session).await,
            Verb::Add(Add { mac, ifname, is_static, vlan }) => {
                check(mac, vlan, &ifname)?;
                control::fdb_add(&session.scope, mac, vlan, &ifname, is_static).await?;
                session.print_done(&format!("fdb add {mac} {ifname}"))
            }
            Verb::Del(Del { mac, vlan }) => {
                control::fdb_del(&session.scope, mac, vlan).await?;
                session.print_done(&format!("fdb del {mac}"))
            }
            Verb::Flush(Flush { ifname }) => {
                let removed = control::fdb_flush(&session.scope, ifname.as_deref()).await?;
                session.print_rows(&[Flushed { removed }], |_| String::new())
            }
        }
    }
}

/// Holds an entry against the rules of the configuration, where it will be if it is static.
fn check(mac: MacAddr, vlan: u16, ifname: &str) -> Result<()> {
    let mut config = SwitchConfig::new(DEFAULT_SWITCH);
    config.ports.push(PortConfig::new(ifname));
    config.fdb.push(StaticEntry { mac, vlan, ifname: ifname.to_owned() });
    Ok(config.check()?)
}

impl Show {
    async fn run(self, session: &Session) -> Result<()> {
        let scope = &session.scope;
        let mut entries = control::fdb(scope).await?;
        if let Some(ifname) = &self.ifname {
            entries.retain(|entry| entry.ifname == *ifname);
            // A port without addresses is no mistake, a name that is no port's is.
            if entries.is_empty()
                && ifname != HOST
                && !control::ports(scope).await?.iter().any(|port| port.ifname == *ifname)
            {
                bail!(not_a_port(ifname, &scope.switch));
            }
        }
        session.print_rows(&entries, table)
    }
}

impl Get {
    async fn run(self, session: &Session) -> Result<()> {
        let Some(entry) = control::fdb_entry(&session.scope, self.mac, self.vlan).await? else {
            let switch = &session.scope.switch;
            bail!("fdb get {}: {switch} does not know the address; frames to it are flooded", self.mac);
        };
        session.print_rows(&[entry], table)
    }
}

fn table(entries: &[FdbView]) -> String {
    let mut table = Table::plain(5);
    for entry in entries {
        table.row([
            entry.mac.to_string(),
            format!("dev {}", entry.ifname),
            if entry.vlan == 0 { String::new() } else { format!("vlan {}", entry.vlan) },
            entry.kind.to_string(),
            entry.age.map_or_else(String::new, |age| format!("age {age}s")),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::Usage, view::FdbKind};

    fn entries() -> [FdbView; 3] {
        let entry = |last, ifname: &str, kind, age| FdbView {
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            vlan: 0,
            ifname: ifname.into(),
            kind,
            age,
        };
        [
            entry(1, "web0", FdbKind::Learned, Some(12)),
            entry(2, "longname0", FdbKind::Static, None),
            FdbView { vlan: 7, ..entry(3, HOST, FdbKind::Local, None) },
        ]
    }

    #[test]
    fn one_line_an_entry() {
        let expected = "\
02:00:00:00:00:01  dev web0               learned  age 12s
02:00:00:00:00:02  dev longname0          static
02:00:00:00:00:03  dev host       vlan 7  local
";
        assert_eq!(table(&entries()), expected);
    }

    #[test]
    fn an_entry_keeps_to_the_rules() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        assert!(check(mac, 0, "web0").is_ok());
        assert!(Usage::is_cause_of(&check(mac, 0, "a/b").unwrap_err()));
        assert!(Usage::is_cause_of(&check(MacAddr::BROADCAST, 0, "web0").unwrap_err()));
    }

    #[test]
    fn json_has_the_keys_of_the_contract() {
        let expected = concat!(
            r#"[{"mac":"02:00:00:00:00:01","vlan":0,"ifname":"web0","type":"learned","age":12},"#,
            r#"{"mac":"02:00:00:00:00:02","vlan":0,"ifname":"longname0","type":"static","age":null},"#,
            r#"{"mac":"02:00:00:00:00:03","vlan":7,"ifname":"host","type":"local","age":null}]"#,
        );
        assert_eq!(serde_json::to_string(&entries()).unwrap(), expected);
    }
}
