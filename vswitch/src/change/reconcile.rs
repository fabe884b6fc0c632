//! How does a switch become what it shall be? The one way for every command, for recovery and for the controller: ports that
//! are wanted no longer part, those that are wanted and are not there join, and the tables follow from the intent and from what
//! the interfaces are. Compared is with what is there; what is as it should be is not touched.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, Result, bail};
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, MAX_PORTS, Port, fdb_flags, port_flags},
    frame::MacAddr,
};

use super::{
    compile::{Observed, Seen, compile},
    diff::diff,
    interface,
    lifecycle::{self, Ready},
    nics,
};
use crate::{
    config::{Datapath, FarEnd, Mode, PortConfig, Role, StaticEntry, SwitchConfig},
    dataplane::{
        Dataplane, await_programs,
        image::{Image, Write},
        ledger::{PortRecord, record_flags},
        state::{self, Member},
    },
    failure::{in_words, with_undo},
    net::{Link, Netlink},
};

/// From so many interfaces on, one list of all costs less than to ask for each.
const MANY: usize = 32;

/// So many ports join at a time: the tables are written once for all of them.
const TOGETHER: usize = 32;

/// What happens if a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Nothing more is done: the caller takes back what was.
    Whole,
    /// The others are done all the same: there is nobody after this to do them. A port whose interface cannot be attached to
    /// stays without.
    AsFarAsPossible,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What the user should know.
    pub(super) notes: Vec<String>,
    /// What interfaces are not again that they were before: there is no use in trying once more.
    pub(super) left: Vec<String>,
    /// What failed and may be tried again.
    pub(super) failed: Vec<String>,
}

/// Makes the switch, which has been `from`, what `to` says. With `again`, it is also looked at what was done before.
pub(super) async fn reconcile(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    [from, to]: [&SwitchConfig; 2],
    manner: Manner,
    again: bool,
) -> Result<Outcome> {
    let mut work = Work::new(dataplane, netlink, to, manner)?;
    work.forgive_moves(from);
    let (kept, parting): (Vec<_>, Vec<_>) =
        work.dataplane.members()?.into_iter().partition(|member| stays(member, &work.wanted));
    work.observe(from, &kept, again).await?;
    if !parting.is_empty() {
        work.part(&parting).await?;
    }
    work.readdress(&kept).await?;
    let kept: HashSet<String> = kept.iter().map(Member::ifname).collect();
    let mut coming: Vec<&PortConfig> = to.ports.iter().filter(|port| !kept.contains(&port.ifname)).collect();
    coming.sort_by_key(|port| port.role != Role::Uplink);
    for group in coming.chunks(TOGETHER) {
        work.join(group).await?;
    }
    let image = work.tables()?;
    let settled = nics::settle(work.dataplane, netlink, &image, again).await;
    work.check(settled)?;
    Ok(work.outcome)
}

/// Fails if the switch cannot be what `to` says, as far as that can be told without touching anything. `name` is a switch
/// that is not there yet, where there is no `dataplane`.
pub(super) async fn possible(
    dataplane: Option<&mut Dataplane>,
    netlink: &Netlink,
    [from, to]: [&SwitchConfig; 2],
) -> Result<()> {
    let mut own = Vec::new();
    let mut observed = Observed::default();
    if let Some(dataplane) = dataplane {
        own = lifecycle::own_programs(dataplane);
        let mut work = Work::new(dataplane, netlink, to, Manner::Whole)?;
        let mut kept = work.dataplane.members()?;
        kept.retain(|member| stays(member, &work.wanted));
        work.observe(from, &kept, false).await?;
        observed = work.observed;
    }
    let coming: Vec<_> = to.ports.iter().filter(|port| !observed.ports.contains_key(&port.ifname)).collect();
    if to.ports.len() >= MAX_PORTS as usize {
        bail!(r#"switch "{}": all {} ports are in use"#, to.name, MAX_PORTS - 1);
    }
    // Slots that no port has.
    for (slot, port) in (MAX_PORTS as u16..).zip(coming) {
        let link = lifecycle::possible(&to.name, &own, netlink, port).await?;
        let mut seen = Seen { slot, ..Seen::default() };
        if let Some(link) = &link {
            seen.ifindex = link.ifindex;
            look(&mut seen, link);
        }
        observed.ports.insert(port.ifname.clone(), seen);
    }
    compile(to, &observed)?;
    Ok(())
}

/// A port's interface is gone, or is somebody else's: the port stays, without. With `keep`, the interface lives on elsewhere.
pub(crate) async fn detach(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    intent: &SwitchConfig,
    member: &Member,
    keep: bool,
) -> Result<Vec<String>> {
    let mut work = Work::follow(dataplane, netlink, intent).await?;
    work.detach(member, keep).await?;
    let image = work.tables()?;
    nics::settle(work.dataplane, netlink, &image, false).await?;
    Ok(work.outcome.left)
}

/// An interface of a port's name is there: the port's. If that fails, the port stays without. Returns what the user should
/// know.
pub(crate) async fn attach(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    intent: &SwitchConfig,
    member: &Member,
) -> Result<Vec<String>> {
    let mut work = Work::follow(dataplane, netlink, intent).await?;
    let ready = lifecycle::ready(work.dataplane, netlink, member).await;
    let attached = match ready {
        Ok(ready) => work.attach(vec![ready]).await,
        Err(err) => Err(err),
    };
    match attached {
        Ok(()) => Ok(work.outcome.notes),
        Err(err) => {
            let undone = async {
                let member = work.dataplane.member_at(member.slot)?;
                work.detach(&member, false).await?;
                let image = work.tables()?;
                nics::settle(work.dataplane, netlink, &image, false).await?;
                Ok(work.outcome.left)
            };
            Err(with_undo(err, undone.await))
        }
    }
}

/// The interfaces of ports may have changed: tables and NICs follow. With `again`, as [`reconcile`]'s.
pub(crate) async fn follow(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    intent: &SwitchConfig,
    links: &[Link],
    again: bool,
) -> Result<()> {
    let mut work = Work::follow(dataplane, netlink, intent).await?;
    work.look(links)?;
    let image = work.tables()?;
    nics::settle(work.dataplane, netlink, &image, again).await
}

/// Makes the tables of a switch whose ports are as `members` say, wherever that is known from.
pub(crate) fn make_tables(
    dataplane: &mut Dataplane,
    intent: &SwitchConfig,
    members: &[Member],
) -> Result<()> {
    let image = dataplane.image()?;
    let mut observed = Observed { clock: dataplane.clock(), ..Observed::default() };
    let locals = locals(&image);
    observed.ports.extend(members.iter().map(|member| (member.ifname(), seen(member, &locals))));
    let target = compile(intent, &observed)?;
    diff(&image, &target).iter().try_for_each(|write| dataplane.write(write))
}

/// The hosts' own addresses, by uplink.
fn locals(image: &Image) -> HashMap<u16, MacAddr> {
    let locals = image.fdb.iter().filter(|(_, bound)| bound.is_local());
    locals.map(|(key, bound)| (bound.slot, key.mac)).collect()
}

/// Whether the tables have something else of an interface than there is to see now.
pub(crate) fn is_changed(dataplane: &Dataplane, member: &Member, link: &Link) -> Result<bool> {
    let direct = member.port.flags & port_flags::PEER != 0;
    let own = FdbKey { mac: MacAddr(link.mac), vlan: 0 };
    let is_local = |entry: FdbEntry| entry.slot() == member.slot && entry.flags() == fdb_flags::LOCAL;
    Ok(member.port.mtu != link.mtu
        || direct != lifecycle::peer_is_elsewhere(link)
        || member.is_uplink() && !dataplane.fdb_entry(own)?.is_some_and(is_local))
}

/// Whether a port is one of those that are wanted, and can become all that is wanted of it while it is one.
fn stays(member: &Member, wanted: &HashMap<&str, &PortConfig>) -> bool {
    let record = &member.record;
    let made = |flag| record.flags & flag != 0;
    let Some(port) = wanted.get(member.ifname().as_str()) else { return false };
    let far_end = match &port.far_end {
        FarEnd::Existing => !made(record_flags::CREATED_VETH) && !made(record_flags::CREATED_TAP),
        FarEnd::Tap => made(record_flags::CREATED_TAP),
        FarEnd::Veth { netns, peer } => {
            made(record_flags::CREATED_VETH)
                && state::text(&record.netns) == *netns
                && state::text(&record.peer) == *peer
        }
    };
    far_end
        && !made(record_flags::PENDING)
        && member.role() == port.role
        && state::datapath(record.datapath) == port.datapath
}

/// What is known of a port without asking for its interface.
fn seen(member: &Member, locals: &HashMap<u16, MacAddr>) -> Seen {
    let Member { slot, record, port } = *member;
    let local = locals.get(&slot).copied();
    Seen {
        slot,
        ifindex: port.ifindex,
        mtu: port.mtu,
        mac: local.unwrap_or_default(),
        before: local,
        station: Some(MacAddr(record.station)).filter(|mac| *mac != MacAddr::default()),
        xdp: port.flags & port_flags::XDP != 0,
        direct: port.flags & port_flags::PEER != 0,
    }
}

/// What there is to see of an interface now.
fn look(seen: &mut Seen, link: &Link) {
    if seen.ifindex == link.ifindex {
        seen.mtu = link.mtu;
        seen.mac = MacAddr(link.mac);
        seen.direct = lifecycle::peer_is_elsewhere(link);
    }
}

fn by_name(config: &SwitchConfig) -> HashMap<&str, &PortConfig> {
    config.ports.iter().map(|port| (port.ifname.as_str(), port)).collect()
}

struct Work<'a> {
    dataplane: &'a mut Dataplane,
    netlink: &'a Netlink,
    to: &'a SwitchConfig,
    /// Its ports, by name.
    wanted: HashMap<&'a str, &'a PortConfig>,
    manner: Manner,
    /// The tables as they are.
    image: Image,
    /// The ports as they are.
    observed: Observed,
    /// What is left in the tables of ports that part.
    parted: BTreeMap<u16, Port>,
    outcome: Outcome,
}

impl<'a> Work<'a> {
    fn new(
        dataplane: &'a mut Dataplane,
        netlink: &'a Netlink,
        to: &'a SwitchConfig,
        manner: Manner,
    ) -> Result<Self> {
        let image = dataplane.image()?;
        let observed = Observed { clock: dataplane.clock(), ..Observed::default() };
        let (parted, outcome) = (BTreeMap::new(), Outcome::default());
        let wanted = by_name(to);
        Ok(Self { dataplane, netlink, to, wanted, manner, image, observed, parted, outcome })
    }

    /// Where the intent stays what it is.
    async fn follow(
        dataplane: &'a mut Dataplane,
        netlink: &'a Netlink,
        intent: &'a SwitchConfig,
    ) -> Result<Self> {
        let mut work = Self::new(dataplane, netlink, intent, Manner::Whole)?;
        work.forgive_moves(intent);
        let mut members = work.dataplane.members()?;
        members.retain(|member| work.wanted.contains_key(member.ifname().as_str()));
        work.observe(intent, &members, false).await?;
        Ok(work)
    }

    /// A failure ends the work, or does not.
    fn check<T: Default>(&mut self, done: Result<T>) -> Result<T> {
        match done {
            Err(err) if self.manner == Manner::AsFarAsPossible => {
                self.outcome.failed.push(in_words(&err));
                Ok(T::default())
            }
            done => done,
        }
    }

    /// An entry that the user has bound goes with its station to another port, as the bridge's. It may stay there while the
    /// user wants nothing else of it.
    fn forgive_moves(&mut self, from: &SwitchConfig) {
        let before: HashSet<&StaticEntry> = from.fdb.iter().collect();
        let slots = self.dataplane.ledger.records().unwrap_or_default();
        let slots: HashMap<String, u16> =
            slots.iter().map(|(slot, record)| (state::text(&record.ifname), *slot)).collect();
        let here: HashSet<u16> =
            self.to.ports.iter().filter_map(|port| slots.get(&port.ifname)).copied().collect();
        for entry in self.to.fdb.iter().filter(|entry| before.contains(entry)) {
            let key = FdbKey { mac: entry.mac, vlan: entry.vlan };
            let (Some(bound), Some(slot)) = (self.image.fdb.get_mut(&key), slots.get(&entry.ifname)) else {
                continue;
            };
            if here.contains(&bound.slot) && bound.flags == fdb_flags::STATIC {
                bound.slot = *slot;
            }
        }
    }

    /// Looks at the ports that stay: at the interfaces of those that change, and of uplinks.
    async fn observe(&mut self, from: &SwitchConfig, kept: &[Member], all: bool) -> Result<()> {
        let locals = locals(&self.image);
        let before = by_name(from);
        let mut looked = Vec::new();
        for member in kept {
            let ifname = member.ifname();
            self.observed.ports.insert(ifname.clone(), seen(member, &locals));
            let changes = before.get(ifname.as_str()) != self.wanted.get(ifname.as_str());
            if member.is_present() && (all || changes || member.is_uplink()) {
                looked.push(member);
            }
            let had = before.get(ifname.as_str()).is_some_and(|port| !port.mac.is_empty());
            let has = self.wanted.get(ifname.as_str()).is_some_and(|port| !port.mac.is_empty());
            if had && !has {
                // From then on it is known by the address that it has.
                let station = lifecycle::station(self.dataplane, self.netlink, member).await?;
                if let Some(seen) = self.observed.ports.get_mut(&ifname) {
                    seen.station = station;
                }
            }
        }
        if looked.len() > MANY {
            let links = self.netlink.list().await?;
            return self.look(&links);
        }
        for member in looked {
            if let Some(link) =
                interface::of(self.dataplane, self.netlink, member.slot, &member.record).await?
            {
                self.look(&[link])?;
            }
        }
        Ok(())
    }

    /// What there is to see of interfaces that are ports' and there.
    fn look(&mut self, links: &[Link]) -> Result<()> {
        let mut ports: HashMap<u32, &mut Seen> =
            self.observed.ports.values_mut().map(|seen| (seen.ifindex, seen)).collect();
        for link in links {
            if let Some(seen) = ports.get_mut(&link.ifindex)
                && self.dataplane.is_there(seen.slot)?
            {
                look(seen, link);
            }
        }
        Ok(())
    }

    /// Brings the tables in line with the intent and what was observed. Returns what they are then.
    fn tables(&mut self) -> Result<Image> {
        let mut image = compile(self.to, &self.observed)?;
        for (slot, port) in &self.parted {
            image.ports.insert(*slot, *port);
        }
        let mut whole = true;
        for write in diff(&self.image, &image) {
            let done = self.dataplane.write(&write);
            whole &= done.is_ok();
            self.check(done)?;
        }
        let ages = |(key, slot): &(_, u16)| image.is_present(*slot) && !image.fdb.contains_key(key);
        let learned = self.image.learned.iter().copied().filter(ages).collect();
        self.image = if whole { Image { learned, ..image.clone() } } else { self.dataplane.image()? };
        Ok(image)
    }

    /// Ports go, with the interfaces that vswitch made for them.
    async fn part(&mut self, members: &[Member]) -> Result<()> {
        let (mut made, mut there) = (Vec::new(), Vec::new());
        for member in members {
            let mine = interface::made(self.dataplane, self.netlink, member).await;
            made.extend(self.check(mine)?);
            let flags = member.record.flags | record_flags::PENDING;
            self.dataplane.ledger.set_record(member.slot, PortRecord { flags, ..member.record })?;
            let unhooked = lifecycle::unhook(self.dataplane, self.netlink, member).await;
            there.push(self.check(unhooked)?);
            self.observed.ports.remove(&member.ifname());
            self.parted.insert(member.slot, Port { ifindex: 0, ..member.port });
        }
        self.tables()?;
        for (member, there) in members.iter().zip(there) {
            self.dataplane.clear_xdp(member.slot)?;
            let left = lifecycle::restore(self.dataplane, self.netlink, member.slot, there, false).await;
            let left = self.check(left)?;
            self.outcome.left.extend(left);
            self.dataplane.clear_present(member.slot)?;
        }
        let deleted = self.netlink.delete_all(&made).await;
        self.check(deleted)?;
        if made.is_empty() {
            // A program that has decided for a slot must not find the next port there. To delete an interface is to wait for
            // them, too (unregister_netdevice_many_notify, net/core/dev.c).
            await_programs().context("wait for the programs that run")?;
        }
        for member in members {
            self.parted.remove(&member.slot);
            self.dataplane.write(&Write::Port(member.slot, Port::default()))?;
            self.image.ports.remove(&member.slot);
            self.dataplane.ledger.clear_record(member.slot)?;
        }
        Ok(())
    }

    /// The far ends that vswitch made have the addresses that the user has given their ports.
    async fn readdress(&mut self, kept: &[Member]) -> Result<()> {
        for member in kept {
            let ifname = member.ifname();
            let first = self.wanted.get(ifname.as_str()).and_then(|port| port.mac.first());
            let done = if let Some(mac) = first {
                lifecycle::readdress(self.dataplane, self.netlink, member, *mac).await
            } else {
                let station = self.observed.ports.get(&ifname).and_then(|seen| seen.station);
                lifecycle::note_station(self.dataplane, member, station)
            };
            self.check(done)?;
        }
        Ok(())
    }

    /// Ports come, and their interfaces if vswitch makes them.
    async fn join(&mut self, ports: &[&PortConfig]) -> Result<()> {
        let mut free = self.free_slots()?;
        let (mut all, mut slots) = (Vec::new(), Vec::new());
        for port in ports {
            let Some(slot) = free.next() else {
                bail!(r#"switch "{}": all {} ports are in use"#, self.to.name, MAX_PORTS - 1);
            };
            let record = state::new_record(port)?;
            let record = PortRecord { flags: record.flags | record_flags::PENDING, ..record };
            // Before the interface: it has no other mark by which `down` would know after a crash that it is ours to delete.
            self.dataplane.ledger.set_record(slot, record)?;
            self.dataplane.clear_counters(slot)?;
            if let Err(err) = interface::make(self.netlink, &self.dataplane.name, port).await {
                // What has its name is not its interface. Where all is done that can be, whoever comes next tries again.
                self.dataplane.ledger.clear_record(slot)?;
                self.check::<()>(Err(err))?;
                continue;
            }
            slots.push(slot);
            self.observed.ports.insert(port.ifname.clone(), Seen { slot, ..Seen::default() });
            let member = self.dataplane.member_at(slot)?;
            match lifecycle::ready(self.dataplane, self.netlink, &member).await {
                Ok(ready) => all.push(ready),
                Err(err) => self.leave_out(slot, err).await?,
            }
        }
        self.attach(all).await?;
        for port in ports.iter().filter(|port| port.mode == Mode::Passthru) {
            self.outcome.notes.push(format!(
                "{}: has every unicast frame that the uplink receives: nobody outside reaches this machine there",
                port.ifname
            ));
        }
        for slot in slots {
            let record = self.dataplane.ledger.record(slot)?;
            let flags = record.flags & !record_flags::PENDING;
            self.dataplane.ledger.set_record(slot, PortRecord { flags, ..record })?;
        }
        Ok(())
    }

    /// Interfaces that are ready are attached to, after the tables know them.
    async fn attach(&mut self, all: Vec<Ready>) -> Result<()> {
        for ready in &all {
            let station = Some(MacAddr(self.dataplane.ledger.record(ready.slot)?.station));
            let fresh = Seen {
                slot: ready.slot,
                ifindex: ready.link.ifindex,
                station: station.filter(|mac| *mac != MacAddr::default()),
                xdp: ready.datapath == Datapath::Xdp,
                ..Seen::default()
            };
            let member = self.dataplane.member_at(ready.slot)?;
            let seen = self.observed.ports.entry(member.ifname()).or_default();
            *seen = fresh;
            look(seen, &ready.link);
        }
        let image = self.tables()?;
        let settled = nics::settle(self.dataplane, self.netlink, &image, false).await;
        self.check(settled)?;
        for mut ready in all {
            let member = self.dataplane.member_at(ready.slot)?;
            match lifecycle::attach(self.dataplane, &mut ready, member.role()) {
                Ok(false) => {}
                Ok(true) => {
                    if let Some(seen) = self.observed.ports.get_mut(&member.ifname()) {
                        seen.xdp = false;
                    }
                    self.tables()?;
                }
                Err(err) => self.leave_out(ready.slot, err).await?,
            }
            self.outcome.notes.append(&mut ready.notes);
        }
        Ok(())
    }

    /// A port that cannot have its interface stays without, if all shall be done that can be.
    async fn leave_out(&mut self, slot: u16, err: anyhow::Error) -> Result<()> {
        if self.manner == Manner::Whole {
            return Err(err);
        }
        self.outcome.left.push(in_words(&err));
        let member = self.dataplane.member_at(slot)?;
        let done = self.detach(&member, false).await;
        self.check(done)
    }

    async fn detach(&mut self, member: &Member, keep: bool) -> Result<()> {
        let there = lifecycle::unhook(self.dataplane, self.netlink, member).await?;
        if let Some(seen) = self.observed.ports.get_mut(&member.ifname()) {
            seen.ifindex = 0;
        }
        self.tables()?;
        self.dataplane.clear_xdp(member.slot)?;
        let left = lifecycle::restore(self.dataplane, self.netlink, member.slot, there, keep).await?;
        self.outcome.left.extend(left);
        self.dataplane.clear_present(member.slot)
    }

    fn free_slots(&self) -> Result<impl Iterator<Item = u16> + use<>> {
        let used: BTreeSet<u16> =
            self.dataplane.ledger.records()?.into_iter().map(|(slot, _)| slot).collect();
        Ok((1..MAX_PORTS as u16).filter(move |slot| !used.contains(slot)))
    }
}
