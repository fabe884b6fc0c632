//! What did builds before ABI 3 know, in the maps that their programs read, and the intent and the ledger say now?

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use bytemuck::Pod;
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, Port, SourceKey, fdb_flags, mode, port_flags, settings_flags},
    frame::MacAddr,
};

use super::{Move, find, fit};
use crate::{
    config::{FarEnd, Flags, Mode, PortConfig, Role, StaticEntry, SwitchConfig, parse},
    dataplane::{
        clock::Clock,
        ledger::{Filter, Identity, PortRecord, record_flags},
        pins::Pins,
        raw::RawMap,
        state::{self, text},
    },
};

/// The first version whose intent is the configuration.
pub(super) const INTENT: u32 = 3;

/// [`fdb_flags`]: follows from an interface that vswitch made, and not from the user's word.
const DERIVED: u8 = 1 << 3;
/// [`fdb_flags`]: vswitch has entered the address into the uplink's receive filter.
const FILTERED: u8 = 1 << 4;

/// [`port_flags`]: its interface is down or has no carrier.
const DOWN: u32 = 1 << 9;

/// What there was of a switch.
pub(super) struct Before {
    ports: BTreeMap<u16, (Port, PortRecord)>,
    fdb: Vec<(FdbKey, FdbEntry)>,
    sources: Vec<SourceKey>,
    /// [`settings_flags`].
    flags: u32,
    /// In ticks.
    ageing: u32,
}

/// The beginning of a value, as far as all versions have it.
fn value<T: Pod>(map: &RawMap, key: &[u8]) -> Result<T> {
    let bytes = map.get(key)?.unwrap_or_default();
    Ok(bytemuck::pod_read_unaligned(&fit(&bytes, size_of::<T>())))
}

impl Before {
    pub(super) fn read(moves: &[Move], fdb: Vec<(FdbKey, FdbEntry)>) -> Result<Self> {
        // Ageing, refresh, flags: what follows is derived.
        let [ageing, _, flags] = value::<[u32; 3]>(&find(moves, "SETTINGS")?.old, &[0; 4])?;
        let (elements, records) = (&find(moves, "PORTS")?.old, &find(moves, "RECORDS")?.old);
        let mut ports = BTreeMap::new();
        for key in records.keys().context("read the ports' records")?.chunks(size_of::<u32>()) {
            let record: PortRecord = value(records, key)?;
            let slot = bytemuck::pod_read_unaligned::<u32>(key) as u16;
            if slot != 0 && record.ifname[0] != 0 {
                ports.insert(slot, (value(elements, key)?, record));
            }
        }
        let sources = &find(moves, "SOURCES")?.old;
        let mut listed: Vec<SourceKey> = sources
            .keys()
            .context("read the source lists")?
            .chunks(sources.sizes().0)
            .map(|key| bytemuck::pod_read_unaligned(&fit(key, size_of::<SourceKey>())))
            .collect();
        listed.sort_unstable();
        Ok(Self { ports, fdb, sources: listed, flags, ageing })
    }

    /// The switch as a configuration.
    pub(super) fn intent(&self, name: &str, identity: &Identity) -> Result<SwitchConfig> {
        let clock = Clock::of(identity);
        let mut config = SwitchConfig {
            ageing: u32::try_from(clock.seconds(self.ageing.into())).unwrap_or(u32::MAX),
            fdb_max: identity.fdb_max,
            host_access: self.flags & settings_flags::HOST_ACCESS != 0,
            macvlan_compat: self.flags & settings_flags::MACVLAN_COMPAT != 0,
            ..SwitchConfig::new(name)
        };
        let mut places = BTreeMap::new();
        for (slot, (port, record)) in &self.ports {
            places.insert(*slot, config.ports.len());
            config.ports.push(port_config(port, record)?);
        }
        let mut entries = self.fdb.clone();
        entries.sort_unstable_by_key(|(key, _)| *key);
        for (key, entry) in entries {
            let place = places.get(&entry.slot()).and_then(|place| config.ports.get_mut(*place));
            let (Some(port), true) = (place, entry.has(fdb_flags::STATIC)) else { continue };
            if entry.has(fdb_flags::HOST | DERIVED) {
                continue;
            }
            if entry.has(fdb_flags::STICKY) {
                port.mac.push(key.mac);
            } else {
                let ifname = port.ifname.clone();
                config.fdb.push(StaticEntry { mac: key.mac, vlan: key.vlan, ifname });
            }
        }
        for key in &self.sources {
            if let Some(port) = places.get(&key.slot).and_then(|place| config.ports.get_mut(*place)) {
                port.source.push(key.mac);
            }
        }
        // Then the record had the first of the addresses that the user had given the port.
        for (port, (_, record)) in config.ports.iter_mut().zip(self.ports.values()) {
            let first = MacAddr(record.station);
            port.mac.sort_by_key(|mac| (*mac != first, *mac));
        }
        Ok(config)
    }

    /// The records, as they are now.
    pub(super) fn records(&self) -> impl Iterator<Item = (u16, PortRecord)> {
        self.ports.iter().map(|(slot, (port, record))| {
            let made = record.flags & record_flags::CREATED_VETH != 0;
            let derived = self.fdb.iter().find(|(_, entry)| entry.slot() == *slot && entry.has(DERIVED));
            let station = match derived {
                Some((key, _)) => key.mac.0,
                None if made => record.station,
                None => [0; 6],
            };
            let role = if port.flags & port_flags::UPLINK != 0 { record_flags::UPLINK } else { 0 };
            (*slot, PortRecord { flags: record.flags | role, station, ..*record })
        })
    }

    /// The ports, by slot, as the old programs had them, and whether their interfaces were down.
    pub(super) fn ports(&self) -> impl Iterator<Item = (u16, Port, bool)> {
        self.ports.iter().map(|(slot, (port, _))| {
            (*slot, Port { flags: port.flags & !DOWN, ..*port }, port.flags & DOWN != 0)
        })
    }

    /// What is in the filter of the only uplink.
    pub(super) fn filters(&self) -> impl Iterator<Item = Filter> {
        let is_uplink = |port: &Port| port.flags & port_flags::UPLINK != 0 && port.ifindex != 0;
        let uplink = self.ports.iter().find(|(_, (port, _))| is_uplink(port)).map(|(slot, _)| *slot);
        let filtered = self.fdb.iter().filter(|(_, entry)| entry.has(FILTERED));
        filtered.filter_map(move |(key, _)| Some(Filter { mac: key.mac, slot: uplink? }))
    }
}

/// An entry, without what is elsewhere now.
pub(super) fn entry(entry: FdbEntry) -> FdbEntry {
    FdbEntry::new(entry.slot(), entry.flags() & !(DERIVED | FILTERED), entry.stamp())
}

/// What an interrupted command of the old build wanted.
pub(super) fn wanted(old: &Pins) -> Result<Option<SwitchConfig>> {
    let path = old.journal();
    if !path.try_exists()? {
        return Ok(None);
    }
    let text = RawMap::open(&path)?.get(&[0; 4])?.unwrap_or_default();
    let text = String::from_utf8(text).context("read the journal")?;
    Ok(Some(parse(&path.display().to_string(), &text, None)?))
}

/// Those that a port had then.
const FLAGS: [u32; 7] = [
    port_flags::HAIRPIN,
    port_flags::ISOLATED,
    port_flags::LEARNING,
    port_flags::FLOOD,
    port_flags::MCAST_FLOOD,
    port_flags::BCAST_FLOOD,
    port_flags::NODST,
];

fn port_config(port: &Port, record: &PortRecord) -> Result<PortConfig> {
    let on = |flag: u32| port.flags & flag != 0;
    let ifname = text(&record.ifname);
    let far_end = if record.flags & record_flags::CREATED_VETH != 0 {
        FarEnd::Veth { netns: text(&record.netns), peer: text(&record.peer) }
    } else if record.flags & record_flags::CREATED_TAP != 0 {
        FarEnd::Tap
    } else {
        FarEnd::Existing
    };
    Ok(PortConfig {
        role: if on(port_flags::UPLINK) { Role::Uplink } else { Role::Downlink },
        mode: match port.mode {
            mode::BRIDGE => Mode::Bridge,
            mode::VEPA => Mode::Vepa,
            mode::PRIVATE => Mode::Private,
            mode::PASSTHRU => Mode::Passthru,
            mode::SOURCE => Mode::Source,
            other => bail!(r#""{ifname}": mode {other} is unknown to this build"#),
        },
        flags: FLAGS.into_iter().fold(Flags::default(), |flags, bit| flags.with(bit, on(bit))),
        datapath: state::datapath(record.datapath),
        far_end,
        ..PortConfig::new(&ifname)
    })
}
