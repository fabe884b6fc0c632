//! How is an interface made for a port, and how is it known again when the port goes?

use std::collections::HashMap;

use anyhow::{Result, bail};
use vswitch_ebpf::abi::{PortRecord, record_flags};

use crate::{
    config::{FarEnd, PortConfig},
    dataplane::state,
    net::{LinkKind, Netlink, Netns, Veth},
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

/// Deletes a port's interface if vswitch made it, and if it is still of that kind.
pub(crate) async fn delete_created(netlink: &Netlink, record: &PortRecord) -> Result<()> {
    let Some(kind) = created(record) else { return Ok(()) };
    match netlink.find(&state::text(&record.ifname)).await? {
        Some(link) if link.kind == kind => netlink.delete(&link).await,
        Some(_) | None => Ok(()),
    }
}

/// As [`delete_created`], for all ports.
pub(crate) async fn delete_all_created(netlink: &Netlink, records: &[PortRecord]) -> Result<()> {
    let ours: HashMap<_, _> =
        records.iter().filter_map(|record| Some((state::text(&record.ifname), created(record)?))).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let mut links = netlink.list().await?;
    links.retain(|link| ours.get(&link.ifname) == Some(&link.kind));
    netlink.delete_all(&links).await
}

/// The kind of a port's interface, if vswitch made it.
fn created(record: &PortRecord) -> Option<LinkKind> {
    match record.flags {
        flags if flags & record_flags::CREATED_VETH != 0 => Some(LinkKind::Veth),
        flags if flags & record_flags::CREATED_TAP != 0 => Some(LinkKind::Tap),
        _ => None,
    }
}
