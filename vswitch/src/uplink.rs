//! How does an uplink's NIC come to receive frames for the stations behind the switch?
//!
//! As macvlan: by one unicast filter for each station, while all their addresses are known. Else, and where frames of
//! others pass from uplink to uplink or a passthru port takes everything, by promiscuity.

use anyhow::Result;
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, PortRecord, fdb_flags, mode, port_flags},
    frame::MacAddr,
};

use crate::{
    dataplane::{
        Dataplane,
        state::{EntryKind, Member, entry_kind},
    },
    net::{Action, Link, Netlink, Undo},
};

/// Brings filters and promiscuity of all uplinks in line with the ports.
pub(crate) async fn refresh(dataplane: &mut Dataplane, netlink: &Netlink) -> Result<()> {
    let members = dataplane.members()?;
    let uplinks: Vec<_> = members.iter().filter(|member| member.is_uplink() && member.is_present()).collect();
    let promiscuous = uplinks.len() > 1 || members.iter().any(needs_all);
    for uplink in uplinks {
        let Some(link) = netlink.find_index(uplink.record.ifindex).await? else { continue };
        if promiscuous {
            unfilter(dataplane, netlink, &link, |_| true).await?;
        }
        set_promiscuous(dataplane, netlink, uplink, &link, promiscuous).await?;
        if !promiscuous {
            filter(dataplane, netlink, &link).await?;
        }
    }
    Ok(())
}

/// Takes the filters off an uplink that is about to be one no longer.
pub(crate) async fn release(dataplane: &mut Dataplane, netlink: &Netlink, link: &Link) -> Result<()> {
    unfilter(dataplane, netlink, link, |_| true).await
}

/// Takes the filters for the addresses off the uplinks: they are about to leave the FDB.
pub(crate) async fn forget(dataplane: &mut Dataplane, netlink: &Netlink, macs: &[MacAddr]) -> Result<()> {
    for uplink in dataplane.members()?.iter().filter(|member| member.is_uplink() && member.is_present()) {
        if let Some(link) = netlink.find_index(uplink.record.ifindex).await? {
            unfilter(dataplane, netlink, &link, |mac| macs.contains(&mac)).await?;
        }
    }
    Ok(())
}

/// The addresses that are in the uplinks' filters.
pub(crate) fn filters(entries: &[(FdbKey, FdbEntry)]) -> Vec<MacAddr> {
    let filtered = entries.iter().filter(|(_, entry)| entry.has(fdb_flags::FILTERED));
    filtered.map(|(key, _)| key.mac).collect()
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
    let ours = undo.contains(Action::PromiscOn);
    // Ours and yet not so: whoever was to do it was interrupted, or somebody else undid it.
    if on && !link.promisc {
        if !ours {
            undo.insert(Action::PromiscOn);
            dataplane.maps.set_record(uplink.slot, PortRecord { undo: undo.0, ..uplink.record })?;
        }
        netlink.set_promisc(link, true).await?;
    } else if !on && ours {
        netlink.set_promisc(link, false).await?;
        undo.remove(Action::PromiscOn);
        dataplane.maps.set_record(uplink.slot, PortRecord { undo: undo.0, ..uplink.record })?;
    }
    Ok(())
}

/// Enters the filters that are missing. What somebody else has entered stays theirs.
async fn filter(dataplane: &mut Dataplane, netlink: &Netlink, link: &Link) -> Result<()> {
    let there = netlink.fdb_self_list(link).await?;
    for (key, entry) in dataplane.maps.fdb_all()? {
        let known = matches!(entry_kind(entry), EntryKind::Known | EntryKind::Derived);
        // Ours and yet not there: as above.
        if known && !there.contains(&key.mac.0) {
            let flags = entry.flags() | fdb_flags::FILTERED;
            dataplane.maps.fdb_set(key, FdbEntry::new(entry.slot(), flags, entry.stamp()))?;
            netlink.fdb_self_add(link, &key.mac.0).await?;
        }
    }
    Ok(())
}

async fn unfilter(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    link: &Link,
    which: impl Fn(MacAddr) -> bool,
) -> Result<()> {
    let mut ours = dataplane.maps.fdb_all()?;
    ours.retain(|(key, entry)| entry.has(fdb_flags::FILTERED) && which(key.mac));
    if ours.is_empty() {
        return Ok(());
    }
    let there = netlink.fdb_self_list(link).await?;
    for (key, entry) in ours {
        if there.contains(&key.mac.0) {
            netlink.fdb_self_del(link, &key.mac.0).await?;
        }
        let flags = entry.flags() & !fdb_flags::FILTERED;
        dataplane.maps.fdb_set(key, FdbEntry::new(entry.slot(), flags, entry.stamp()))?;
    }
    Ok(())
}
