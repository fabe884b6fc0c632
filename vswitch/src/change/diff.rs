//! Which changes make the tables what they shall be, and in which order, so that each is safe for frames on their way?
//!
//! What lets the programs look comes first, and goes last. Nothing is sent any more to an interface that goes before anything
//! else of it does; nothing comes in from one that comes before all of it is there. What goes from the FDB makes room for
//! what comes; an address that goes from one port to another does so in one step.

use vswitch_ebpf::abi::{FdbKey, Port, Settings, settings_flags};

use crate::dataplane::image::{Image, Listeners, Write};

/// The [`settings_flags`] that let the programs look at what only some ports need.
const LOOKS: u32 = settings_flags::STATIONS | settings_flags::SOURCES;

/// The changes, in order. None, if nothing is to be changed.
pub(crate) fn diff(from: &Image, to: &Image) -> Vec<Write> {
    let mut writes = Vec::new();
    let looks = from.settings.flags | to.settings.flags & LOOKS;
    let meanwhile = Settings { flags: looks, ..from.settings };
    if meanwhile != from.settings {
        writes.push(Write::Settings(meanwhile));
    }
    writes.extend(parting(from, to));
    writes.extend(coming(from, to));
    writes.extend(rest(from, to));
    if meanwhile != to.settings {
        writes.push(Write::Settings(to.settings));
    }
    writes
}

/// What goes while something of it stays: of a port without interface, or of one that is gone, its slot.
fn parting(from: &Image, to: &Image) -> Vec<Write> {
    let mut writes = Vec::new();
    for (slot, port) in
        from.ports.iter().filter(|(slot, _)| from.is_present(**slot) && !to.is_present(**slot))
    {
        let left = to.ports.get(slot).copied().unwrap_or(Port { ifindex: 0, ..*port });
        writes.push(Write::Port(*slot, left));
    }
    let left = from.interfaces.keys().filter(|ifindex| !to.interfaces.contains_key(ifindex));
    writes.extend(left.map(|ifindex| Write::Leave(*ifindex)));
    let bound = from.fdb.keys().filter(|key| !to.fdb.contains_key(key)).copied();
    let learned =
        from.learned.iter().filter(|(key, slot)| !to.is_present(*slot) && !to.fdb.contains_key(key));
    let gone: Vec<FdbKey> = bound.chain(learned.map(|(key, _)| *key)).collect();
    if !gone.is_empty() {
        writes.push(Write::Forget(gone));
    }
    writes
}

/// What comes or changes, an interface's frames last of all.
fn coming(from: &Image, to: &Image) -> Vec<Write> {
    let mut writes = Vec::new();
    for (slot, port) in &to.ports {
        let parted = from.is_present(*slot) && port.ifindex == 0;
        if from.ports.get(slot) != Some(port) && !parted {
            writes.push(Write::Port(*slot, *port));
        }
    }
    writes.extend(to.sources.difference(&from.sources).map(|(mac, slot)| Write::List(*mac, *slot)));
    let listeners = to.listeners.iter().filter(|(mac, listeners)| from.listeners.get(mac) != Some(listeners));
    writes.extend(listeners.map(|(mac, listeners)| Write::Listeners(*mac, listeners.clone())));
    for (was, shall, write) in [
        (&from.domain, &to.domain, Write::Domain as fn(Vec<u16>) -> Write),
        (&from.uplinks, &to.uplinks, Write::Uplinks),
    ] {
        if was != shall {
            writes.push(write(shall.clone()));
        }
    }
    let bound = to.fdb.iter().filter(|(key, bound)| from.fdb.get(key) != Some(bound));
    writes.extend(bound.map(|(key, bound)| Write::Bind(*key, *bound)));
    let entered = to.interfaces.iter().filter(|(ifindex, slot)| from.interfaces.get(ifindex) != Some(slot));
    writes.extend(entered.map(|(ifindex, slot)| Write::Enter(*ifindex, *slot)));
    writes
}

/// What is left of what has gone, and nobody reads any more.
fn rest(from: &Image, to: &Image) -> Vec<Write> {
    let mut writes = Vec::new();
    let unheard = from.listeners.keys().filter(|mac| !to.listeners.contains_key(mac));
    writes.extend(unheard.map(|mac| Write::Listeners(*mac, Listeners::default())));
    writes.extend(from.sources.difference(&to.sources).map(|(mac, slot)| Write::Unlist(*mac, *slot)));
    let free = from.ports.keys().filter(|slot| !to.ports.contains_key(slot));
    writes.extend(free.map(|slot| Write::Port(*slot, Port::default())));
    writes
}

#[cfg(test)]
mod tests;
