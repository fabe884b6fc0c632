//! How does a change of hundreds of ports let others have the lock in between? It is made in stages, each of which is a whole
//! change to a switch that the rules allow, and leaves its intent. Where it leads is pinned beside it, and so is where it came
//! from: whoever changes the switch in between changes both; whoever finds them, and nobody at it, goes on.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};

use super::{
    intent::{self, Note},
    reconcile::{Manner, Outcome, reconcile},
    switch::undo,
    work::by_name,
};
use crate::{
    config::{PortConfig, Role, SwitchConfig},
    dataplane::Dataplane,
    failure::with_undo,
    lock::Lock,
    net::Netlink,
};

/// So many ports come or go while nobody else may change the switch: about a second.
const AT_A_TIME: usize = 64;

/// What comes next on the way from one switch to another, and whether that is its end.
pub(super) fn next(now: &SwitchConfig, goal: &SwitchConfig) -> (SwitchConfig, bool) {
    let (mut going, mut coming) = differing(now, goal);
    if going.len() > AT_A_TIME {
        // As in any plan: uplinks go last.
        going.sort_by_key(|port| port.role == Role::Uplink);
        let gone: HashSet<&str> = going.iter().take(AT_A_TIME).map(|port| port.ifname.as_str()).collect();
        return (only(now, |ifname| !gone.contains(ifname)), false);
    }
    if coming.len() <= AT_A_TIME {
        return (goal.clone(), true);
    }
    coming.sort_by_key(|port| port.role != Role::Uplink);
    let later: HashSet<&str> = coming.iter().skip(AT_A_TIME).map(|port| port.ifname.as_str()).collect();
    (only(goal, |ifname| !later.contains(ifname)), false)
}

/// Whether one stage does.
pub(super) fn is_one(now: &SwitchConfig, goal: &SwitchConfig) -> bool {
    let (going, coming) = differing(now, goal);
    going.len().max(coming.len()) <= AT_A_TIME
}

/// The ports that go and those that come on the way from one switch to another.
fn differing<'a>(
    now: &'a SwitchConfig,
    goal: &'a SwitchConfig,
) -> (Vec<&'a PortConfig>, Vec<&'a PortConfig>) {
    let same = |port: &PortConfig, among: &HashMap<&str, &PortConfig>| {
        among.get(port.ifname.as_str()).is_some_and(|other| {
            (port.role, port.datapath, &port.far_end) == (other.role, other.datapath, &other.far_end)
        })
    };
    let (here, wanted) = (by_name(now), by_name(goal));
    let going = now.ports.iter().filter(|port| !same(port, &wanted)).collect();
    let coming = goal.ports.iter().filter(|port| !same(port, &here)).collect();
    (going, coming)
}

/// A switch with some of its ports.
fn only(config: &SwitchConfig, which: impl Fn(&str) -> bool) -> SwitchConfig {
    let mut config = config.clone();
    config.ports.retain(|port| which(&port.ifname));
    config.fdb.retain(|entry| which(&entry.ifname));
    config
}

/// Goes on until the switch is what is noted as its goal, or is again what it was. Returns what the user should know. The
/// caller has the right to make many changes.
pub(super) async fn go_on(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    lock: &mut Lock,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    loop {
        let now = dataplane.intent()?;
        let Some(goal) = intent::noted(&dataplane.pins, Note::Goal)? else { break };
        let (step, last) = next(&now, &goal);
        intent::want(&dataplane.pins, &step)?;
        match reconcile(dataplane, netlink, [&now, &step], Manner::Whole, false).await {
            Ok(Outcome { notes: more, left, .. }) => notes.extend(more.into_iter().chain(left)),
            Err(err) => {
                let undone = go_back(dataplane, netlink, lock, [&step, &now]).await;
                return Err(with_undo(err, undone));
            }
        }
        intent::reached(&dataplane.pins)?;
        if last {
            break;
        }
        give_way(dataplane, lock).await?;
    }
    intent::forget(&dataplane.pins)?;
    Ok(notes)
}

/// As [`go_on`], to where it came from. Returns what could not be put back.
async fn go_back(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    lock: &mut Lock,
    [step, now]: [&SwitchConfig; 2],
) -> Result<Vec<String>> {
    let mut left = undo(dataplane, netlink, [step, now]).await?;
    let Some(origin) = intent::noted(&dataplane.pins, Note::Origin)? else { return Ok(left) };
    intent::note(&dataplane.pins, Note::Goal, &origin)?;
    while let Some(goal) = intent::noted(&dataplane.pins, Note::Goal)? {
        let now = dataplane.intent()?;
        let (step, last) = next(&now, &goal);
        left.extend(undo(dataplane, netlink, [&now, &step]).await?);
        if last {
            break;
        }
        give_way(dataplane, lock).await?;
    }
    intent::forget(&dataplane.pins)?;
    Ok(left)
}

/// Lets somebody else change the switch, who may take it away.
async fn give_way(dataplane: &Dataplane, lock: &mut Lock) -> Result<()> {
    lock.give_way().await?;
    if !dataplane.pins.exist()? {
        bail!(r#"switch "{}": was taken away meanwhile"#, dataplane.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vswitch_ebpf::abi::port_flags;

    use super::*;
    use crate::config::{Datapath, StaticEntry, samples::station};

    fn switch(names: impl Iterator<Item = usize>) -> SwitchConfig {
        let mut config = SwitchConfig::new("vs0");
        config.ports = names.map(|number| PortConfig::new(&format!("p{number}"))).collect();
        config
    }

    /// The stages from one switch to another.
    fn stages(from: &SwitchConfig, to: &SwitchConfig) -> Vec<SwitchConfig> {
        let mut stages = vec![from.clone()];
        for _ in 0..100 {
            let (step, last) = next(&stages[stages.len() - 1], to);
            stages.push(step);
            if last {
                return stages;
            }
        }
        panic!("no end of it");
    }

    #[test]
    fn each_stage_is_a_switch_and_a_small_change() {
        let (mut from, mut to) = (switch(0..200), switch(100..500));
        from.fdb.push(StaticEntry { mac: station(1), vlan: 0, ifname: "p0".into() });
        to.fdb.push(StaticEntry { mac: station(1), vlan: 0, ifname: "p499".into() });
        to.ports[0].flags.set(port_flags::ISOLATED, true);
        to.ports[1].datapath = Datapath::Tc;
        to.ports[350].role = Role::Uplink;
        let stages = stages(&from, &to);
        for pair in stages.windows(2) {
            assert_eq!(pair[1].check(), Ok(()));
            let count = |one: &SwitchConfig, other: &SwitchConfig| {
                let names: HashSet<_> = other.ports.iter().map(|port| &port.ifname).collect();
                one.ports.iter().filter(|port| !names.contains(&port.ifname)).count()
            };
            assert!(count(&pair[0], &pair[1]) <= AT_A_TIME && count(&pair[1], &pair[0]) <= AT_A_TIME);
        }
        assert_eq!(stages.last(), Some(&to));
        assert_eq!(stages.len(), 1 + 1 + 5, "64 and the other 36 of them go; 300 come in five");
        assert!(stages[2].port("p450").is_some(), "uplinks come first");
    }

    #[test]
    fn a_small_change_has_one_stage() {
        let (from, to) = (switch(0..200), switch(10..264));
        assert_eq!(next(&from, &to), (to, true));
    }
}
