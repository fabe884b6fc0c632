//! What does the user get to see of a switch? Everything is read from its maps, read-only, and from netlink.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _};

use anyhow::Result;
use vswitch_ebpf::{
    abi::{ABI_VERSION, FdbEntry, FdbKey, HOST_SLOT, fdb_flags, port_flags},
    frame::MacAddr,
};

use crate::{
    change::{faults, nics},
    config::{PortConfig, SwitchConfig},
    control::Scope,
    dataplane::{
        Access, Dataplane,
        pins::Pins,
        state::{self, EntryKind, Member, entry_kind},
    },
    failure::in_words,
    net::{Action, Link, Netlink, Undo},
    privileges,
    view::{
        BUILD, FdbKind, FdbView, HOST, PortCounts, PortState, PortView, StatsView, SwitchView, datapaths,
    },
};

/// Opens a switch to be looked at alone: from there on the calling thread needs no privileges, and has none.
pub(crate) fn open(scope: &Scope) -> Result<Dataplane> {
    let dataplane = Dataplane::open(&scope.switch, Access::Read)?;
    privileges::only_read()?;
    Ok(dataplane)
}

/// As [`open`], and keeps in reserve what it takes to find faults of far ends in other namespaces.
fn open_to_look(scope: &Scope) -> Result<Dataplane> {
    let dataplane = Dataplane::open(&scope.switch, Access::Read)?;
    privileges::only_look()?;
    Ok(dataplane)
}

/// The ports, by slot.
pub async fn ports(scope: &Scope) -> Result<Vec<PortView>> {
    let dataplane = open_to_look(scope)?;
    port_views(&dataplane).await
}

/// The FDB, by address.
pub async fn fdb(scope: &Scope) -> Result<Vec<FdbView>> {
    let dataplane = open(scope)?;
    let members = dataplane.members()?;
    let mut entries = dataplane.fdb_entries()?;
    entries.sort_unstable_by_key(|(key, _)| *key);
    let view = |(key, entry): (FdbKey, FdbEntry)| {
        let owner = members.iter().find(|member| member.slot == entry.slot());
        fdb_view(&dataplane, key, entry, owner.map(Member::ifname))
    };
    Ok(entries.into_iter().map(view).collect())
}

/// The FDB's entry of an address.
pub async fn fdb_entry(scope: &Scope, mac: MacAddr, vlan: u16) -> Result<Option<FdbView>> {
    let dataplane = open(scope)?;
    let key = FdbKey { mac, vlan };
    let Some(entry) = dataplane.fdb_entry(key)? else { return Ok(None) };
    let owner = dataplane.member_at(entry.slot())?.ifname();
    Ok(Some(fdb_view(&dataplane, key, entry, Some(owner).filter(|owner| !owner.is_empty()))))
}

fn fdb_view(dataplane: &Dataplane, key: FdbKey, entry: FdbEntry, owner: Option<String>) -> FdbView {
    let kind = match entry_kind(entry) {
        EntryKind::Learned => FdbKind::Learned,
        EntryKind::Static | EntryKind::Known => FdbKind::Static,
        EntryKind::Local => FdbKind::Local,
    };
    let ifname = if entry.has(fdb_flags::HOST) { Some(HOST.to_owned()) } else { owner };
    FdbView {
        mac: key.mac,
        vlan: key.vlan,
        ifname: ifname.unwrap_or_else(|| format!("slot {}", entry.slot())),
        kind,
        age: (kind == FdbKind::Learned).then(|| dataplane.seconds(entry.age(dataplane.now()))),
    }
}

/// The counters, ports by slot and the host last.
pub async fn stats(scope: &Scope) -> Result<Vec<StatsView>> {
    Meter::open(scope)?.read()
}

/// The counters of a switch that is looked at again and again: opened once, and anew when another one has its name.
pub struct Meter<'a> {
    scope: &'a Scope,
    dataplane: Dataplane,
    /// The directory of its maps, as no other switch ever has it.
    inode: u64,
}

impl<'a> Meter<'a> {
    /// Opens the switch, to be read alone.
    pub fn open(scope: &'a Scope) -> Result<Self> {
        // First the directory: of a switch that takes its place meanwhile, the counters are opened anew for nothing.
        let inode = inode(scope).unwrap_or_default();
        Ok(Self { scope, dataplane: open(scope)?, inode })
    }

    /// As [`stats`].
    pub fn read(&mut self) -> Result<Vec<StatsView>> {
        if inode(self.scope) != Some(self.inode) {
            *self = Self::open(self.scope)?;
        }
        let Self { dataplane, .. } = self;
        let mut rows = Vec::new();
        for member in dataplane.members()? {
            rows.push(StatsView::new(&member.ifname(), &dataplane.counters(member.slot)?));
        }
        rows.push(StatsView::new(HOST, &dataplane.counters(HOST_SLOT)?));
        Ok(rows)
    }
}

fn inode(scope: &Scope) -> Option<u64> {
    fs::metadata(Pins::of(&scope.switch).map("")).ok().map(|dir| dir.ino())
}

/// The switch at a glance.
pub async fn show(scope: &Scope) -> Result<SwitchView> {
    let dataplane = open_to_look(scope)?;
    let (settings, intent) = (dataplane.settings()?, dataplane.intent()?);
    let ports = port_views(&dataplane).await?;
    Ok(SwitchView {
        name: dataplane.name.clone(),
        netns: scope.netns.clone(),
        ageing: intent.ageing,
        fdb_max: dataplane.fdb_max(),
        fdb_used: u32::try_from(dataplane.fdb_entries()?.len()).unwrap_or(u32::MAX),
        // As it is: macvlan's rules have none, whatever is configured.
        host_access: vswitch_ebpf::policy::host_access(settings.flags),
        macvlan_compat: intent.macvlan_compat,
        abi: ABI_VERSION,
        build: BUILD.to_owned(),
        ports: PortCounts::of(&ports),
        datapaths: datapaths(&ports),
        faults: ports
            .iter()
            .flat_map(|port| port.faults.iter().map(|fault| format!("{}: {fault}", port.ifname)))
            .collect(),
    })
}

async fn port_views(dataplane: &Dataplane) -> Result<Vec<PortView>> {
    let netlink = Netlink::open()?;
    let links = netlink.list().await?;
    let members = dataplane.members()?;
    // After the links: what is there now was there when they were listed.
    let links =
        members.iter().map(|member| link_of(dataplane, member, &links)).collect::<Result<Vec<_>>>()?;
    let intent = dataplane.intent()?;
    let faults = all_faults(dataplane, &netlink, &intent, &members, &links).await;
    let filters = dataplane.ledger.filters()?;
    let mut ports: HashMap<String, PortConfig> =
        intent.ports.into_iter().map(|port| (port.ifname.clone(), port)).collect();
    let members = members.iter().zip(links).zip(faults);
    let views = members.filter_map(|((member, link), faults)| {
        // One that comes or goes at this moment is in one and not in the other.
        let port = ports.remove(&member.ifname())?;
        let PortConfig { ifname, role, mode, flags, source, mut mac, .. } = port;
        if mac.is_empty() && link.is_some() && member.record.station != [0; 6] {
            mac.push(MacAddr(member.record.station));
        }
        let state = match link {
            None => PortState::Missing,
            Some(link) if !link.up || !link.carrier => PortState::Down,
            Some(_) if !faults.is_empty() => PortState::Degraded,
            Some(_) => PortState::Forwarding,
        };
        let datapath = link.map(|_| state::datapath(member.record.active));
        let filters = filters.iter().filter(|filter| filter.slot == member.slot);
        Some(PortView {
            ifname,
            ifindex: link.map(|link| link.ifindex),
            role,
            mode,
            state,
            datapath,
            mac,
            source,
            flags,
            promisc: link.is_some() && Undo(member.record.undo).contains(Action::PromiscOn),
            filters: filters.map(|filter| filter.mac).collect(),
            notes: notes(member),
            faults,
        })
    });
    Ok(views.collect())
}

/// The port's interface: what only has its index is a stranger.
fn link_of<'a>(dataplane: &Dataplane, member: &Member, links: &'a [Link]) -> Result<Option<&'a Link>> {
    let there = member.is_present() && dataplane.is_there(member.slot)?;
    Ok(links.iter().find(|link| there && link.ifindex == member.port.ifindex))
}

/// The faults of each port, in words. One that cannot be looked at is one, too.
async fn all_faults(
    dataplane: &Dataplane,
    netlink: &Netlink,
    intent: &SwitchConfig,
    members: &[Member],
    links: &[Option<&Link>],
) -> Vec<Vec<String>> {
    let promiscuous = nics::promiscuous(intent, members);
    let mut all = Vec::new();
    for (member, link) in members.iter().zip(links) {
        let found = match link {
            Some(link) => faults::find(dataplane, netlink, member, link, promiscuous, &mut None).await,
            None => Ok(Vec::new()),
        };
        all.push(match found {
            Ok(faults) => faults.iter().map(ToString::to_string).collect(),
            Err(err) => vec![in_words(&err)],
        });
    }
    all
}

fn notes(member: &Member) -> Vec<String> {
    let mut notes = Vec::new();
    let changed = Undo(member.record.undo);
    let actions: Vec<_> = changed.actions().map(Action::as_str).collect();
    if !actions.is_empty() {
        notes.push(format!("made ready: {}", actions.join(", ")));
    }
    if member.port.flags & port_flags::PEER != 0 {
        notes.push("delivers to its peer directly".to_owned());
    }
    notes
}
