//! Is this a switch that can be made? The one table of rules, for files and for command lines.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use vswitch_ebpf::{
    abi::{MAX_PORTS, SOURCES_MAX},
    frame::MacAddr,
};

use super::{
    FarEnd, Mode, PORT_FLAGS, PortConfig, PortFlag, Role, StaticEntry, SwitchConfig,
    mac::check_station,
    names::{check_ifname, check_netns, check_switch_name},
};

use crate::view::HOST;

pub use super::problem::{At, ConfigProblem, ConfigProblems, Part};

/// Ports of a switch at most: slot 0 is the host's.
pub const MAX_CONFIG_PORTS: usize = MAX_PORTS as usize - 1;

/// Seconds of ageing at most (802.1Q table 8-6).
pub const MAX_AGEING: u32 = 1_000_000;

/// Addresses of an FDB at most: about 1 GiB of kernel memory.
pub const MAX_FDB: u32 = 1 << 24;

/// VLAN identifiers end here (802.1Q: 4095 is reserved).
pub const MAX_VLAN: u16 = 4094;

impl SwitchConfig {
    /// Everything that is wrong with it.
    pub fn validate(&self) -> Vec<ConfigProblem> {
        let mut check = Check { found: Vec::new() };
        check.switch(self);
        for (index, port) in self.ports.iter().enumerate() {
            check.port(index, port);
        }
        for (index, entry) in self.fdb.iter().enumerate() {
            check.entry(index, entry, self);
        }
        check.unique_interfaces(&self.ports);
        check.passthru_alone(&self.ports);
        check.sources_fit(&self.ports);
        check.unique_addresses(self);
        check.found
    }

    /// [`SwitchConfig::validate`] for who cannot go on with a wrong one.
    pub fn check(&self) -> Result<(), ConfigProblems> {
        let problems = self.validate();
        if problems.is_empty() { Ok(()) } else { Err(ConfigProblems(problems)) }
    }
}

impl FarEnd {
    /// What `netns`, `peer` and `tap` mean together. An error is the key at fault, and cause and remedy.
    pub fn new(
        netns: Option<String>,
        peer: Option<String>,
        tap: bool,
    ) -> Result<Self, (&'static str, &'static str)> {
        match (netns, peer, tap) {
            (Some(_), _, true) => {
                Err(("tap", "a tap has no far end in a namespace; leave out either tap or netns"))
            }
            (None, Some(_), _) => {
                Err(("peer", "peer without netns; add the netns that it is in, or leave it out"))
            }
            (Some(netns), peer, false) => {
                Ok(Self::Veth { netns, peer: peer.unwrap_or_else(|| super::DEFAULT_PEER.to_owned()) })
            }
            (None, None, true) => Ok(Self::Tap),
            (None, None, false) => Ok(Self::Existing),
        }
    }
}

/// Cause and remedy of a number out of its range. Takes a text, since it may be beyond every integer.
pub(super) fn out_of_range(key: &str, value: &str) -> String {
    let (least, most, unit) = match key {
        "ageing" => (0, MAX_AGEING, "seconds (0: nothing is learned)"),
        "vlan" => (0, u32::from(MAX_VLAN), "(0: untagged)"),
        _ => (1, MAX_FDB, "addresses"),
    };
    format!("{key} {value} is out of range; choose {least} to {most} {unit}")
}

/// How messages call a switch, a port or an entry.
pub(super) fn object(kind: &str, name: &str) -> String {
    format!("{kind} {}", name.escape_debug())
}

struct Check {
    found: Vec<ConfigProblem>,
}

impl Check {
    fn problem(&mut self, part: Part, key: &'static str, item: usize, object: String, what: String) {
        self.found.push(ConfigProblem { at: At { part, key, item }, object, what });
    }

    fn switch(&mut self, switch: &SwitchConfig) {
        let mut problem =
            |key, what| self.problem(Part::Switch, key, 0, object("switch", &switch.name), what);
        if let Err(what) = check_switch_name(&switch.name) {
            problem("name", what);
        }
        if switch.ageing > MAX_AGEING {
            problem("ageing", out_of_range("ageing", &switch.ageing.to_string()));
        }
        if !(1..=MAX_FDB).contains(&switch.fdb_max) {
            problem("fdb-max", out_of_range("fdb-max", &switch.fdb_max.to_string()));
        }
        let bound = switch.ports.iter().map(|port| port.mac.len()).sum::<usize>() + switch.fdb.len();
        if bound > switch.fdb_max as usize {
            let fdb_max = switch.fdb_max;
            problem(
                "fdb-max",
                format!("{bound} addresses are bound to ports, fdb-max is {fdb_max}; raise it"),
            );
        }
    }

    fn port(&mut self, index: usize, port: &PortConfig) {
        let mut problem =
            |key, item, what| self.problem(Part::Port(index), key, item, object("port", &port.ifname), what);
        if index == MAX_CONFIG_PORTS {
            problem(
                "name",
                0,
                format!("a switch has {MAX_CONFIG_PORTS} ports at most; make a second switch"),
            );
        }
        if let Err(what) = check_ifname(&port.ifname) {
            problem("name", 0, what);
        }
        if port.ifname == HOST {
            problem(
                "name",
                0,
                "the machine itself is called so, in fdb show and stats; choose another".to_owned(),
            );
        }
        for (item, &mac) in port.mac.iter().enumerate() {
            if let Err(what) = check_station(mac) {
                problem("mac", item, format!("mac {what}"));
            }
        }
        match (&port.far_end, port.role) {
            (FarEnd::Existing, _) => {}
            (FarEnd::Veth { .. }, Role::Uplink) => {
                problem(
                    "netns",
                    0,
                    "an uplink leads outside, not into a netns; remove netns or role".to_owned(),
                );
            }
            (FarEnd::Tap, Role::Uplink) => {
                problem("tap", 0, "an uplink leads outside, not to a tap; remove tap or role".to_owned());
            }
            (FarEnd::Veth { .. } | FarEnd::Tap, Role::Downlink) => {}
        }
        if let FarEnd::Veth { netns, peer } = &port.far_end {
            if let Err(what) = check_netns(netns) {
                problem("netns", 0, format!("netns: {what}"));
            }
            if let Err(what) = check_ifname(peer) {
                problem("peer", 0, format!("peer: {what}"));
            }
        }
        let mode = port.mode;
        if mode != Mode::Bridge && port.role == Role::Uplink {
            problem("mode", 0, format!("mode {mode} is for downlinks, and this is an uplink; remove it"));
        }
        for (item, &mac) in port.source.iter().enumerate() {
            if let Err(what) = check_station(mac) {
                problem("source", item, format!("source {what}"));
            }
        }
        if mode != Mode::Source && !port.source.is_empty() {
            problem(
                "source",
                0,
                format!("a source list is for mode source, and this is mode {mode}; remove one"),
            );
        }
        for PortFlag { key, bit, usual, mode: only, .. } in PORT_FLAGS {
            if let Some(only) = only.filter(|only| *only != mode && port.flags.has(bit) != usual) {
                problem(key, 0, format!("{key} is for mode {only}, and this is mode {mode}; remove one"));
            }
        }
    }

    fn entry(&mut self, index: usize, entry: &StaticEntry, switch: &SwitchConfig) {
        let mut problem =
            |key, what| self.problem(Part::Fdb(index), key, 0, object("fdb", &entry.mac.to_string()), what);
        if let Err(what) = check_station(entry.mac) {
            problem("mac", format!("mac {what}"));
        }
        if entry.vlan > MAX_VLAN {
            problem("vlan", out_of_range("vlan", &entry.vlan.to_string()));
        } else if entry.vlan != 0 {
            // The dataplane looks up VLAN 0 only: whoever makes it VLAN-aware deletes this branch.
            problem("vlan", format!("vlan {} is not supported yet; use vlan 0", entry.vlan));
        }
        if switch.port(&entry.ifname).is_none() {
            let ifname = entry.ifname.escape_debug();
            problem(
                "port",
                format!("{ifname} is not a port of this switch; add the port or remove the entry"),
            );
        }
    }

    fn unique_interfaces(&mut self, ports: &[PortConfig]) {
        let mut here: HashSet<&str> = HashSet::new();
        let mut there: HashMap<(&str, &str), &str> = HashMap::new();
        for (index, port) in ports.iter().enumerate() {
            let name = || object("port", &port.ifname);
            if !here.insert(&port.ifname) {
                let what = "the interface is in this switch twice; remove one of the two".to_owned();
                self.problem(Part::Port(index), "name", 0, name(), what);
                continue;
            }
            let FarEnd::Veth { netns, peer } = &port.far_end else { continue };
            if let Some(first) = there.insert((netns, peer), &port.ifname) {
                let first = object("port", first);
                let what = format!(
                    "{peer:?} in netns {netns:?} is already the far end of {first}; choose another peer"
                );
                self.problem(Part::Port(index), "peer", 0, name(), what);
            }
        }
    }

    /// As in macvlan: a passthru port takes everything, so that there is nothing left for another one.
    fn passthru_alone(&mut self, ports: &[PortConfig]) {
        let mut downlinks = ports.iter().enumerate().filter(|(_, port)| port.role == Role::Downlink);
        let Some((_, first)) = downlinks.next() else { return };
        for (index, port) in downlinks {
            let (passthru, other) = match (first.mode, port.mode) {
                (Mode::Passthru, _) => (first, port),
                (_, Mode::Passthru) => (port, first),
                (_, _) => continue,
            };
            let what = format!(
                "mode passthru of {} takes everything, so that {} cannot be a downlink beside it; remove one of them",
                passthru.ifname.escape_debug(),
                other.ifname.escape_debug()
            );
            self.problem(Part::Port(index), "mode", 0, object("port", &port.ifname), what);
        }
    }

    fn sources_fit(&mut self, ports: &[PortConfig]) {
        // Each sender takes an element of its own besides one for each port that lists it.
        let mut elements = 0;
        let mut senders = HashSet::new();
        for (index, port) in ports.iter().enumerate() {
            let before = elements;
            elements += port.source.len() + port.source.iter().filter(|&&mac| senders.insert(mac)).count();
            let most = SOURCES_MAX as usize;
            if elements > most && before <= most {
                let what =
                    format!("the source lists of all ports together are too long; {} senders fit", most / 2);
                self.problem(Part::Port(index), "source", 0, object("port", &port.ifname), what);
            }
        }
    }

    fn unique_addresses(&mut self, switch: &SwitchConfig) {
        let mut owners: HashMap<MacAddr, &str> = HashMap::new();
        for (index, port) in switch.ports.iter().enumerate() {
            for (item, &mac) in port.mac.iter().enumerate().filter(|(_, mac)| mac.is_station()) {
                match owners.entry(mac) {
                    Entry::Vacant(free) => {
                        free.insert(&port.ifname);
                    }
                    Entry::Occupied(taken) => {
                        let first = object("port", taken.get());
                        let what = format!("mac {mac} is already bound to {first}; remove one of them");
                        self.problem(Part::Port(index), "mac", item, object("port", &port.ifname), what);
                    }
                }
            }
        }
        let mut entries: HashMap<(MacAddr, u16), &str> = HashMap::new();
        for (index, entry) in switch.fdb.iter().enumerate().filter(|(_, entry)| entry.mac.is_station()) {
            let name = object("fdb", &entry.mac.to_string());
            let what = if let Some(port) = owners.get(&entry.mac) {
                let port = object("port", port);
                format!("the address is already bound by the mac of {port}; remove one of them")
            } else if let Some(port) = entries.insert((entry.mac, entry.vlan), &entry.ifname) {
                format!("the address already has an entry on {}; remove one of them", object("port", port))
            } else {
                continue;
            };
            self.problem(Part::Fdb(index), "mac", 0, name, what);
        }
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
