//! What follows from the intent and from what the interfaces are? Every table that the programs read, and what the uplinks'
//! NICs must let in. Pure: nothing is read or written here, and every conflict of addresses is found here, whichever
//! command or file it comes from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    fmt,
};

use vswitch_ebpf::{
    abi::{FdbKey, Port, Settings, fdb_flags, mode, port_flags, settings_flags},
    frame::MacAddr,
};

use crate::{
    config::{FarEnd, Mode, PortConfig, Role, SwitchConfig},
    dataplane::{
        clock::Clock,
        image::{Bound, Image, Nic},
        ledger::FILTERS_MAX,
        state::key,
    },
};

/// What is known of the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// How the dataplane counts time.
    pub(crate) clock: Clock,
    /// The ports that have a slot, by name.
    pub(crate) ports: HashMap<String, Seen>,
}

/// A port and its interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) slot: u16,
    /// 0 while the interface is missing: the rest means nothing then.
    pub(crate) ifindex: u32,
    pub(crate) mtu: u32,
    /// The interface's own address.
    pub(crate) mac: MacAddr,
    /// The address by which an uplink has been the host's up to now. It stays that if another port has a claim to the new one.
    pub(crate) before: Option<MacAddr>,
    /// The address of the far end that vswitch made.
    pub(crate) station: Option<MacAddr>,
    /// XDP delivers.
    pub(crate) xdp: bool,
    /// Frames are handed to the far end directly.
    pub(crate) direct: bool,
}

/// Why a switch cannot be so: for each conflict a line with object, cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusals(pub(crate) Vec<String>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Error for Refusals {}

/// A port of the intent that has a slot.
type Known<'a> = (&'a PortConfig, &'a Seen);

/// The tables. Ports that have no slot are in none.
pub(crate) fn compile(config: &SwitchConfig, observed: &Observed) -> Result<Image, Refusals> {
    let known = config.ports.iter().filter_map(|port| Some((port, observed.ports.get(&port.ifname)?)));
    let known: Vec<Known<'_>> = known.collect();
    let mut image = Image { settings: settings(config, observed.clock, &known), ..Image::default() };
    for (port, seen) in &known {
        let element = element(port, seen);
        // Of a port without interface for which everything is off: as a free slot's.
        if element != Port::default() {
            image.ports.insert(seen.slot, element);
        }
        if seen.ifindex != 0 {
            image.interfaces.insert(seen.ifindex, seen.slot);
        }
        for mac in &port.source {
            image.sources.insert((*mac, seen.slot));
        }
    }
    let present = image.ports.iter().filter(|(_, port)| port.ifindex != 0);
    image.domain = present.clone().map(|(slot, _)| *slot).collect();
    let uplinks = present.filter(|(_, port)| port.flags & port_flags::UPLINK != 0);
    image.uplinks = uplinks.map(|(slot, _)| *slot).collect();
    for (mac, slot) in &image.sources {
        image.listeners.entry(*mac).or_default().slots.push(*slot);
    }
    for (port, _) in known.iter().filter(|(port, _)| port.flags.has(port_flags::NODST)) {
        for mac in &port.source {
            image.listeners.entry(*mac).or_default().nodst = true;
        }
    }
    let mut claims = Claims::default();
    claims.ports(&known);
    claims.entries(config, observed);
    if !claims.refused.is_empty() {
        return Err(Refusals(claims.refused));
    }
    image.nics = nics(&known, &claims);
    image.fdb = claims.bound;
    Ok(image)
}

fn settings(config: &SwitchConfig, clock: Clock, known: &[Known<'_>]) -> Settings {
    let (ageing, second) = (clock.stamps(config.ageing), clock.stamps(1));
    let mut uplinks = known.iter().filter(|(port, seen)| port.role == Role::Uplink && seen.ifindex != 0);
    let wire = match (uplinks.next(), uplinks.next()) {
        (Some((_, only)), None) => only.slot,
        (_, _) => 0,
    };
    let mut access = known.iter().filter(|(port, _)| port.role == Role::Downlink);
    let needs_stations = |port: &PortConfig| port.mode != Mode::Bridge || port.is_known();
    let flags = [
        (config.host_access, settings_flags::HOST_ACCESS),
        (config.macvlan_compat, settings_flags::MACVLAN_COMPAT),
        (access.clone().any(|(port, _)| needs_stations(port)), settings_flags::STATIONS),
        (access.clone().any(|(port, _)| port.mode == Mode::Source), settings_flags::SOURCES),
    ];
    Settings {
        ageing,
        refresh: if ageing == 0 { second } else { second.min(ageing / 4) },
        flags: all(flags),
        wire,
        passthru: access.find(|(port, _)| port.mode == Mode::Passthru).map_or(0, |(_, seen)| seen.slot),
    }
}

fn element(port: &PortConfig, seen: &Seen) -> Port {
    let there = seen.ifindex != 0;
    let flags = all([
        (port.role == Role::Uplink, port_flags::UPLINK),
        (there && seen.xdp, port_flags::XDP),
        (there && seen.direct, port_flags::PEER),
    ]);
    let flags = port.flags.bits() | flags;
    let mode = match port.mode {
        Mode::Bridge => mode::BRIDGE,
        Mode::Vepa => mode::VEPA,
        Mode::Private => mode::PRIVATE,
        Mode::Passthru => mode::PASSTHRU,
        Mode::Source => mode::SOURCE,
    };
    Port { ifindex: seen.ifindex, mtu: if there { seen.mtu } else { 0 }, flags, mode, ..Port::default() }
}

/// Those flags that are on.
fn all<const N: usize>(flags: [(bool, u32); N]) -> u32 {
    flags.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag)
}

fn nics(known: &[Known<'_>], claims: &Claims<'_>) -> BTreeMap<u16, Nic> {
    let uplinks = known.iter().filter(|(port, seen)| port.role == Role::Uplink && seen.ifindex != 0);
    let ports = known.iter().map(|(port, _)| *port);
    let promiscuous = is_promiscuous(uplinks.clone().count(), ports, claims.stations.len());
    let filters = if promiscuous { BTreeSet::new() } else { claims.stations.clone() };
    uplinks.map(|(_, seen)| (seen.slot, Nic { promiscuous, filters: filters.clone() })).collect()
}

/// Whether uplinks must receive whatever comes: frames of others pass from one to another, or a port must be reached by
/// addresses that nobody can name.
pub(super) fn is_promiscuous<'a>(
    uplinks: usize,
    mut ports: impl Iterator<Item = &'a PortConfig>,
    stations: usize,
) -> bool {
    let needs_all = |port: &PortConfig| {
        port.role == Role::Downlink
            && (!port.is_known()
                || port.flags.has(port_flags::LEARNING)
                || port.flags.has(port_flags::FLOOD)
                || port.mode == Mode::Passthru)
    };
    uplinks > 1 || ports.any(needs_all) || stations > FILTERS_MAX as usize
}

/// Who has which address, and what was refused to whom.
#[derive(Default)]
struct Claims<'a> {
    bound: BTreeMap<FdbKey, Bound>,
    owners: HashMap<MacAddr, &'a str>,
    /// Those of ports' stations that are known.
    stations: BTreeSet<MacAddr>,
    refused: Vec<String>,
}

impl<'a> Claims<'a> {
    /// The ports' own, in their order.
    fn ports(&mut self, known: &[Known<'a>]) {
        for (port, seen) in known {
            if port.role == Role::Uplink && seen.ifindex != 0 {
                let mac = seen.before.unwrap_or(seen.mac);
                if let Err(claim) = self.claim(mac, port, seen.slot, fdb_flags::LOCAL) {
                    self.refused.push(format!(r#""{}": {claim}"#, port.ifname));
                }
            }
            for mac in &port.mac {
                // An uplink's own is the host's.
                if self.is_local_of(*mac, seen.slot) {
                    continue;
                }
                match self.claim(*mac, port, seen.slot, fdb_flags::STATIC | fdb_flags::STICKY) {
                    Ok(()) => drop(self.stations.insert(*mac)),
                    Err(claim) => self.refused.push(claim),
                }
            }
            let derived =
                matches!(port.far_end, FarEnd::Veth { .. }) && port.mac.is_empty() && seen.ifindex != 0;
            if let Some(mac) = seen.station.filter(|_| derived) {
                match self.claim(mac, port, seen.slot, fdb_flags::STATIC | fdb_flags::STICKY) {
                    Ok(()) => drop(self.stations.insert(mac)),
                    Err(claim) => self.refused.push(format!(r#""{}": {claim}"#, port.ifname)),
                }
            }
        }
        self.follow(known);
    }

    /// The host is reached by its uplink's address, whatever it is now, unless that is somebody's.
    fn follow(&mut self, known: &[Known<'a>]) {
        for (port, seen) in known.iter().filter(|(port, seen)| port.role == Role::Uplink && seen.ifindex != 0)
        {
            let Some(before) = seen.before.filter(|before| *before != seen.mac) else { continue };
            if self.is_local_of(before, seen.slot)
                && self.claim(seen.mac, port, seen.slot, fdb_flags::LOCAL).is_ok()
            {
                self.bound.remove(&key(before));
                self.owners.remove(&before);
            }
        }
    }

    /// What the user has bound to ports.
    fn entries(&mut self, config: &'a SwitchConfig, observed: &Observed) {
        for entry in &config.fdb {
            let mac = entry.mac;
            let Some(seen) = observed.ports.get(&entry.ifname) else { continue };
            if let Some(bound) = self.bound.get(&key(mac)).filter(|_| self.owners.contains_key(&mac)) {
                self.refused.push(if bound.is_local() { host_owns(mac) } else { port_owns(mac) });
                continue;
            }
            let bound = Bound { slot: seen.slot, flags: fdb_flags::STATIC };
            self.bound.insert(FdbKey { mac, vlan: entry.vlan }, bound);
        }
    }

    fn claim(&mut self, mac: MacAddr, port: &'a PortConfig, slot: u16, flags: u8) -> Result<(), String> {
        if mac == MacAddr::default() {
            return Ok(());
        }
        if let (Some(owner), Some(bound)) = (self.owners.get(&mac), self.bound.get(&key(mac))) {
            return Err(claimed(mac, owner, *bound));
        }
        self.bound.insert(key(mac), Bound { slot, flags });
        self.owners.insert(mac, &port.ifname);
        Ok(())
    }

    fn is_local_of(&self, mac: MacAddr, slot: u16) -> bool {
        self.bound.get(&key(mac)).is_some_and(|bound| bound.is_local() && bound.slot == slot)
    }
}

/// Why a port cannot have an address.
pub(crate) fn claimed(mac: MacAddr, owner: &str, bound: Bound) -> String {
    if bound.is_local() {
        format!("address {mac}: is the host's own, of uplink {owner}: choose another")
    } else {
        format!("address {mac}: belongs to port {owner}: choose another, or take it away there first")
    }
}

/// Why an FDB entry is not the user's to change.
pub(crate) fn host_owns(mac: MacAddr) -> String {
    format!("fdb {mac}: is the host's own address: it stays while the uplink is a port")
}

/// As [`host_owns`].
pub(crate) fn port_owns(mac: MacAddr) -> String {
    format!("fdb {mac}: is a port's known address: change the port (vswitch port set IF --mac ...)")
}

#[cfg(test)]
mod tests;
