//! How does an uplink's NIC come to receive frames for the stations behind the switch?
//!
//! As macvlan: by one unicast filter for each station, while all their addresses are known. Else, and where frames of
//! others pass from uplink to uplink or a passthru port takes everything, by promiscuity.

use anyhow::Result;
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, PortRecord, fdb_flags, mode, port_flags, record_flags},
    frame::MacAddr,
};

use crate::{
    dataplane::{
        Dataplane, maps,
        pins::Pins,
        state::{self, EntryKind, Member, entry_kind},
    },
    interface,
    net::{Action, Link, Netlink, Target, Undo},
};

/// Brings filters and promiscuity of all uplinks in line with the ports.
pub(crate) async fn refresh(dataplane: &mut Dataplane, netlink: &Netlink) -> Result<()> {
    let promiscuous = promiscuous(&dataplane.members()?);
    receive(dataplane, netlink, promiscuous).await
}

/// Before another uplink comes. The FDB says which addresses are in a filter, and not in whose: only while there is one uplink
/// is it that one's.
pub(crate) async fn make_way(dataplane: &mut Dataplane, netlink: &Netlink) -> Result<()> {
    receive(dataplane, netlink, true).await
}

/// Lets the uplinks receive for any address, or for the stations. No frame is lost in between.
async fn receive(dataplane: &mut Dataplane, netlink: &Netlink, promiscuous: bool) -> Result<()> {
    for (uplink, there) in uplinks(dataplane, netlink).await? {
        if let Some(link) = &there {
            if !promiscuous {
                filter(dataplane, netlink, link).await?;
            }
            set_promiscuous(dataplane, netlink, &uplink, link, promiscuous).await?;
        }
        if promiscuous {
            unfilter(dataplane, netlink, there.as_ref(), |_| true).await?;
        }
    }
    Ok(())
}

/// As [`refresh`], and enters those filters anew that should be there and are not: whoever was to enter them was
/// interrupted, or somebody else took them out.
pub(crate) async fn restore(dataplane: &mut Dataplane, netlink: &Netlink) -> Result<()> {
    refresh(dataplane, netlink).await?;
    for link in uplinks(dataplane, netlink).await?.into_iter().filter_map(|(_, there)| there) {
        for mac in lost_filters(dataplane, netlink, &link).await? {
            netlink.fdb_self_add(&link, &mac.0).await?;
        }
    }
    Ok(())
}

/// Takes the filters off an uplink that is about to be one no longer. If it is not there, they have gone with it.
pub(crate) async fn release(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    there: Option<&Link>,
) -> Result<()> {
    unfilter(dataplane, netlink, there, |_| true).await
}

/// Takes the filters for the addresses off the uplinks: they are about to leave the FDB.
pub(crate) async fn forget(dataplane: &mut Dataplane, netlink: &Netlink, macs: &[MacAddr]) -> Result<()> {
    for link in uplinks(dataplane, netlink).await?.into_iter().filter_map(|(_, there)| there) {
        unfilter(dataplane, netlink, Some(&link), |mac| macs.contains(&mac)).await?;
    }
    Ok(())
}

/// The uplinks that frames flow through, each with its interface, if that is there yet.
async fn uplinks(dataplane: &Dataplane, netlink: &Netlink) -> Result<Vec<(Member, Option<Link>)>> {
    let mut members = dataplane.members()?;
    members.retain(|member| member.is_uplink() && member.is_present());
    let mut uplinks = Vec::new();
    for uplink in members {
        let there = interface::of(&dataplane.pins, netlink, uplink.slot, &uplink.record).await?;
        uplinks.push((uplink, there));
    }
    Ok(uplinks)
}

/// The addresses that are in the uplinks' filters.
pub(crate) fn filters(entries: &[(FdbKey, FdbEntry)]) -> Vec<MacAddr> {
    let filtered = entries.iter().filter(|(_, entry)| entry.has(fdb_flags::FILTERED));
    filtered.map(|(key, _)| key.mac).collect()
}

/// Those of them that somebody has taken out of an uplink's filter.
pub(crate) async fn lost_filters(
    dataplane: &Dataplane,
    netlink: &Netlink,
    link: &Link,
) -> Result<Vec<MacAddr>> {
    let mut ours = filters(&dataplane.maps.fdb.all()?);
    if !ours.is_empty() {
        let there = netlink.fdb_self_list(link).await?;
        ours.retain(|mac| !there.contains(&mac.0));
    }
    Ok(ours)
}

/// Takes the filters off the uplinks of a switch whose maps are damaged, as far as what is left of them tells. Returns what
/// the user should know.
pub(crate) async fn salvage(
    pins: &Pins,
    netlink: &Netlink,
    records: &[(u16, PortRecord)],
) -> Result<Option<String>> {
    let fdb = maps::open_fdb(pins).ok();
    let ours = match &fdb {
        Some(entries) => filters(entries),
        None => stations(pins, netlink, records).await?,
    };
    if ours.is_empty() {
        return Ok(None);
    }
    for (slot, record) in records {
        let Some(link) = interface::of(pins, netlink, *slot, record).await? else { continue };
        for mac in netlink.fdb_self_list(&link).await?.iter().filter(|mac| ours.contains(&MacAddr(**mac))) {
            netlink.fdb_self_del(&link, mac).await?;
        }
    }
    let lost = "which addresses were bound to its ports is lost: an uplink's unicast filter may keep some (bridge fdb show)";
    Ok(fdb.is_none().then(|| lost.to_owned()))
}

/// The stations' addresses by the ports' records: the first that the user gave, or that of the far end.
async fn stations(pins: &Pins, netlink: &Netlink, records: &[(u16, PortRecord)]) -> Result<Vec<MacAddr>> {
    let mut macs = Vec::new();
    for (slot, record) in records {
        if record.first_mac != [0; 6] {
            macs.push(MacAddr(record.first_mac));
        } else if record.flags & record_flags::CREATED_VETH != 0
            && let Some(link) = interface::of(pins, netlink, *slot, record).await?
            && let Some(mac) =
                Target::of(netlink, link, Some(&state::text(&record.netns))).await?.peer_mac()?
        {
            macs.push(MacAddr(mac));
        }
    }
    Ok(macs)
}

/// Whether the uplinks must receive for any address.
pub(crate) fn promiscuous(members: &[Member]) -> bool {
    let uplinks = members.iter().filter(|member| member.is_uplink() && member.is_present());
    uplinks.count() > 1 || members.iter().any(needs_all)
}

/// Whether frames for addresses that nobody can name must reach this port.
fn needs_all(member: &Member) -> bool {
    let learns = member.port.flags & (port_flags::LEARNING | port_flags::FLOOD) != 0;
    !member.is_uplink() && (!member.is_known() || learns || member.port.mode == mode::PASSTHRU)
}

async fn set_promiscuous(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    uplink: &Member,
    link: &Link,
    on: bool,
) -> Result<()> {
    let mut undo = Undo(uplink.record.undo);
    // Ours and yet not so: whoever was to do it was interrupted, or somebody else undid it.
    if on && !link.promisc {
        if !undo.contains(Action::PromiscOn) {
            undo.insert(Action::PromiscOn);
            dataplane.maps.set_record(uplink.slot, PortRecord { undo: undo.0, ..uplink.record })?;
        }
        netlink.set_promisc(link, true).await?;
    } else if !on && undo.contains(Action::PromiscOn) {
        netlink.set_promisc(link, false).await?;
        undo.remove(Action::PromiscOn);
        dataplane.maps.set_record(uplink.slot, PortRecord { undo: undo.0, ..uplink.record })?;
    }
    Ok(())
}

/// Enters the filters that are missing. What somebody else has entered stays theirs.
async fn filter(dataplane: &mut Dataplane, netlink: &Netlink, link: &Link) -> Result<()> {
    for (key, entry) in dataplane.maps.fdb.all()? {
        let known = matches!(entry_kind(entry), EntryKind::Known | EntryKind::Derived);
        if !known || entry.has(fdb_flags::FILTERED) {
            continue;
        }
        // Before it is entered: a crash in between leaves nothing that nobody takes away.
        let flags = entry.flags() | fdb_flags::FILTERED;
        dataplane.maps.fdb_set(key, FdbEntry::new(entry.slot(), flags, entry.stamp()))?;
        if !netlink.fdb_self_add(link, &key.mac.0).await? {
            dataplane.maps.fdb_set(key, entry)?;
        }
    }
    Ok(())
}

async fn unfilter(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    there: Option<&Link>,
    which: impl Fn(MacAddr) -> bool,
) -> Result<()> {
    for (key, entry) in dataplane.maps.fdb.all()? {
        if entry.has(fdb_flags::FILTERED) && which(key.mac) {
            if let Some(link) = there {
                netlink.fdb_self_del(link, &key.mac.0).await?;
            }
            let flags = entry.flags() & !fdb_flags::FILTERED;
            dataplane.maps.fdb_set(key, FdbEntry::new(entry.slot(), flags, entry.stamp()))?;
        }
    }
    Ok(())
}
