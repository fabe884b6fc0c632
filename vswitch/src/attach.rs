//! How does an interface become a port, and how does it stop being one?
//!
//! First the record, so that a crash leaves word of what was changed; then tables; then links, when frames begin to flow.

use anyhow::{Context as _, Result, bail};
use vswitch_ebpf::{
    abi::{Port, PortRecord, port_flags, record_flags},
    frame::MacAddr,
};

use crate::{
    addresses,
    config::{Datapath, FarEnd, Mode, PortConfig, Role},
    dataplane::{
        Access, Dataplane, await_programs, links,
        links::{CLSACT_HANDLE, CLSACT_PRIORITY, Hook},
        pins::Pins,
        state::{self, EntryKind, Member, entry_kind},
    },
    failure::{in_words, with_undo},
    interface,
    net::{Link, LinkKind, Netlink, Netns, Target, Undo, readiness},
    uplink,
};

/// Adds a port, making its interface if it is one that vswitch makes. Nothing is left if it fails.
///
/// Returns what the user should know.
pub(crate) async fn add(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    config: &PortConfig,
) -> Result<Vec<String>> {
    possible(&dataplane.name, &own_programs(dataplane), netlink, config).await?;
    for mac in &config.mac {
        addresses::unclaimed(dataplane, *mac, None)?;
    }
    let slot = dataplane.free_slot()?;
    let mut record = state::new_record(config)?;
    record.flags |= record_flags::PENDING;
    // Before the interface: it has no other mark by which `down` would know after a crash that it is ours to delete.
    dataplane.maps.set_record(slot, record)?;
    if let Err(err) = interface::make(netlink, &dataplane.name, config).await {
        let freed = dataplane.maps.set_record(slot, bytemuck::Zeroable::zeroed());
        return Err(with_undo(err, freed.map(|()| Vec::new())));
    }
    let port = Port { flags: state::flags(config), mode: state::mode_number(config.mode), ..Port::default() };
    let added = async {
        dataplane.maps.clear_counters(slot)?;
        dataplane.look_for(&Member { slot, record, port })?;
        dataplane.maps.set_port(slot, port)?;
        for mac in &config.mac {
            addresses::bind(dataplane, *mac, slot, 0)?;
        }
        dataplane.set_sources(slot, &config.source)?;
        let member = dataplane.member_at(slot)?;
        let notes = attach(dataplane, netlink, &member).await?;
        let PortRecord { flags, .. } = record;
        let record = dataplane.maps.record(slot)?;
        dataplane.maps.set_record(slot, PortRecord { flags: flags & !record_flags::PENDING, ..record })?;
        Ok(notes)
    }
    .await;
    match added {
        Ok(mut notes) => {
            if config.mode == Mode::Passthru {
                notes.push(format!(
                    "{}: has every unicast frame that the uplink receives: nobody outside reaches this machine there",
                    config.ifname
                ));
            }
            Ok(notes)
        }
        Err(err) => {
            let member = Member { slot, record: dataplane.maps.record(slot).unwrap_or(record), port };
            let undone = remove(dataplane, netlink, &member).await;
            Err(with_undo(err, undone))
        }
    }
}

/// Fails if an interface cannot become a port of the switch `name`, as far as that can be told without touching it.
/// `own` are the switch's XDP programs.
pub(crate) async fn possible(name: &str, own: &[u32], netlink: &Netlink, config: &PortConfig) -> Result<()> {
    let ifname = &config.ifname;
    match &config.far_end {
        FarEnd::Existing => {
            let (facts, _) = netlink.facts(ifname, None).await?;
            let called = &facts.link.ifname;
            if called != ifname {
                bail!(r#""{ifname}": is another name of interface "{called}": use that"#);
            }
            not_of_another_switch(name, &facts.link)?;
            readiness(&facts, config.datapath, config.role, own)?;
        }
        FarEnd::Veth { netns, .. } => {
            interface::vacant(netlink, ifname).await?;
            Netns::open(netns).with_context(|| format!(r#""{ifname}""#))?;
        }
        FarEnd::Tap => interface::vacant(netlink, ifname).await?,
    }
    Ok(())
}

/// The XDP programs by which the switch's own ports are told from others'.
pub(crate) fn own_programs(dataplane: &Dataplane) -> Vec<u32> {
    dataplane.xdp_program_id().into_iter().collect()
}

/// Removes a port, and its interface if vswitch made it. Returns what could not be put back as it was, which nobody can
/// later either.
pub(crate) async fn remove(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    member: &Member,
) -> Result<Vec<String>> {
    let slot = member.slot;
    let made = interface::made(dataplane, netlink, member).await?;
    let flags = member.record.flags | record_flags::PENDING;
    let member = &Member { record: PortRecord { flags, ..member.record }, ..*member };
    dataplane.maps.set_record(slot, member.record)?;
    let left = detach(dataplane, netlink, member).await?;
    addresses::release(dataplane, netlink, |_, entry| entry.slot() == slot).await?;
    dataplane.set_sources(slot, &[])?;
    netlink.delete_all(made.as_slice()).await?;
    if made.is_none() {
        // A program that has decided for the slot must not find the next port there. To delete an interface is to wait for
        // them, too (unregister_netdevice_many_notify, net/core/dev.c).
        await_programs().context("wait for the programs that run")?;
    }
    dataplane.maps.set_port(slot, Port::default())?;
    dataplane.maps.set_record(slot, bytemuck::Zeroable::zeroed())?;
    dataplane.refresh_settings()?;
    uplink::refresh(dataplane, netlink).await?;
    Ok(left)
}

/// Removes what a port has outside the maps, which may be damaged: programs, and what made it ready.
pub(crate) async fn salvage(pins: &Pins, netlink: &Netlink, slot: u16, record: &PortRecord) -> Result<()> {
    let there = unhook(pins, netlink, slot, record).await?;
    revert(netlink, there, record).await
}

/// Takes the programs off a port's interface. Returns it, if it is still there.
async fn unhook(pins: &Pins, netlink: &Netlink, slot: u16, record: &PortRecord) -> Result<Option<Link>> {
    let there = interface::of(pins, netlink, slot, record).await?;
    let ifname = there.as_ref().map(|link| link.ifname.as_str());
    for hook in [Hook::Xdp, Hook::In, Hook::Out] {
        links::detach(pins, slot, ifname, hook)?;
    }
    Ok(there)
}

/// Takes the clsact filters that run the switch's programs off all interfaces: they have no pins, and which were its ports may
/// be lost.
pub(crate) async fn unfilter(pins: &Pins, netlink: &Netlink) -> Result<()> {
    if links::tcx() {
        return Ok(());
    }
    let [received, sent] = [Hook::In, Hook::Out].map(|hook| links::program_id(pins, hook));
    for link in netlink.list().await? {
        let filters = netlink.clsact_filters(&link, CLSACT_PRIORITY, CLSACT_HANDLE.into()).await?;
        for (hook, runs, ours) in [(Hook::In, filters.ingress, received), (Hook::Out, filters.egress, sent)] {
            if runs.is_some() && runs == ours {
                links::unfilter(&link.ifname, hook)?;
            }
        }
    }
    Ok(())
}

/// Undoes what made a port's interface ready. One that vswitch made was nothing before, and goes.
async fn revert(netlink: &Netlink, there: Option<Link>, record: &PortRecord) -> Result<()> {
    let Some(link) = there.filter(|_| interface::created(record).is_none()) else { return Ok(()) };
    let undo = Undo(record.undo);
    let target = if undo.of_far_end() == Undo::default() {
        Target { link, peer: None }
    } else {
        Target::of(netlink, link, Some(&state::text(&record.netns))).await?
    };
    undo.revert(netlink, &target).await
}

/// Changes a live port in place, from what it is to what it shall be. It stays as it is if that fails.
pub(crate) async fn change(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    from: &PortConfig,
    to: &PortConfig,
) -> Result<()> {
    match set(dataplane, netlink, to).await {
        Ok(()) => Ok(()),
        // Such as an FDB that is full of what was learned meanwhile.
        Err(err) => Err(with_undo(err, set(dataplane, netlink, from).await.map(|()| Vec::new()))),
    }
}

async fn set(dataplane: &mut Dataplane, netlink: &Netlink, to: &PortConfig) -> Result<()> {
    let member = dataplane.member(&to.ifname)?;
    addresses::rebind(dataplane, netlink, &member, &to.mac).await?;
    let derived = member.port.flags & (port_flags::XDP | port_flags::PEER | port_flags::DOWN);
    let port = Port { flags: state::flags(to) | derived, mode: state::mode_number(to.mode), ..member.port };
    dataplane.look_for(&Member { port, ..member.clone() })?;
    dataplane.maps.set_port(member.slot, port)?;
    dataplane.set_sources(member.slot, &to.source)?;
    dataplane.refresh_settings()?;
    uplink::refresh(dataplane, netlink).await
}

/// Makes the port's interface ready and attaches the programs to it. If it fails, the port is without interface.
pub(crate) async fn attach(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    member: &Member,
) -> Result<Vec<String>> {
    match try_attach(dataplane, netlink, member).await {
        Ok(notes) => Ok(notes),
        Err(err) => {
            let undone = match dataplane.member_at(member.slot) {
                Ok(member) => detach(dataplane, netlink, &member).await,
                Err(unreadable) => Err(unreadable),
            };
            Err(with_undo(err, undone))
        }
    }
}

async fn try_attach(dataplane: &mut Dataplane, netlink: &Netlink, member: &Member) -> Result<Vec<String>> {
    let ifname = member.ifname();
    let slot = member.slot;
    let role = member.role();
    let wanted = state::datapath(member.record.datapath);
    let (facts, target) = netlink.facts(&ifname, member.netns().as_deref()).await?;
    let link = &facts.link;
    if let Some(other) = dataplane.member_of(link.ifindex)?.filter(|other| other.slot != slot) {
        let other = other.ifname();
        bail!(r#""{ifname}": is port {other} already: remove that one first (vswitch port del {other})"#);
    }
    let ready = readiness(&facts, wanted, role, &own_programs(dataplane))?;

    let mut undo = Undo(member.record.undo);
    for action in &ready.actions {
        undo.insert(*action);
    }
    // First of all, since what is undone is undone to an interface that is there.
    dataplane.maps.set_present(slot, link.ifindex)?;
    let record = PortRecord {
        undo: undo.0,
        ifindex: link.ifindex,
        active: state::datapath_number(Some(ready.datapath)),
        ..member.record
    };
    dataplane.maps.set_record(slot, record)?;
    for action in &ready.actions {
        action.apply(netlink, &target).await?;
    }

    let peer = facts.peer.as_ref().map(|peer| MacAddr(peer.link.mac));
    addresses::bind_own(dataplane, slot, role, &member.record, link, peer)?;
    if role == Role::Uplink {
        uplink::make_way(dataplane, netlink).await?;
    }
    let mut flags = member.port.flags & !(port_flags::XDP | port_flags::PEER | port_flags::DOWN);
    if ready.datapath == Datapath::Xdp {
        dataplane.maps.set_devmap(slot, link.ifindex)?;
        flags |= port_flags::XDP;
    }
    if peer_is_elsewhere(link) {
        flags |= port_flags::PEER;
    }
    dataplane.maps.set_port(slot, Port { ifindex: link.ifindex, mtu: link.mtu, flags, ..member.port })?;
    dataplane.maps.set_slot(link.ifindex, slot)?;
    dataplane.refresh_settings()?;

    let mut notes: Vec<_> = ready.notes.into_iter().map(|note| format!("{ifname}: {note}")).collect();
    let xdp = match ready.datapath {
        Datapath::Xdp => Some(Hook::Xdp),
        Datapath::XdpGeneric => Some(Hook::XdpGeneric),
        Datapath::Tc | Datapath::Auto => None,
    };
    links::attach(&dataplane.pins, slot, &ifname, Hook::In)?;
    if role == Role::Uplink {
        links::attach(&dataplane.pins, slot, &ifname, Hook::Out)?;
    }
    if let Some(hook) = xdp
        && let Err(err) = links::attach(&dataplane.pins, slot, &ifname, hook)
    {
        if wanted != Datapath::Auto {
            return Err(err);
        }
        let member = dataplane.member_at(slot)?;
        let port = Port { flags: member.port.flags & !port_flags::XDP, ..member.port };
        dataplane.maps.set_port(slot, port)?;
        dataplane.maps.clear_devmap(slot)?;
        let active = state::datapath_number(Some(Datapath::Tc));
        dataplane.maps.set_record(slot, PortRecord { active, ..member.record })?;
        notes.push(format!("{ifname}: tc, for XDP did not attach ({})", in_words(&err)));
    }
    uplink::refresh(dataplane, netlink).await?;
    Ok(notes)
}

/// Takes the programs off the port's interface and undoes what made it ready. The port remains, without interface. Returns
/// what could not be undone.
pub(crate) async fn detach(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    member: &Member,
) -> Result<Vec<String>> {
    let slot = member.slot;
    let there = unhook(&dataplane.pins, netlink, slot, &member.record).await?;
    dataplane.maps.set_port(slot, Port { ifindex: 0, ..member.port })?;
    dataplane.maps.clear_devmap(slot)?;
    if dataplane.maps.slot_of(member.record.ifindex)? == Some(slot) {
        dataplane.maps.clear_slot(member.record.ifindex)?;
    }
    addresses::release(dataplane, netlink, |_, entry| {
        entry.slot() == slot && !matches!(entry_kind(entry), EntryKind::Static | EntryKind::Known)
    })
    .await?;
    let left = restore(dataplane, netlink, member, there).await?;
    dataplane.maps.clear_present(slot)?;
    dataplane.refresh_settings()?;
    if member.is_uplink() {
        // For the one that stays, if there is one, filters may do now.
        uplink::refresh(dataplane, netlink).await?;
    }
    Ok(left)
}

/// As [`remove`], where the whole switch goes, and its maps with it. The interface stays, for whoever deletes those of all
/// ports at once.
pub(crate) async fn abandon(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    member: &Member,
) -> Result<Vec<String>> {
    let there = unhook(&dataplane.pins, netlink, member.slot, &member.record).await?;
    dataplane.maps.set_port(member.slot, Port { ifindex: 0, ..member.port })?;
    restore(dataplane, netlink, member, there).await
}

/// Makes the interface what it was before it was a port, and lets the record say so. Returns what could not be: there is no
/// use in trying again.
async fn restore(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    member: &Member,
    there: Option<Link>,
) -> Result<Vec<String>> {
    if member.is_uplink() {
        uplink::release(dataplane, netlink, there.as_ref()).await?;
    }
    let reverted = revert(netlink, there, &member.record).await;
    let record = PortRecord { undo: 0, ifindex: 0, active: 0, ..member.record };
    dataplane.maps.set_record(member.slot, record)?;
    Ok(reverted.err().map(|err| in_words(&err)).into_iter().collect())
}

/// Whether frames may be handed to the far end directly: only if it is in another namespace, the kernel drops them else.
pub(crate) fn peer_is_elsewhere(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Veth | LinkKind::Netkit)
        && link.peer.is_some_and(|peer| peer.netnsid.is_some())
}

/// Fails if an interface is a port of a switch other than `this`. By name too: one that is missing is a port again as soon
/// as it is back.
pub(crate) fn not_of_another_switch(this: &str, link: &Link) -> Result<()> {
    let ifname = &link.ifname;
    for name in Pins::switches() {
        if name == this {
            continue;
        }
        // One that cannot be opened is half made, another build's, or in another namespace.
        let Ok(other) = Dataplane::open_any(&name, Access::Write) else { continue };
        let by_index = other.member_of(link.ifindex)?;
        if let Some(member) = by_index.or_else(|| other.member(ifname).ok()) {
            bail!(
                r#""{ifname}": already a port of switch "{name}": remove it there first (vswitch -s {name} port del {})"#,
                member.ifname()
            );
        }
    }
    Ok(())
}
