//! How does a plan read?

use std::fmt;

use vswitch_ebpf::frame::MacAddr;

use super::{Op, SwitchSettings};
use crate::config::{
    DEFAULT_PEER, FarEnd, PORT_FLAGS, PortConfig, Role, StaticEntry, SwitchConfig, words::Word,
};

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(config) => write!(f, "+ switch {} ({})", config.name, switch(config)),
            Self::Destroy(config) => write!(f, "- switch {}", config.name),
            Self::SetSwitch { from, to } => {
                write!(f, "~ switch: {}", differences(&settings(*from), &settings(*to)))
            }
            Self::AddPort(port) => write!(f, "+ port {} ({})", port.ifname, properties(port)),
            Self::SetPort { from, to } => write!(f, "~ port {}: {}", from.ifname, changes(from, to)),
            Self::DelPort(port) => write!(f, "- port {}", port.ifname),
            Self::AddFdb(entry) => write!(f, "+ fdb {}", binding(entry)),
            Self::DelFdb(entry) => write!(f, "- fdb {}", binding(entry)),
        }
    }
}

/// What `to` has that `from` has not: `isolated off -> on, mac none -> 02:00:00:00:00:01`.
pub(super) fn changes(from: &PortConfig, to: &PortConfig) -> String {
    differences(&fields(from), &fields(to))
}

pub(super) fn far_end(far_end: &FarEnd) -> String {
    match far_end {
        FarEnd::Existing => "existing interface".to_owned(),
        FarEnd::Veth { netns, peer } if peer == DEFAULT_PEER => format!("netns {netns}"),
        FarEnd::Veth { netns, peer } => format!("netns {netns}, peer {peer}"),
        FarEnd::Tap => "tap".to_owned(),
    }
}

type Field = (&'static str, String);

fn differences(from: &[Field], to: &[Field]) -> String {
    let differ = from.iter().zip(to).filter(|(from, to)| from != to);
    differ.map(|((key, from), (_, to))| format!("{key} {from} -> {to}")).collect::<Vec<_>>().join(", ")
}

/// What a port can have, in the same order for all.
fn fields(port: &PortConfig) -> Vec<Field> {
    let texts = |addresses: &[MacAddr]| {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(" ") }
    };
    let mut fields = vec![
        ("role", port.role.to_string()),
        ("mode", port.mode.to_string()),
        ("mac", texts(&port.mac)),
        ("source", texts(&port.source)),
        ("datapath", port.datapath.to_string()),
    ];
    fields.extend(PORT_FLAGS.map(|flag| (flag.key, on_off(port.flags.has(flag.bit)))));
    fields
}

/// What a reader wants to know of a new port: what it is, and what differs from the defaults.
fn properties(port: &PortConfig) -> String {
    let mut default = PortConfig {
        role: port.role,
        mac: port.mac.clone(),
        far_end: port.far_end.clone(),
        ..PortConfig::new(&port.ifname)
    };
    default.set_known_defaults();
    let default = fields(&PortConfig { mac: Vec::new(), ..default });
    let mut texts = Vec::new();
    match port.role {
        Role::Uplink => texts.push(port.role.word().to_owned()),
        Role::Downlink => {
            if port.far_end != FarEnd::Existing {
                texts.push(far_end(&port.far_end));
            }
            texts.push(format!("mode {}", port.mode));
        }
    }
    for (field, default) in fields(port).into_iter().zip(default).skip(2) {
        if field != default {
            texts.push(format!("{} {}", field.0, field.1));
        }
    }
    texts.join(", ")
}

fn switch(config: &SwitchConfig) -> String {
    let mut texts = vec![format!("ageing {}", config.ageing), format!("fdb-max {}", config.fdb_max)];
    let default = settings(SwitchSettings::from(&SwitchConfig::new(&config.name)));
    for (field, default) in settings(SwitchSettings::from(config)).into_iter().zip(default).skip(1) {
        if field != default {
            texts.push(format!("{} {}", field.0, field.1));
        }
    }
    texts.join(", ")
}

fn settings(settings: SwitchSettings) -> Vec<Field> {
    vec![
        ("ageing", settings.ageing.to_string()),
        ("host-access", on_off(settings.host_access)),
        ("macvlan-compat", on_off(settings.macvlan_compat)),
    ]
}

fn binding(entry: &StaticEntry) -> String {
    let vlan = if entry.vlan == 0 { String::new() } else { format!(" vlan {}", entry.vlan) };
    format!("{}{vlan} on {}", entry.mac, entry.ifname)
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}
