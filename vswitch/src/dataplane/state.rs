//! What do the maps say, in the words of the configuration? And back.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use aya::programs::ProgramInfo;
use vswitch_ebpf::{
    abi::{
        FdbEntry, FdbKey, HOST_SLOT, IFNAMSIZ, MAX_PORTS, Port, PortRecord, Settings, SourceKey, fdb_flags,
        listed, mode, port_flags, record_flags, settings_flags,
    },
    frame::MacAddr,
};

use super::{Dataplane, links::Hook};
use crate::config::{Datapath, FarEnd, Mode, PortConfig, Role, StaticEntry, SwitchConfig};

/// A port as the maps have it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) slot: u16,
    pub(crate) record: PortRecord,
    pub(crate) port: Port,
}

impl Member {
    /// The interface's name.
    pub(crate) fn ifname(&self) -> String {
        text(&self.record.ifname)
    }

    /// Whether it is an uplink.
    pub(crate) fn is_uplink(&self) -> bool {
        self.port.flags & port_flags::UPLINK != 0
    }

    /// Towards the outside or not.
    pub(crate) fn role(&self) -> Role {
        if self.is_uplink() { Role::Uplink } else { Role::Downlink }
    }

    /// Whether its station's address is known without learning.
    pub(crate) fn is_known(&self) -> bool {
        self.record.first_mac != [0; 6] || self.record.flags & record_flags::CREATED_VETH != 0
    }

    /// The [`settings_flags`] that let the programs look at what a port like this needs.
    fn looks(&self) -> u32 {
        let mut looks = 0;
        if self.is_uplink() {
            return looks;
        }
        if self.port.mode != mode::BRIDGE || self.is_known() {
            looks |= settings_flags::STATIONS;
        }
        if self.port.mode == mode::SOURCE {
            looks |= settings_flags::SOURCES;
        }
        looks
    }

    /// The hooks by which the switch sees its frames while its interface is there.
    pub(crate) fn hooks(&self) -> Vec<Hook> {
        let mut hooks = vec![Hook::In];
        if self.is_uplink() {
            hooks.push(Hook::Out);
        }
        match datapath(self.record.active) {
            Datapath::Xdp => hooks.push(Hook::Xdp),
            Datapath::XdpGeneric => hooks.push(Hook::XdpGeneric),
            Datapath::Tc | Datapath::Auto => {}
        }
        hooks
    }

    /// The namespace that its far end was made in, if vswitch made it.
    pub(crate) fn netns(&self) -> Option<String> {
        Some(text(&self.record.netns)).filter(|netns| !netns.is_empty())
    }

    /// Whether its interface is there.
    pub(crate) fn is_present(&self) -> bool {
        self.port.ifindex != 0
    }
}

impl Dataplane {
    /// All ports, by slot.
    pub(crate) fn members(&self) -> Result<Vec<Member>> {
        let ports = self.maps.all_ports()?;
        let member = |(slot, record)| {
            let port = ports.get(usize::from(slot)).copied().unwrap_or_default();
            Member { slot, record, port }
        };
        Ok(self.maps.records()?.into_iter().map(member).collect())
    }

    /// The port with this interface.
    pub(crate) fn member(&self, ifname: &str) -> Result<Member> {
        let found = self.members()?.into_iter().find(|member| member.ifname() == ifname);
        match found {
            Some(member) => Ok(member),
            None => {
                bail!(r#""{ifname}": not a port of switch "{}" (vswitch port show lists them)"#, self.name)
            }
        }
    }

    /// Whether a port is called so.
    pub(crate) fn is_port(&self, ifname: &str) -> Result<bool> {
        Ok(self.members()?.iter().any(|member| member.ifname() == ifname))
    }

    /// The port that an interface is.
    pub(crate) fn member_of(&self, ifindex: u32) -> Result<Option<Member>> {
        let Some(slot) = self.maps.slot_of(ifindex)? else { return Ok(None) };
        let member = self.member_at(slot)?;
        Ok((member.record.ifindex == ifindex && self.maps.is_there(slot)?).then_some(member))
    }

    /// The port in a slot: to ask for one by name is to read them all.
    pub(crate) fn member_at(&self, slot: u16) -> Result<Member> {
        Ok(Member { slot, record: self.maps.record(slot)?, port: self.maps.port(slot)? })
    }

    /// The kernel's number of the switch's XDP program, by which it is told from others'.
    pub(crate) fn xdp_program_id(&self) -> Option<u32> {
        ProgramInfo::from_pin(self.pins.program(Hook::Xdp.program())).ok().map(|info| info.id())
    }

    /// A slot for a new port.
    pub(crate) fn free_slot(&self) -> Result<u16> {
        let used = self.maps.records()?;
        // In the order of the slots: the first that is not where it would be without a gap.
        let gap = (1..).zip(&used).find(|(slot, (taken, _))| slot != taken).map(|(slot, _)| slot);
        let after = used.last().map_or(1, |(last, _)| last + 1);
        match gap.or_else(|| (u32::from(after) < MAX_PORTS).then_some(after)) {
            Some(slot) => Ok(slot),
            None => bail!(r#"switch "{}": all {} ports are in use"#, self.name, MAX_PORTS - 1),
        }
    }

    /// Lets the programs look at all that a port needs which is about to be so. Killed after it, they look in vain.
    pub(crate) fn look_for(&mut self, member: &Member) -> Result<()> {
        let before = self.maps.settings()?;
        let flags = before.flags | member.looks();
        if flags != before.flags {
            self.maps.set_settings(Settings { flags, ..before })?;
        }
        Ok(())
    }

    /// Brings the settings that follow from the ports up to date.
    pub(crate) fn refresh_settings(&mut self) -> Result<()> {
        let members = self.members()?;
        let before = self.maps.settings()?;
        let mut uplinks = members.iter().filter(|member| member.is_uplink() && member.is_present());
        let wire = match (uplinks.next(), uplinks.next()) {
            (Some(only), None) => only.slot,
            (_, _) => 0,
        };
        let mut downlinks = members.iter().filter(|member| !member.is_uplink());
        let passthru =
            downlinks.find(|member| member.port.mode == mode::PASSTHRU).map_or(0, |member| member.slot);
        let looks = members.iter().fold(0, |looks, member| looks | member.looks());
        let slots = members.last().map_or(1, |member| member.slot + 1);
        let flags = before.flags & !(settings_flags::STATIONS | settings_flags::SOURCES) | looks;
        let after = Settings { flags, slots, wire, passthru, ..before };
        if after != before {
            self.maps.set_settings(after)?;
        }
        Ok(())
    }

    /// Sets what the user decides for the whole switch.
    pub(crate) fn set_switch(&mut self, ageing: u32, host_access: bool, macvlan_compat: bool) -> Result<()> {
        let mut flags = 0;
        if host_access {
            flags |= settings_flags::HOST_ACCESS;
        }
        if macvlan_compat {
            flags |= settings_flags::MACVLAN_COMPAT;
        }
        let (ageing, second) = (self.clock.stamps(ageing), self.clock.stamps(1));
        let refresh = if ageing == 0 { second } else { second.min(ageing / 4) };
        let before = self.maps.settings()?;
        flags |= before.flags & (settings_flags::STATIONS | settings_flags::SOURCES);
        self.maps.set_settings(Settings { ageing, refresh, flags, ..before })
    }

    /// Makes a port's source list `senders`, and what all lists together say of them.
    pub(crate) fn set_sources(&mut self, slot: u16, senders: &[MacAddr]) -> Result<()> {
        for mac in senders {
            self.maps.set_source(SourceKey { mac: *mac, slot }, listed::BY_PORT)?;
        }
        for (key, _) in self.maps.sources()? {
            if key.slot == slot && !senders.contains(&key.mac) {
                self.maps.clear_source(key)?;
            }
        }
        self.refresh_sources()
    }

    /// Brings what the lists together say of each sender up to date: the elements of slot 0.
    pub(crate) fn refresh_sources(&mut self) -> Result<()> {
        let mut says = BTreeMap::new();
        let all = self.maps.sources()?;
        for (key, _) in all.iter().filter(|(key, _)| key.slot != HOST_SLOT) {
            let nodst = self.maps.port(key.slot)?.flags & port_flags::NODST != 0;
            let together = says.entry(key.mac).or_insert(listed::BY_PORT);
            if nodst {
                *together |= listed::NODST;
            }
        }
        for (mac, together) in &says {
            self.maps.set_source(SourceKey { mac: *mac, slot: HOST_SLOT }, *together)?;
        }
        for (key, _) in all.iter().filter(|(key, _)| key.slot == HOST_SLOT && !says.contains_key(&key.mac)) {
            self.maps.clear_source(*key)?;
        }
        Ok(())
    }

    /// The switch as a configuration.
    pub(crate) fn config(&self) -> Result<SwitchConfig> {
        let settings = self.maps.settings()?;
        let members = self.members()?;
        let mut config = SwitchConfig {
            name: self.name.clone(),
            ageing: u32::try_from(self.clock.seconds(settings.ageing.into())).unwrap_or(u32::MAX),
            fdb_max: self.maps.fdb.max(),
            host_access: settings.flags & settings_flags::HOST_ACCESS != 0,
            macvlan_compat: settings.flags & settings_flags::MACVLAN_COMPAT != 0,
            ports: members.iter().map(port_config).collect::<Result<_>>()?,
            fdb: Vec::new(),
        };
        let mut entries = self.maps.fdb.all()?;
        entries.sort_by_key(|(key, _)| *key);
        for (key, entry) in entries {
            let kind = entry_kind(entry);
            let owner = |slot| members.binary_search_by_key(&slot, |member| member.slot).ok();
            let Some(port) = owner(entry.slot()).and_then(|owner| config.ports.get_mut(owner)) else {
                continue;
            };
            match kind {
                EntryKind::Known => port.mac.push(key.mac),
                EntryKind::Static => {
                    let ifname = port.ifname.clone();
                    config.fdb.push(StaticEntry { mac: key.mac, vlan: key.vlan, ifname });
                }
                EntryKind::Learned | EntryKind::Derived | EntryKind::Local => {}
            }
        }
        let mut sources = self.maps.sources()?;
        sources.sort_unstable_by_key(|(key, _)| *key);
        for (key, _) in sources {
            let owner = members.iter().position(|member| member.slot == key.slot);
            if let Some(port) = owner.and_then(|owner| config.ports.get_mut(owner)) {
                port.source.push(key.mac);
            }
        }
        // The far end's own address comes first, as the user gave it; the others follow in order.
        for (port, member) in config.ports.iter_mut().zip(&members) {
            let first = MacAddr(member.record.first_mac);
            port.mac.sort_by_key(|mac| (*mac != first, *mac));
        }
        Ok(config)
    }
}

/// What an FDB entry is to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Learned, or added by the user to age.
    Learned,
    /// Bound to a port by `fdb add --static`.
    Static,
    /// One of a port's known addresses.
    Known,
    /// The address of a far end that vswitch made: known without the user's saying.
    Derived,
    /// The host's.
    Local,
}

/// Tells by the flags what an entry is.
pub(crate) fn entry_kind(entry: FdbEntry) -> EntryKind {
    let flags = entry.flags();
    if flags & fdb_flags::LOCAL == fdb_flags::LOCAL {
        EntryKind::Local
    } else if flags & fdb_flags::DERIVED != 0 {
        EntryKind::Derived
    } else if flags & fdb_flags::STICKY != 0 {
        EntryKind::Known
    } else if flags & fdb_flags::STATIC != 0 {
        EntryKind::Static
    } else {
        EntryKind::Learned
    }
}

/// The FDB's key of an address while the switch is not VLAN-aware.
pub(crate) fn key(mac: MacAddr) -> FdbKey {
    FdbKey { mac, vlan: 0 }
}

/// [`port_flags`] of a port, without those that follow from its interface.
pub(crate) fn flags(config: &PortConfig) -> u32 {
    [
        (config.role == Role::Uplink, port_flags::UPLINK),
        (config.hairpin, port_flags::HAIRPIN),
        (config.isolated, port_flags::ISOLATED),
        (config.learning, port_flags::LEARNING),
        (config.flood, port_flags::FLOOD),
        (config.mcast_flood, port_flags::MCAST_FLOOD),
        (config.bcast_flood, port_flags::BCAST_FLOOD),
        (config.nodst, port_flags::NODST),
    ]
    .into_iter()
    .filter_map(|(on, flag)| on.then_some(flag))
    .fold(0, |flags, flag| flags | flag)
}

/// [`Port::mode`] of a mode.
pub(crate) const fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Bridge => mode::BRIDGE,
        Mode::Vepa => mode::VEPA,
        Mode::Private => mode::PRIVATE,
        Mode::Passthru => mode::PASSTHRU,
        Mode::Source => mode::SOURCE,
    }
}

/// The record of a port that is about to be added.
pub(crate) fn new_record(config: &PortConfig) -> Result<PortRecord> {
    let (flags, netns, peer) = match &config.far_end {
        FarEnd::Existing => (0, "", ""),
        FarEnd::Tap => (record_flags::CREATED_TAP, "", ""),
        FarEnd::Veth { netns, peer } => (record_flags::CREATED_VETH, netns.as_str(), peer.as_str()),
    };
    Ok(PortRecord {
        ifname: bytes::<IFNAMSIZ>(&config.ifname)?,
        peer: bytes::<IFNAMSIZ>(peer)?,
        netns: bytes::<64>(netns)?,
        flags,
        undo: 0,
        ifindex: 0,
        datapath: datapath_number(Some(config.datapath)),
        active: 0,
        first_mac: config.mac.first().map_or([0; 6], |mac| mac.0),
    })
}

/// A datapath as [`PortRecord`] has it: 0 for auto or none.
pub(crate) const fn datapath_number(datapath: Option<Datapath>) -> u8 {
    match datapath {
        None | Some(Datapath::Auto) => 0,
        Some(Datapath::Xdp) => 1,
        Some(Datapath::XdpGeneric) => 2,
        Some(Datapath::Tc) => 3,
    }
}

/// The reverse of [`datapath_number`].
pub(crate) fn datapath(number: u8) -> Datapath {
    match number {
        1 => Datapath::Xdp,
        2 => Datapath::XdpGeneric,
        3 => Datapath::Tc,
        _ => Datapath::Auto,
    }
}

/// A zero-terminated text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// A text, zero-terminated.
pub(crate) fn bytes<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match bytes.get_mut(..text.len()) {
        Some(room) if text.len() < N => room.copy_from_slice(text.as_bytes()),
        Some(_) | None => bail!(r#""{text}": longer than the {} bytes that there is room for"#, N - 1),
    }
    Ok(bytes)
}

fn port_config(member: &Member) -> Result<PortConfig> {
    let flags = member.port.flags;
    let on = |flag: u32| flags & flag != 0;
    let far_end = if member.record.flags & record_flags::CREATED_VETH != 0 {
        FarEnd::Veth { netns: text(&member.record.netns), peer: text(&member.record.peer) }
    } else if member.record.flags & record_flags::CREATED_TAP != 0 {
        FarEnd::Tap
    } else {
        FarEnd::Existing
    };
    Ok(PortConfig {
        ifname: member.ifname(),
        role: if on(port_flags::UPLINK) { Role::Uplink } else { Role::Downlink },
        mode: match member.port.mode {
            mode::BRIDGE => Mode::Bridge,
            mode::VEPA => Mode::Vepa,
            mode::PRIVATE => Mode::Private,
            mode::PASSTHRU => Mode::Passthru,
            mode::SOURCE => Mode::Source,
            other => bail!(r#""{}": mode {other} is unknown to this build"#, member.ifname()),
        },
        mac: Vec::new(),
        source: Vec::new(),
        hairpin: on(port_flags::HAIRPIN),
        isolated: on(port_flags::ISOLATED),
        learning: on(port_flags::LEARNING),
        flood: on(port_flags::FLOOD),
        mcast_flood: on(port_flags::MCAST_FLOOD),
        bcast_flood: on(port_flags::BCAST_FLOOD),
        nodst: on(port_flags::NODST),
        datapath: datapath(member.record.datapath),
        far_end,
    })
}
