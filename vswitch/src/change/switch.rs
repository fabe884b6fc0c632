//! How is a whole switch made, changed and taken away? All or nothing.

use anyhow::Result;

use super::{
    intent::{self, Note},
    interface, lifecycle,
    reconcile::{Manner, Outcome, possible, possible_anew, reconcile, reconcile_known},
    stages::{go_on, is_one, next},
};
use crate::{
    config::SwitchConfig,
    dataplane::{Dataplane, image::Write, state::Member},
    failure::{in_words, with_undo},
    lock::Lock,
    net::Netlink,
};

/// Makes a switch as `config` says, ports and all; nothing is left if it fails. Returns what the user should know.
pub(crate) async fn create(netlink: &Netlink, lock: &mut Lock, config: &SwitchConfig) -> Result<Vec<String>> {
    possible_anew(netlink, config).await?;
    let bare = SwitchConfig { ports: Vec::new(), fdb: Vec::new(), ..config.clone() };
    let (first, last) = next(&bare, config);
    let mut dataplane = Dataplane::create(&first)?;
    let made = async {
        let outcome = reconcile(&mut dataplane, netlink, [&first, &first], Manner::Whole, false).await?;
        let mut notes = outcome.notes;
        if last {
            dataplane.set_complete(true)?;
            return Ok(notes);
        }
        let _in_stages = Lock::stages(&config.name).await?;
        intent::note(&dataplane.pins, Note::Goal, config)?;
        dataplane.set_complete(true)?;
        lock.give_way().await?;
        notes.extend(go_on(&mut dataplane, netlink, lock).await?);
        Ok(notes)
    };
    match made.await {
        Ok(notes) => Ok(notes),
        Err(err) => Err(with_undo(err, destroy(dataplane, netlink).await)),
    }
}

/// Makes the switch, which is `from`, what `to` says, or leaves it what it is. Returns what the user should know.
pub(crate) async fn make(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    lock: &mut Lock,
    [from, to]: [&SwitchConfig; 2],
) -> Result<Vec<String>> {
    let known = possible(dataplane, netlink, [from, to]).await?;
    if !is_one(from, to) {
        let _in_stages = Lock::stages(&dataplane.name).await?;
        intent::note(&dataplane.pins, Note::Origin, from)?;
        intent::note(&dataplane.pins, Note::Goal, to)?;
        return go_on(dataplane, netlink, lock).await;
    }
    intent::want(&dataplane.pins, to)?;
    let done = async {
        let outcome = reconcile_known(dataplane, known, netlink, [from, to], Manner::Whole, false).await?;
        intent::reached(&dataplane.pins)?;
        let Outcome { mut notes, left, .. } = outcome;
        notes.extend(left);
        Ok(notes)
    };
    match done.await {
        Ok(notes) => Ok(notes),
        Err(err) => Err(with_undo(err, undo(dataplane, netlink, [to, from]).await)),
    }
}

/// Makes the switch again what it was `to` be before somebody made it `from`. What is wanted is noted until it is reached:
/// whoever comes next goes on. Returns what could not be put back.
pub(super) async fn undo(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    [from, to]: [&SwitchConfig; 2],
) -> Result<Vec<String>> {
    intent::want(&dataplane.pins, to)?;
    let outcome = reconcile(dataplane, netlink, [from, to], Manner::AsFarAsPossible, false).await?;
    let Outcome { mut left, failed, .. } = outcome;
    if failed.is_empty() {
        intent::reached(&dataplane.pins)?;
    }
    left.extend(failed);
    Ok(left)
}

/// Takes a switch away, whole or not: ports, links, maps, and the interfaces that vswitch made.
///
/// Goes on after a failure, so that as little as possible is left; returns the failures.
pub(crate) async fn destroy(mut dataplane: Dataplane, netlink: &Netlink) -> Result<Vec<String>> {
    dataplane.set_complete(false)?;
    let mut failures = Vec::new();
    let members = dataplane.members()?;
    for member in &members {
        match abandon(&mut dataplane, netlink, member).await {
            Ok(left) => failures.extend(left),
            Err(err) => failures.push(in_words(&err)),
        }
    }
    let records: Vec<_> = members.into_iter().map(|member| (member.slot, member.record)).collect();
    let made = interface::delete_all_made(&dataplane.name, &dataplane.pins, netlink, &records).await;
    if let Err(err) = made {
        failures.push(in_words(&err));
    }
    dataplane.pins.remove()?;
    Ok(failures)
}

/// Takes a port's interface away from it. One that vswitch made stays, for whoever deletes those of all ports at once.
async fn abandon(dataplane: &mut Dataplane, netlink: &Netlink, member: &Member) -> Result<Vec<String>> {
    let there = lifecycle::unhook(dataplane, netlink, member).await?;
    dataplane.write(&Write::Port(member.slot, vswitch_ebpf::abi::Port { ifindex: 0, ..member.port }))?;
    lifecycle::restore(dataplane, netlink, member.slot, there, false).await
}
