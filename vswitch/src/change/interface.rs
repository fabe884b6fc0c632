//! How is an interface made for a port, and how is it known again when the port goes?

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};

use crate::{
    config::{FarEnd, PortConfig},
    dataplane::{
        self, Dataplane,
        ledger::{PortRecord, record_flags},
        pins::Pins,
        state::{self, Member},
    },
    net::{Link, LinkKind, Netlink, Netns, Veth},
};

/// Fails if an interface of that name exists.
pub(crate) async fn vacant(netlink: &Netlink, ifname: &str) -> Result<()> {
    if netlink.find(ifname).await?.is_some() {
        bail!(
            r#""{ifname}": an interface of that name exists already: choose another name, or leave out --netns and --tap to add that one"#
        );
    }
    Ok(())
}

/// Makes the interface of a port whose far end says so, up at both ends.
pub(crate) async fn make(netlink: &Netlink, switch: &str, config: &PortConfig) -> Result<()> {
    match &config.far_end {
        FarEnd::Existing => Ok(()),
        FarEnd::Tap => {
            let link = netlink.add_tap(&config.ifname).await?;
            let marked = netlink.set_alias(&link, &mark(switch)).await;
            if marked.is_err() {
                let _deleted = netlink.delete(&link).await;
            }
            marked
        }
        FarEnd::Veth { netns, peer } => {
            let inside = Netns::open(netns)?;
            let link = netlink
                .add_veth(&Veth {
                    ifname: &config.ifname,
                    peer_ifname: peer,
                    peer_netns: Some(std::os::fd::AsFd::as_fd(&inside)),
                    peer_mac: config.mac.first().map(|mac| mac.0),
                    ..Veth::default()
                })
                .await?;
            let up = async {
                netlink.set_alias(&link, &mark(switch)).await?;
                inside.run_async_in(async || {
                    let netlink = Netlink::open()?;
                    netlink.set_up(&netlink.get(peer).await?).await
                })??;
                netlink.set_up(&link).await
            };
            let done: Result<()> = up.await;
            if done.is_err() {
                let _deleted = netlink.delete(&link).await;
            }
            done
        }
    }
}

/// What an interface that vswitch made for a switch says of itself.
fn mark(switch: &str) -> String {
    format!("vswitch {switch}")
}

/// Deletes the interfaces that were made for a switch which has forgotten them.
pub(crate) async fn delete_marked(netlink: &Netlink, switch: &str) -> Result<()> {
    let mark = mark(switch);
    let mut links = netlink.list().await?;
    links.retain(|link| {
        matches!(link.kind, LinkKind::Veth | LinkKind::Tap) && link.alias.as_ref() == Some(&mark)
    });
    netlink.delete_all(&links).await
}

/// A port's interface, if it is still the one that was attached.
pub(crate) async fn of(
    dataplane: &Dataplane,
    netlink: &Netlink,
    slot: u16,
    record: &PortRecord,
) -> Result<Option<Link>> {
    if record.ifindex == 0 {
        return Ok(None);
    }
    let link = netlink.find_index(record.ifindex).await?;
    // Not before: what is there now was there when netlink was asked.
    Ok(if dataplane.is_there(slot)? { link } else { None })
}

/// As [`of`], of a switch whose other maps may be gone.
pub(crate) async fn of_pins(
    pins: &Pins,
    netlink: &Netlink,
    slot: u16,
    record: &PortRecord,
) -> Result<Option<Link>> {
    if record.ifindex == 0 {
        return Ok(None);
    }
    let link = netlink.find_index(record.ifindex).await?;
    Ok(if dataplane::is_there(pins, slot)? { link } else { None })
}

/// The interface that vswitch made for a port, if it is there, whatever it is called. Where the port has none, it is the one
/// of its name, unless that is a stranger's or another port's.
pub(crate) async fn made(dataplane: &Dataplane, netlink: &Netlink, member: &Member) -> Result<Option<Link>> {
    let Member { slot, record, .. } = member;
    if created(record).is_none() {
        return Ok(None);
    }
    if let Some(link) = of(dataplane, netlink, *slot, record).await? {
        return Ok(Some(link));
    }
    let Some(link) = netlink.find(&member.ifname()).await? else { return Ok(None) };
    let anothers = dataplane.member_of(link.ifindex)?.is_some_and(|owner| owner.slot != *slot);
    Ok(Some(link).filter(|link| !anothers && says_so(link, &dataplane.name, record)))
}

/// Deletes all that [`made`] finds, for all ports of a switch whose other maps may be gone.
pub(crate) async fn delete_all_made(
    switch: &str,
    pins: &Pins,
    netlink: &Netlink,
    records: &[(u16, PortRecord)],
) -> Result<()> {
    let records: Vec<_> = records.iter().filter(|(_, record)| created(record).is_some()).collect();
    if records.is_empty() {
        return Ok(());
    }
    let mut links = netlink.list().await?;
    let (mut indices, mut names) = (HashSet::new(), HashMap::new());
    for (slot, record) in records {
        if record.ifindex != 0 && dataplane::is_there(pins, *slot)? {
            indices.insert(record.ifindex);
        } else {
            names.insert(state::text(&record.ifname), record);
        }
    }
    links.retain(|link| {
        let named = names.get(&link.ifname);
        indices.contains(&link.ifindex) || named.is_some_and(|record| says_so(link, switch, record))
    });
    netlink.delete_all(&links).await
}

/// Whether an interface with a port's name says that it was made for the port, or was about to when its command was
/// interrupted.
fn says_so(link: &Link, switch: &str, record: &PortRecord) -> bool {
    let half_made = record.flags & record_flags::PENDING != 0 && record.ifindex == 0;
    created(record).as_ref() == Some(&link.kind) && (half_made || link.alias == Some(mark(switch)))
}

/// The kind of a port's interface, if vswitch made it.
pub(crate) fn created(record: &PortRecord) -> Option<LinkKind> {
    match record.flags {
        flags if flags & record_flags::CREATED_VETH != 0 => Some(LinkKind::Veth),
        flags if flags & record_flags::CREATED_TAP != 0 => Some(LinkKind::Tap),
        _ => None,
    }
}
