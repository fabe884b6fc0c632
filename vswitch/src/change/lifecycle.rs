//! How does an interface become a port's, and how does it stop being that? The steps, each by itself; `reconcile.rs` says
//! which of them come when.
//!
//! What a step is about to do to the machine is in the ledger first, so that a crash leaves word of it.

use anyhow::{Context as _, Result, bail};
use vswitch_ebpf::frame::MacAddr;

use super::{interface, nics};
use crate::{
    config::{Datapath, FarEnd, PortConfig, Role},
    dataplane::{
        Access, Dataplane,
        ledger::{PortRecord, record_flags},
        links,
        links::{CLSACT_HANDLE, CLSACT_PRIORITY, Hook},
        pins::Pins,
        state::{self, Member},
    },
    failure::in_words,
    net::{Link, LinkKind, Netlink, Netns, Target, Undo, readiness},
};

/// An interface that has been made ready, and is about to be attached to.
pub(super) struct Ready {
    pub(super) slot: u16,
    pub(super) link: Link,
    pub(super) datapath: Datapath,
    /// Whether tc does where the datapath does not.
    automatic: bool,
    pub(super) notes: Vec<String>,
}

/// Fails if an interface cannot become a port of the switch `name`, as far as that can be told without touching it. Returns
/// it, if it is there. `own` are the switch's XDP programs.
pub(super) async fn possible(
    name: &str,
    own: &[u32],
    netlink: &Netlink,
    config: &PortConfig,
) -> Result<Option<Link>> {
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
            return Ok(Some(facts.link));
        }
        FarEnd::Veth { netns, .. } => {
            interface::vacant(netlink, ifname).await?;
            Netns::open(netns).with_context(|| format!(r#""{ifname}""#))?;
        }
        FarEnd::Tap => interface::vacant(netlink, ifname).await?,
    }
    Ok(None)
}

/// The XDP programs by which the switch's own ports are told from others'.
pub(crate) fn own_programs(dataplane: &Dataplane) -> Vec<u32> {
    dataplane.xdp_program_id().into_iter().collect()
}

/// Makes the interface of a port's name ready for it. The record says by then what it takes to undo that.
pub(super) async fn ready(dataplane: &mut Dataplane, netlink: &Netlink, member: &Member) -> Result<Ready> {
    let (ifname, slot) = (member.ifname(), member.slot);
    let wanted = state::datapath(member.record.datapath);
    let (facts, target) = netlink.facts(&ifname, member.netns().as_deref()).await?;
    let link = facts.link.clone();
    if let Some(other) = dataplane.member_of(link.ifindex)?.filter(|other| other.slot != slot) {
        let other = other.ifname();
        bail!(r#""{ifname}": is port {other} already: remove that one first (vswitch port del {other})"#);
    }
    let ready = readiness(&facts, wanted, member.role(), &own_programs(dataplane))?;
    let mut undo = Undo(member.record.undo);
    for action in &ready.actions {
        undo.insert(*action);
    }
    let made = member.record.flags & record_flags::CREATED_VETH != 0;
    let station = facts.peer.as_ref().filter(|_| made).map_or(member.record.station, |peer| peer.link.mac);
    // First of all, since what is undone is undone to an interface that is there.
    dataplane.set_present(slot, link.ifindex)?;
    let active = state::datapath_number(Some(ready.datapath));
    let record = PortRecord { undo: undo.0, ifindex: link.ifindex, active, station, ..member.record };
    dataplane.ledger.set_record(slot, record)?;
    for action in &ready.actions {
        action.apply(netlink, &target).await?;
    }
    if ready.datapath == Datapath::Xdp {
        dataplane.set_xdp(slot, link.ifindex)?;
    }
    Ok(Ready {
        slot,
        datapath: ready.datapath,
        automatic: wanted == Datapath::Auto,
        notes: ready.notes.into_iter().map(|note| format!("{ifname}: {note}")).collect(),
        link,
    })
}

/// Attaches the programs to an interface whose port is in the tables: frames begin to flow. Returns whether XDP could not be
/// attached to and need not be.
pub(super) fn attach(dataplane: &mut Dataplane, ready: &mut Ready, role: Role) -> Result<bool> {
    let (slot, ifname) = (ready.slot, ready.link.ifname.clone());
    links::attach(&dataplane.pins, slot, &ifname, Hook::In)?;
    if role == Role::Uplink {
        links::attach(&dataplane.pins, slot, &ifname, Hook::Out)?;
    }
    let hook = match ready.datapath {
        Datapath::Xdp => Hook::Xdp,
        Datapath::XdpGeneric => Hook::XdpGeneric,
        Datapath::Tc | Datapath::Auto => return Ok(false),
    };
    let Err(err) = links::attach(&dataplane.pins, slot, &ifname, hook) else { return Ok(false) };
    if !ready.automatic {
        return Err(err);
    }
    dataplane.clear_xdp(slot)?;
    let record = dataplane.ledger.record(slot)?;
    let active = state::datapath_number(Some(Datapath::Tc));
    dataplane.ledger.set_record(slot, PortRecord { active, ..record })?;
    ready.notes.push(format!("{ifname}: tc, for XDP did not attach ({})", in_words(&err)));
    Ok(true)
}

/// Takes the programs off a port's interface. Returns it, if it is still there.
pub(super) async fn unhook(
    dataplane: &Dataplane,
    netlink: &Netlink,
    member: &Member,
) -> Result<Option<Link>> {
    let there = interface::of(dataplane, netlink, member.slot, &member.record).await?;
    unhook_at(&dataplane.pins, member.slot, there.as_ref())?;
    Ok(there)
}

fn unhook_at(pins: &Pins, slot: u16, there: Option<&Link>) -> Result<()> {
    let ifname = there.map(|link| link.ifname.as_str());
    for hook in [Hook::Xdp, Hook::In, Hook::Out] {
        links::detach(pins, slot, ifname, hook)?;
    }
    Ok(())
}

/// Makes the interface what it was before it was a port, and lets the record say so. Returns what could not be: there is no
/// use in trying again. With `keep`, the interface lives on elsewhere as it is, and what was changed on it stays noted.
pub(super) async fn restore(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    slot: u16,
    there: Option<Link>,
    keep: bool,
) -> Result<Vec<String>> {
    let record = dataplane.ledger.record(slot)?;
    if record.flags & record_flags::UPLINK != 0 {
        nics::release(dataplane, netlink, slot, there.as_ref()).await?;
    }
    let reverted = revert(netlink, there, &record).await;
    let undo = if keep { record.undo } else { 0 };
    dataplane.ledger.set_record(slot, PortRecord { undo, ifindex: 0, active: 0, ..record })?;
    Ok(reverted.err().map(|err| in_words(&err)).into_iter().collect())
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

/// Gives the far end that vswitch made the address that the user has given it, if it has another.
pub(super) async fn readdress(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    member: &Member,
    mac: MacAddr,
) -> Result<()> {
    let record = member.record;
    if record.flags & record_flags::CREATED_VETH == 0 || record.station == mac.0 {
        return Ok(());
    }
    let Some(link) = interface::of(dataplane, netlink, member.slot, &record).await? else { return Ok(()) };
    let target = Target::of(netlink, link, member.netns().as_deref()).await?;
    let Some((netns, ifindex)) = &target.peer else {
        bail!(r#""{}": its far end cannot be reached from here: set its address there"#, target.link.ifname);
    };
    netns.run_async_in(async || {
        let netlink = Netlink::open()?;
        netlink.set_mac(&netlink.get_index(*ifindex).await?, &mac.0).await
    })??;
    dataplane.ledger.set_record(member.slot, PortRecord { station: mac.0, ..record })
}

/// The address of a far end that vswitch made, if it can be asked.
pub(super) async fn station(
    dataplane: &Dataplane,
    netlink: &Netlink,
    member: &Member,
) -> Result<Option<MacAddr>> {
    if member.record.flags & record_flags::CREATED_VETH == 0 {
        return Ok(None);
    }
    let there = interface::of(dataplane, netlink, member.slot, &member.record).await?;
    let Some(link) = there else { return Ok(None) };
    Ok(Target::of(netlink, link, member.netns().as_deref()).await?.peer_mac()?.map(MacAddr))
}

/// Notes the address of a far end that vswitch made.
pub(super) fn note_station(
    dataplane: &mut Dataplane,
    member: &Member,
    station: Option<MacAddr>,
) -> Result<()> {
    match station.map(|mac| mac.0).filter(|station| *station != member.record.station) {
        Some(station) => dataplane.ledger.set_record(member.slot, PortRecord { station, ..member.record }),
        None => Ok(()),
    }
}

/// Removes what a port has outside the maps, which may be damaged: programs, and what made it ready.
pub(super) async fn salvage(pins: &Pins, netlink: &Netlink, slot: u16, record: &PortRecord) -> Result<()> {
    let there = interface::of_pins(pins, netlink, slot, record).await?;
    unhook_at(pins, slot, there.as_ref())?;
    revert(netlink, there, record).await
}

/// Takes the clsact filters that run the switch's programs off all interfaces: they have no pins, and which were its ports may
/// be lost.
pub(super) async fn unfilter(pins: &Pins, netlink: &Netlink) -> Result<()> {
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
