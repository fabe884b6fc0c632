//! What has to be done so that the actual switch becomes the desired one? A list of operations, and nothing is done here.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    error::Error,
    fmt,
};

use vswitch_ebpf::frame::MacAddr;

use crate::config::{DEFAULT_SWITCH, FarEnd, Mode, PortConfig, Role, StaticEntry, SwitchConfig};

mod show;

/// What may change on the whole of a switch that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchSettings {
    /// [`SwitchConfig::ageing`].
    pub ageing: u32,
    /// [`SwitchConfig::host_access`].
    pub host_access: bool,
    /// [`SwitchConfig::macvlan_compat`].
    pub macvlan_compat: bool,
}

/// One step. Displays as the line that `--dry-run` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a switch, without ports and entries.
    Create(SwitchConfig),
    /// Take it away again: never planned, only the inverse of [`Op::Create`].
    Destroy(SwitchConfig),
    /// Change what holds for the whole switch.
    SetSwitch {
        /// What holds.
        from: SwitchSettings,
        /// What shall hold.
        to: SwitchSettings,
    },
    /// Add a port, and make its interface if it says so.
    AddPort(PortConfig),
    /// Change a port without touching its links: never its role, datapath or far end.
    SetPort {
        /// The port as it is.
        from: PortConfig,
        /// The port as it shall be.
        to: PortConfig,
    },
    /// Remove a port, and its interface if vswitch made it. It has no static entries any more.
    DelPort(PortConfig),
    /// Bind an address to a port that is there.
    AddFdb(StaticEntry),
    /// Release it.
    DelFdb(StaticEntry),
}

impl Op {
    /// What undoes it.
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::Create(config) => Self::Destroy(config),
            Self::Destroy(config) => Self::Create(config),
            Self::SetSwitch { from, to } => Self::SetSwitch { from: to, to: from },
            Self::AddPort(port) => Self::DelPort(port),
            Self::SetPort { from, to } => Self::SetPort { from: to, to: from },
            Self::DelPort(port) => Self::AddPort(port),
            Self::AddFdb(entry) => Self::DelFdb(entry),
            Self::DelFdb(entry) => Self::AddFdb(entry),
        }
    }
}

/// Changes that a live switch cannot make: for each a line with object, cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError(pub Vec<String>);

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Error for PlanError {}

impl From<&SwitchConfig> for SwitchSettings {
    fn from(config: &SwitchConfig) -> Self {
        let SwitchConfig { ageing, host_access, macvlan_compat, .. } = *config;
        Self { ageing, host_access, macvlan_compat }
    }
}

/// The operations, in their order, that make `desired` of `actual`. None, if it is so already.
///
/// The order is such that whatever follows an operation is a switch that the rules allow: entries go before their
/// ports, an address is released before another port claims it, uplinks come first and go last.
pub fn plan(actual: Option<&SwitchConfig>, desired: &SwitchConfig) -> Result<Vec<Op>, PlanError> {
    let bare = SwitchConfig { ports: Vec::new(), fdb: Vec::new(), ..desired.clone() };
    let mut ops = Vec::new();
    if actual.is_none() {
        ops.push(Op::Create(bare.clone()));
    }
    let actual = actual.unwrap_or(&bare);
    let wanted: HashMap<&str, &PortConfig> =
        desired.ports.iter().map(|port| (port.ifname.as_str(), port)).collect();
    let refused = refusals(actual, desired, &wanted);
    if !refused.is_empty() {
        return Err(PlanError(refused));
    }
    let (from, to) = (SwitchSettings::from(actual), SwitchSettings::from(desired));
    if from != to {
        ops.push(Op::SetSwitch { from, to });
    }

    let mut gone: Vec<&PortConfig> = Vec::new();
    let mut kept: Vec<(&PortConfig, &PortConfig)> = Vec::new();
    for from in &actual.ports {
        match wanted.get(from.ifname.as_str()) {
            Some(to) if from.role == to.role && from.datapath == to.datapath => kept.push((from, *to)),
            Some(_) | None => gone.push(from),
        }
    }
    let stays: HashSet<&str> = kept.iter().map(|(port, _)| port.ifname.as_str()).collect();
    let had: HashSet<&StaticEntry> = actual.fdb.iter().collect();
    let both: HashSet<&StaticEntry> = desired.fdb.iter().filter(|entry| had.contains(entry)).collect();
    let rests = |entry: &&StaticEntry| both.contains(entry) && stays.contains(entry.ifname.as_str());
    ops.extend(actual.fdb.iter().filter(|entry| !rests(entry)).cloned().map(Op::DelFdb));
    gone.sort_by_key(|port| port.role == Role::Uplink);
    ops.extend(gone.into_iter().cloned().map(Op::DelPort));
    ops.extend(set_ports(&kept));
    let mut new: Vec<&PortConfig> =
        desired.ports.iter().filter(|port| !stays.contains(port.ifname.as_str())).collect();
    new.sort_by_key(|port| port.role != Role::Uplink);
    ops.extend(new.into_iter().cloned().map(Op::AddPort));
    ops.extend(desired.fdb.iter().filter(|entry| !rests(entry)).cloned().map(Op::AddFdb));
    Ok(ops)
}

/// The changes of ports that stay. Those that have an address which another of them gets release it first.
fn set_ports(kept: &[(&PortConfig, &PortConfig)]) -> Vec<Op> {
    let claimed: BTreeSet<MacAddr> = kept
        .iter()
        .flat_map(|(from, to)| to.mac.iter().filter(|mac| !from.mac.contains(mac)))
        .copied()
        .collect();
    let (mut release, mut set) = (Vec::new(), Vec::new());
    for (from, to) in kept.iter().filter(|(from, to)| !same(from, to)) {
        let mut from = (*from).clone();
        let mut without = from.clone();
        without.mac.retain(|mac| to.mac.contains(mac) || !claimed.contains(mac));
        if without != from {
            release.push(Op::SetPort { from, to: without.clone() });
            from = without;
        }
        if !same(&from, to) {
            set.push(Op::SetPort { from, to: (*to).clone() });
        }
    }
    release.append(&mut set);
    release
}

/// Whether two ports are the same to the user. Most are in every way. The order of addresses means nothing, except that the first is the
/// far end's where vswitch made it.
fn same(one: &PortConfig, other: &PortConfig) -> bool {
    let canonical = |port: &PortConfig| {
        let mut port = port.clone();
        let first = usize::from(matches!(port.far_end, FarEnd::Veth { .. }));
        if let Some(rest) = port.mac.get_mut(first..) {
            rest.sort_unstable();
        }
        port.source.sort_unstable();
        port
    };
    one == other || canonical(one) == canonical(other)
}

/// `wanted`: the ports of `desired`, by name.
fn refusals(
    actual: &SwitchConfig,
    desired: &SwitchConfig,
    wanted: &HashMap<&str, &PortConfig>,
) -> Vec<String> {
    let name = &actual.name;
    let command = if name == DEFAULT_SWITCH { "vswitch".to_owned() } else { format!("vswitch -s {name}") };
    let mut refused = Vec::new();
    if *name != desired.name {
        refused.push(format!(
            "switch {name}: its name cannot change to {}; {command} down, then up again",
            desired.name
        ));
    }
    let (from, to) = (actual.fdb_max, desired.fdb_max);
    if from != to {
        refused.push(format!(
            "switch {name}: fdb-max {from} -> {to} cannot change while it is up; {command} down, then up again"
        ));
    }
    for from in &actual.ports {
        let Some(to) = wanted.get(from.ifname.as_str()) else { continue };
        if let Some(cause) = refusal(from, to) {
            let ifname = &from.ifname;
            refused.push(format!("port {ifname}: {cause}; {command} port del {ifname}, then add it again"));
        }
    }
    refused
}

/// Why a port cannot become another while it is one.
fn refusal(from: &PortConfig, to: &PortConfig) -> Option<String> {
    if from == to {
        return None;
    }
    if from.far_end != to.far_end {
        let (from, to) = (show::far_end(&from.far_end), show::far_end(&to.far_end));
        return Some(format!("{from} -> {to} cannot change while it is a port"));
    }
    let what = show::changes(from, to);
    if from.far_end != FarEnd::Existing && (from.role != to.role || from.datapath != to.datapath) {
        return Some(format!("{what} would remove the interface that vswitch made"));
    }
    // As in macvlan.
    if from.mode != to.mode && (from.mode == Mode::Passthru || to.mode == Mode::Passthru) {
        return Some(format!("{what} cannot change while it is a port"));
    }
    None
}

#[cfg(test)]
mod tests;
