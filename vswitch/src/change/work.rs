//! What has to be done of a reconciliation, step by step, and what is known meanwhile: the tables as they are, the ports as they
//! are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    mem,
};

use anyhow::{Context as _, Result, bail};
use vswitch_ebpf::{
    abi::{FdbKey, MAX_PORTS, Port, fdb_flags, port_flags},
    frame::MacAddr,
};

use super::{
    compile::{Observed, Seen, compile},
    diff::diff,
    interface,
    lifecycle::{self, Ready},
    nics,
    reconcile::{Manner, Outcome},
};
use crate::{
    config::{Datapath, FarEnd, Mode, PortConfig, StaticEntry, SwitchConfig},
    dataplane::{
        Dataplane, await_programs,
        image::{Image, Nic, Write},
        ledger::{PortRecord, record_flags},
        state::{self, Member},
    },
    failure::in_words,
    net::{Link, Netlink},
};

/// From so many interfaces on, one list of all costs less than to ask for each.
const MANY: usize = 32;

/// What a switch is at one moment. Whoever has its lock has it changed by nobody else, but for the FDB.
pub(super) struct Known {
    pub(super) image: Image,
    pub(super) members: Vec<Member>,
}

impl Known {
    pub(super) fn read(dataplane: &Dataplane) -> Result<Self> {
        let image = dataplane.image()?;
        let member = |(slot, record)| {
            let port = image.ports.get(&slot).copied().unwrap_or_default();
            Member { slot, record, port }
        };
        let members = dataplane.ledger.records()?.into_iter().map(member).collect();
        Ok(Self { image, members })
    }
}

pub(super) struct Work<'a> {
    pub(super) dataplane: &'a mut Dataplane,
    netlink: &'a Netlink,
    to: &'a SwitchConfig,
    /// Its ports, by name.
    pub(super) wanted: HashMap<&'a str, &'a PortConfig>,
    manner: Manner,
    /// The tables as they are.
    pub(super) image: Image,
    /// The ports as they are.
    pub(super) observed: Observed,
    /// What is left in the tables of ports that part.
    parted: BTreeMap<u16, Port>,
    pub(super) outcome: Outcome,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        dataplane: &'a mut Dataplane,
        netlink: &'a Netlink,
        to: &'a SwitchConfig,
        manner: Manner,
        image: Image,
    ) -> Self {
        let observed = Observed { clock: dataplane.clock(), ..Observed::default() };
        let (parted, outcome) = (BTreeMap::new(), Outcome::default());
        let wanted = by_name(to);
        Self { dataplane, netlink, to, wanted, manner, image, observed, parted, outcome }
    }

    /// Where the intent stays what it is.
    pub(super) async fn follow(
        dataplane: &'a mut Dataplane,
        netlink: &'a Netlink,
        intent: &'a SwitchConfig,
    ) -> Result<Self> {
        let Known { image, mut members } = Known::read(dataplane)?;
        let mut work = Self::new(dataplane, netlink, intent, Manner::Whole, image);
        work.forgive_moves(intent, &members);
        members.retain(|member| work.wanted.contains_key(member.ifname().as_str()));
        work.observe(intent, &members, false).await?;
        Ok(work)
    }

    /// A failure ends the work, or does not.
    pub(super) fn check<T: Default>(&mut self, done: Result<T>) -> Result<T> {
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
    pub(super) fn forgive_moves(&mut self, from: &SwitchConfig, members: &[Member]) {
        if self.to.fdb.is_empty() {
            return;
        }
        let before: HashSet<&StaticEntry> = from.fdb.iter().collect();
        let slots: HashMap<String, u16> =
            members.iter().map(|member| (member.ifname(), member.slot)).collect();
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
    pub(super) async fn observe(&mut self, from: &SwitchConfig, kept: &[Member], all: bool) -> Result<()> {
        let locals = locals(&self.image);
        let before = by_name(from);
        let mut looked = Vec::new();
        self.observed.ports.reserve(self.to.ports.len());
        for member in kept {
            let (ifname, mut seen) = (member.ifname(), seen(member, &locals));
            let (was, shall) = (before.get(ifname.as_str()), self.wanted.get(ifname.as_str()));
            if member.is_present() && (all || was != shall || member.is_uplink()) {
                looked.push(member);
            }
            let has_mac = |port: Option<&&PortConfig>| port.is_some_and(|port| !port.mac.is_empty());
            if has_mac(was) && !has_mac(shall) {
                // From then on it is known by the address that it has.
                seen.station = lifecycle::station(self.dataplane, self.netlink, member).await?;
            }
            self.observed.ports.insert(ifname, seen);
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
    pub(super) fn look(&mut self, links: &[Link]) -> Result<()> {
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

    /// Brings the tables in line with the intent and what was observed. Returns what follows for the uplinks' NICs.
    pub(super) fn tables(&mut self) -> Result<BTreeMap<u16, Nic>> {
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
        let nics = mem::take(&mut image.nics);
        if whole {
            let mut learned = mem::take(&mut self.image.learned);
            learned.retain(|(key, slot)| image.is_present(*slot) && !image.fdb.contains_key(key));
            self.image = Image { learned, ..image };
        } else {
            self.image = self.dataplane.image()?;
        }
        Ok(nics)
    }

    /// Ports go, with the interfaces that vswitch made for them.
    pub(super) async fn part(&mut self, members: &[Member]) -> Result<()> {
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
        // Up to now their frames have taught: what they did goes with them.
        let mut now = Image::default();
        self.dataplane.read_fdb(&mut now)?;
        self.image.learned = now.learned;
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
    pub(super) async fn readdress(&mut self, kept: &[Member]) -> Result<()> {
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
    pub(super) async fn join(&mut self, ports: &[&PortConfig]) -> Result<()> {
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
    pub(super) async fn attach(&mut self, all: Vec<Ready>) -> Result<()> {
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
        let nics = self.tables()?;
        let settled = nics::settle(self.dataplane, self.netlink, &nics, false).await;
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
    pub(super) async fn leave_out(&mut self, slot: u16, err: anyhow::Error) -> Result<()> {
        if self.manner == Manner::Whole {
            return Err(err);
        }
        self.outcome.left.push(in_words(&err));
        let member = self.dataplane.member_at(slot)?;
        let done = self.detach(&member, false).await;
        self.check(done)
    }

    pub(super) async fn detach(&mut self, member: &Member, keep: bool) -> Result<()> {
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

    pub(super) fn free_slots(&self) -> Result<impl Iterator<Item = u16> + use<>> {
        let used: BTreeSet<u16> =
            self.dataplane.ledger.records()?.into_iter().map(|(slot, _)| slot).collect();
        Ok((1..MAX_PORTS as u16).filter(move |slot| !used.contains(slot)))
    }
}

pub(super) fn by_name(config: &SwitchConfig) -> HashMap<&str, &PortConfig> {
    config.ports.iter().map(|port| (port.ifname.as_str(), port)).collect()
}

/// Whether a port is one of those that are wanted, and can become all that is wanted of it while it is one.
pub(super) fn stays(member: &Member, wanted: &HashMap<&str, &PortConfig>) -> bool {
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
pub(super) fn seen(member: &Member, locals: &HashMap<u16, MacAddr>) -> Seen {
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
pub(super) fn look(seen: &mut Seen, link: &Link) {
    if seen.ifindex == link.ifindex {
        seen.mtu = link.mtu;
        seen.mac = MacAddr(link.mac);
        seen.direct = lifecycle::peer_is_elsewhere(link);
    }
}

/// The hosts' own addresses, by uplink.
pub(super) fn locals(image: &Image) -> HashMap<u16, MacAddr> {
    let locals = image.fdb.iter().filter(|(_, bound)| bound.is_local());
    locals.map(|(key, bound)| (bound.slot, key.mac)).collect()
}
