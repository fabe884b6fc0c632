//! What has a command left that was interrupted, and how does it come to its end? By what is pinned alone, at the beginning
//! of the next command: what was wanted of a switch that is there is completed; what is half made or half gone, goes.

use std::collections::HashSet;

use anyhow::Result;

use super::{
    destroy,
    intent::{self, Note},
    reconcile::{Manner, Outcome, possible, reconcile, reconcile_known},
    stages::go_on,
    switch::undo,
};
use crate::{
    config::SwitchConfig,
    dataplane::{Access, Dataplane, Found, ledger::record_flags, migrate, pins::Pins, programs, state},
    failure::{in_words, with_undo},
    lock::Lock,
    net::Netlink,
};

/// Brings to its end whatever was interrupted. Returns what the user should know. The caller has the switch's lock.
///
/// What is not a command's doing, such as pins that somebody removed, stays for the command that begins.
pub(crate) async fn recover(name: &str, lock: &mut Lock) -> Result<Vec<String>> {
    let pins = Pins::of(name);
    pins.scratch().clear()?;
    if !pins.exist()? {
        return Ok(Vec::new());
    }
    let dataplane = match Dataplane::find(name, Access::Write)? {
        Found::Switch(dataplane) => *dataplane,
        // The command that begins says so.
        Found::Incomplete(_) | Found::Homeless(_) => return Ok(Vec::new()),
    };
    if !dataplane.is_complete()? {
        return destroy(dataplane, &Netlink::open()?).await;
    }
    migrate::forget(name)?;
    if programs::are_mixed(&pins) {
        programs::replace(&dataplane)?;
    }
    let mut notes = complete(dataplane).await?;
    notes.extend(go_on_for(name, lock).await?);
    Ok(notes)
}

/// Goes on with a change in stages, if whoever made it is not at it any more.
async fn go_on_for(name: &str, lock: &mut Lock) -> Result<Vec<String>> {
    if intent::noted(&Pins::of(name), Note::Goal)?.is_none() || Lock::is_in_stages(name) {
        return Ok(Vec::new());
    }
    let _in_stages = Lock::stages(name).await?;
    let mut dataplane = Dataplane::open_any(name, Access::Write)?;
    match go_on(&mut dataplane, &Netlink::open()?, lock).await {
        Ok(notes) => Ok(notes),
        Err(err) => Ok(vec![interrupted(&err)]),
    }
}

fn interrupted(err: &anyhow::Error) -> String {
    format!("a command was interrupted and could not be completed: {}", in_words(err))
}

/// Ends a change of the configuration.
async fn complete(mut dataplane: Dataplane) -> Result<Vec<String>> {
    let pending = |flags: u32| flags & record_flags::PENDING != 0;
    let pending = dataplane.ledger.records()?.iter().any(|(_, record)| pending(record.flags));
    let wanted = intent::wanted(&dataplane.pins);
    if !pending && matches!(wanted, Ok(None)) {
        return Ok(Vec::new());
    }
    let from = dataplane.intent()?;
    let (netlink, mut notes) = (Netlink::open()?, Vec::new());
    let to = match wanted {
        Ok(wanted) => wanted.unwrap_or_else(|| from.clone()),
        Err(unreadable) => {
            notes.push(interrupted(&unreadable));
            from.clone()
        }
    };
    match redo(&mut dataplane, &netlink, [&from, &to]).await {
        Ok(more) => notes.extend(more),
        Err(err) => {
            let undone = undo(&mut dataplane, &netlink, [&to, &from]).await;
            notes.push(interrupted(&with_undo(err, undone)));
        }
    }
    Ok(notes)
}

async fn redo(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    [from, to]: [&SwitchConfig; 2],
) -> Result<Vec<String>> {
    // First what was to go, or has come by half: whether the rest is possible cannot be told before.
    let rest = without_coming(dataplane, to)?;
    let Outcome { mut notes, left, .. } =
        reconcile(dataplane, netlink, [from, &rest], Manner::Whole, true).await?;
    notes.extend(left);
    let known = possible(dataplane, netlink, [&rest, to]).await?;
    let Outcome { notes: more, left, .. } =
        reconcile_known(dataplane, known, netlink, [&rest, to], Manner::Whole, true).await?;
    notes.extend(more.into_iter().chain(left));
    if intent::wanted(&dataplane.pins)?.is_some() {
        intent::reached(&dataplane.pins)?;
    }
    Ok(notes)
}

/// The switch without the ports that are to come yet.
fn without_coming(dataplane: &Dataplane, to: &SwitchConfig) -> Result<SwitchConfig> {
    let whole = |flags: u32| flags & record_flags::PENDING == 0;
    let records = dataplane.ledger.records()?.into_iter().filter(|(_, record)| whole(record.flags));
    let there: HashSet<String> = records.map(|(_, record)| state::text(&record.ifname)).collect();
    let mut rest = to.clone();
    rest.ports.retain(|port| there.contains(&port.ifname));
    rest.fdb.retain(|entry| there.contains(&entry.ifname));
    Ok(rest)
}
