//! `show`: the switch at a glance.

use anyhow::Result;
use clap::Args;

use super::{Session, value::on_off};
use crate::{control, view::SwitchView};

/// Show the switch at a glance
#[derive(Args, Debug)]
#[command(after_help = "\
EXAMPLES
  vswitch show
  vswitch -j show | jq '.[0].fdb_used'")]
pub struct Show {}

impl Show {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let switch = control::show(&session.scope).await?;
        session.print_rows(&[switch], |switches| switches.iter().map(text).collect())
    }
}

fn text(switch: &SwitchView) -> String {
    let ports = &switch.ports;
    let ageing = match switch.ageing {
        0 => "0 (nothing is learned)".to_owned(),
        seconds => format!("{seconds} s"),
    };
    let datapaths: Vec<_> = switch.datapaths.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let lines = [
        ("namespace", switch.netns.clone().unwrap_or_default()),
        (
            "ports",
            format!(
                "{} ({} uplink, {} downlink), {} forwarding{}",
                ports.count,
                ports.uplinks,
                ports.downlinks,
                ports.forwarding,
                if ports.degraded == 0 { String::new() } else { format!(", {} degraded", ports.degraded) }
            ),
        ),
        ("datapaths", datapaths.join(", ")),
        ("addresses", format!("{} of at most {}", switch.fdb_used, switch.fdb_max)),
        ("ageing", ageing),
        ("host access", on_off(switch.host_access).to_owned()),
        ("macvlan-compat", on_off(switch.macvlan_compat).to_owned()),
        ("build", format!("{}, ABI {}", switch.build, switch.abi)),
    ];
    let lines = lines.iter().filter(|(_, value)| !value.is_empty());
    let lines: String = lines.map(|(name, value)| format!("  {name:<16}{value}\n")).collect();
    let faults: String = switch.faults.iter().map(|fault| format!("  fault           {fault}\n")).collect();
    format!("switch {}\n{lines}{faults}", switch.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::PortCounts;
    use std::collections::BTreeMap;

    fn switch() -> SwitchView {
        SwitchView {
            name: "vs0".into(),
            netns: None,
            ageing: 300,
            fdb_max: 65_536,
            fdb_used: 5,
            host_access: true,
            macvlan_compat: false,
            abi: 1,
            build: "abc".into(),
            ports: PortCounts { count: 3, uplinks: 1, downlinks: 2, forwarding: 3, degraded: 0 },
            datapaths: BTreeMap::from([("tc".to_owned(), 2), ("xdp".to_owned(), 1)]),
            faults: Vec::new(),
        }
    }

    #[test]
    fn text_says_what_there_is() {
        let expected = "\
switch vs0
  ports           3 (1 uplink, 2 downlink), 3 forwarding
  datapaths       2 tc, 1 xdp
  addresses       5 of at most 65536
  ageing          300 s
  host access     on
  macvlan-compat  off
  build           abc, ABI 1
";
        assert_eq!(text(&switch()), expected);
    }

    #[test]
    fn text_says_what_is_wrong() {
        let ports = PortCounts { count: 3, uplinks: 1, downlinks: 2, forwarding: 2, degraded: 1 };
        let faults = vec!["web0: its program vswitch_in is not attached".to_owned()];
        let text = text(&SwitchView { ports, faults, ..switch() });
        assert!(text.contains("2 forwarding, 1 degraded\n"), "{text}");
        assert!(
            text.ends_with("\n  fault           web0: its program vswitch_in is not attached\n"),
            "{text}"
        );
    }

    #[test]
    fn json_has_the_keys_of_the_contract() {
        let expected = concat!(
            r#"[{"name":"vs0","netns":null,"ageing":300,"fdb_max":65536,"fdb_used":5,"host_access":true,"#,
            r#""macvlan_compat":false,"abi":1,"build":"abc","#,
            r#""ports":{"count":3,"uplinks":1,"downlinks":2,"forwarding":3,"degraded":0},"datapaths":{"tc":2,"xdp":1},"#,
            r#""faults":[]}]"#,
            "\n"
        );
        assert_eq!(super::super::output::json(&[switch()]).unwrap(), expected);
    }
}
