//! What has a command left that was interrupted, and how does it come to its end? By what is pinned alone, at the beginning
//! of the next command: what was wanted of a switch that is there is completed; what is half made or half gone, goes.

use anyhow::Result;
use vswitch_ebpf::abi::record_flags;

use crate::{
    apply, attach,
    dataplane::{Access, Dataplane, journal, migrate, pins::Pins, programs},
    failure::in_words,
    net::Netlink,
    plan::plan,
    uplink,
};

/// Brings to its end whatever was interrupted. Returns what the user should know. The caller has the switch's lock.
///
/// What is not a command's doing, such as pins that somebody removed, stays for the command that begins.
pub(crate) async fn recover(name: &str) -> Result<Vec<String>> {
    let pins = Pins::of(name);
    pins.scratch().clear()?;
    let Ok(dataplane) = Dataplane::open_any(name, Access::Write) else { return Ok(Vec::new()) };
    if !dataplane.is_complete()? {
        return apply::destroy(dataplane, &Netlink::open()?).await;
    }
    migrate::forget(name)?;
    if programs::are_mixed(&pins) {
        programs::replace(&dataplane)?;
    }
    complete(dataplane).await
}

/// Ends a change of the configuration.
async fn complete(mut dataplane: Dataplane) -> Result<Vec<String>> {
    let mut pending = dataplane.maps.records()?;
    pending.retain(|(_, record)| record.flags & record_flags::PENDING != 0);
    let desired = journal::read(&dataplane.pins);
    if pending.is_empty() && matches!(desired, Ok(None)) {
        return Ok(Vec::new());
    }
    let netlink = Netlink::open()?;
    let mut notes = Vec::new();
    let interrupted = |err: &anyhow::Error| {
        format!("a command was interrupted and could not be completed: {}", in_words(err))
    };
    for (slot, _) in pending {
        let member = dataplane.member_at(slot)?;
        match attach::remove(&mut dataplane, &netlink, &member).await {
            Ok(more) => notes.extend(more),
            Err(err) => notes.push(interrupted(&err)),
        }
    }
    let redone = async {
        let Some(desired) = desired? else { return Ok(Vec::new()) };
        let ops = plan(Some(&dataplane.config()?), &desired)?;
        apply::apply(&mut dataplane, &netlink, &ops).await
    };
    match redone.await {
        Ok(more) => notes.extend(more),
        Err(err) => notes.push(interrupted(&err)),
    }
    // What follows from the ports, in case that the last step of all was missing.
    dataplane.refresh_sources()?;
    dataplane.refresh_settings()?;
    uplink::restore(&mut dataplane, &netlink).await?;
    journal::remove(&dataplane.pins)?;
    Ok(notes)
}
