//! How does an uplink's NIC come to receive frames for the stations behind the switch?
//!
//! As macvlan: by one unicast filter for each station, while all their addresses are known. Else, and where frames of
//! others pass from uplink to uplink or a passthru port takes everything, by promiscuity. Which it is follows from the
//! intent (`compile.rs`); what was done is in the ledger, before it is done.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use vswitch_ebpf::frame::MacAddr;

use super::{compile::is_promiscuous, intent, interface};
use crate::{
    config::SwitchConfig,
    dataplane::{
        Dataplane,
        image::Nic,
        ledger::{self, Filter, PortRecord, record_flags},
        pins::Pins,
        state::Member,
    },
    net::{Action, Link, Netlink, Undo},
};

/// Brings filters and promiscuity of all uplinks, by slot, in line with the tables. With `again`, filters that were entered are looked
/// for: whoever was to enter them was interrupted, or somebody else took them out.
pub(super) async fn settle(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    nics: &BTreeMap<u16, Nic>,
    again: bool,
) -> Result<()> {
    let filters = dataplane.ledger.filters()?;
    for (slot, nic) in nics {
        let record = dataplane.ledger.record(*slot)?;
        let entered = filters.iter().filter(|filter| filter.slot == *slot).map(|filter| filter.mac).collect();
        let Some(link) = interface::of(dataplane, netlink, *slot, &record).await? else { continue };
        receive(dataplane, netlink, *slot, &link, nic, &entered).await?;
        if again && !nic.promiscuous {
            for mac in lost(netlink, &link, nic.filters.intersection(&entered)).await? {
                netlink.fdb_self_add(&link, &mac.0).await?;
            }
        }
    }
    Ok(())
}

/// No frame is lost in between.
async fn receive(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    slot: u16,
    link: &Link,
    nic: &Nic,
    entered: &BTreeSet<MacAddr>,
) -> Result<()> {
    for mac in nic.filters.difference(entered) {
        let filter = Filter { mac: *mac, slot };
        // Before it is entered: a crash in between leaves nothing that nobody takes away.
        dataplane.ledger.set_filter(filter)?;
        match netlink.fdb_self_add(link, &mac.0).await {
            Ok(true) => {}
            // What somebody else has entered stays theirs.
            Ok(false) => dataplane.ledger.clear_filter(filter)?,
            Err(err) => {
                dataplane.ledger.clear_filter(filter)?;
                return Err(err);
            }
        }
    }
    set_promiscuous(dataplane, netlink, slot, link, nic.promiscuous).await?;
    for mac in entered.difference(&nic.filters) {
        netlink.fdb_self_del(link, &mac.0).await?;
        dataplane.ledger.clear_filter(Filter { mac: *mac, slot })?;
    }
    Ok(())
}

async fn set_promiscuous(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    slot: u16,
    link: &Link,
    on: bool,
) -> Result<()> {
    let record = dataplane.ledger.record(slot)?;
    let mut undo = Undo(record.undo);
    // Ours and yet not so: whoever was to do it was interrupted, or somebody else undid it.
    if on && !link.promisc {
        if !undo.contains(Action::PromiscOn) {
            undo.insert(Action::PromiscOn);
            dataplane.ledger.set_record(slot, PortRecord { undo: undo.0, ..record })?;
        }
        netlink.set_promisc(link, true).await?;
    } else if !on && undo.contains(Action::PromiscOn) {
        netlink.set_promisc(link, false).await?;
        undo.remove(Action::PromiscOn);
        dataplane.ledger.set_record(slot, PortRecord { undo: undo.0, ..record })?;
    }
    Ok(())
}

/// Takes the filters off an uplink that is about to be one no longer. If it is not there, they have gone with it.
pub(super) async fn release(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    slot: u16,
    there: Option<&Link>,
) -> Result<()> {
    for filter in dataplane.ledger.filters()?.into_iter().filter(|filter| filter.slot == slot) {
        if let Some(link) = there {
            netlink.fdb_self_del(link, &filter.mac.0).await?;
        }
        dataplane.ledger.clear_filter(filter)?;
    }
    Ok(())
}

/// Whether the uplinks must receive for any address.
pub(crate) fn promiscuous(intent: &SwitchConfig, members: &[Member]) -> bool {
    let uplinks = members.iter().filter(|member| member.is_uplink() && member.is_present());
    let stations = intent.ports.iter().map(|port| port.mac.len().max(1)).sum();
    is_promiscuous(uplinks.count(), intent.ports.iter(), stations)
}

/// The addresses that are in an uplink's filter on the switch's account.
pub(crate) fn filters(dataplane: &Dataplane, slot: u16) -> Result<Vec<MacAddr>> {
    let filters = dataplane.ledger.filters()?.into_iter().filter(|filter| filter.slot == slot);
    Ok(filters.map(|filter| filter.mac).collect())
}

/// Those of them that somebody has taken out of it.
pub(super) async fn lost_filters(
    dataplane: &Dataplane,
    netlink: &Netlink,
    member: &Member,
    link: &Link,
) -> Result<Vec<MacAddr>> {
    lost(netlink, link, filters(dataplane, member.slot)?.iter()).await
}

async fn lost(netlink: &Netlink, link: &Link, ours: impl Iterator<Item = &MacAddr>) -> Result<Vec<MacAddr>> {
    let mut ours: Vec<_> = ours.copied().collect();
    if !ours.is_empty() {
        let there = netlink.fdb_self_list(link).await?;
        ours.retain(|mac| !there.contains(&mac.0));
    }
    Ok(ours)
}

/// Takes the filters off the uplinks of a switch whose maps are damaged, as far as what is left of them tells. Returns what
/// the user should know.
pub(super) async fn salvage(
    pins: &Pins,
    netlink: &Netlink,
    records: &[(u16, PortRecord)],
) -> Result<Option<String>> {
    let known = ledger::open_filters(pins).ok();
    let stations = stations(pins, records);
    let mut unsure = false;
    for (slot, record) in records.iter().filter(|(_, record)| record.flags & record_flags::UPLINK != 0) {
        let Some(link) = interface::of_pins(pins, netlink, *slot, record).await? else { continue };
        let there = netlink.fdb_self_list(&link).await?;
        let ours = |mac: MacAddr| match &known {
            Some(filters) => filters.contains(&Filter { mac, slot: *slot }),
            None => stations.contains(&mac),
        };
        for mac in there.iter().filter(|mac| ours(MacAddr(**mac))) {
            netlink.fdb_self_del(&link, mac).await?;
            unsure |= known.is_none();
        }
    }
    let lost = "which addresses were bound to its ports is lost: an uplink's unicast filter may keep some (bridge fdb show)";
    Ok(unsure.then(|| lost.to_owned()))
}

/// The stations' addresses, as the user has given them or as their far ends had them.
fn stations(pins: &Pins, records: &[(u16, PortRecord)]) -> BTreeSet<MacAddr> {
    let ports = intent::read(pins).map(|config| config.ports).unwrap_or_default();
    let far_ends = records.iter().map(|(_, record)| MacAddr(record.station));
    ports.into_iter().flat_map(|port| port.mac).chain(far_ends).collect()
}
