//! What is wrong with a port whose interface is there? For the user to see, and for the controller to put right.

use std::fmt;

use anyhow::Result;
use vswitch_ebpf::{abi::fdb_flags, frame::MacAddr};

use super::{compile::claimed, lifecycle, nics};
use crate::{
    config::{Datapath, Role},
    dataplane::{
        Dataplane,
        image::Bound,
        links,
        links::{CLSACT_HANDLE, CLSACT_PRIORITY, Hook},
        state::{self, Member, key},
    },
    net::{Action, Facts, Features, Link, Netlink, ready},
};

/// One thing that is not as the switch left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Somebody else has the interface, and only the user knows who is right: cause and remedy.
    Taken(String),
    /// Another port has a claim to its name or its address, and only the user knows which is right: cause and remedy.
    Claimed(String),
    /// A program of the switch does not see the port's frames.
    Detached(Hook),
    /// What made the interface ready is not so any more.
    Undone(Action),
    /// The NIC's filter has lost this many stations.
    Unfiltered(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(text) | Self::Claimed(text) => f.write_str(text),
            Self::Detached(hook) => write!(f, "its program {} is not attached", hook.program()),
            Self::Undone(action) => write!(f, "is no longer made ready: {}", action.as_str()),
            Self::Unfiltered(count) => write!(f, "its unicast filter has lost stations: {count}"),
        }
    }
}

/// Looks for faults. Changes nothing. `promiscuous`: whether an uplink must be; `netns`: what the far end's namespace is
/// likely to be called, and is called if that had to be found out.
pub(crate) async fn find(
    dataplane: &Dataplane,
    netlink: &Netlink,
    member: &Member,
    link: &Link,
    promiscuous: bool,
    netns: &mut Option<String>,
) -> Result<Vec<Fault>> {
    let mut own = lifecycle::own_programs(dataplane);
    if own.is_empty() {
        // This process may not know: any may be ours.
        own.extend(link.xdp.map(|program| program.id));
    }
    let taken = ready::taken(link, &own);
    let mut faults: Vec<_> = taken
        .map(|refusal| Fault::Taken(format!("{}: {}", refusal.reason, refusal.remedy)))
        .into_iter()
        .collect();
    for hook in member.hooks() {
        if !is_attached(dataplane, netlink, member, link, hook).await? {
            faults.push(Fault::Detached(hook));
        }
    }
    let (role, active) = (member.role(), state::datapath(member.record.active));
    let called = &link.ifname;
    if *called != member.ifname() && dataplane.is_port(called)? {
        faults.push(Fault::Claimed(format!(
            "its interface is called {called} now, which is another port's name: rename the interface, or remove that port (vswitch port del {called})"
        )));
    }
    if role == Role::Uplink
        && let Some(claim) = claim(dataplane, MacAddr(link.mac), member.slot)?
    {
        faults.push(Fault::Claimed(format!(
            "its interface has a new address, which is not the host's: {claim}"
        )));
    }
    // What tc needs can be told by the link alone.
    let facts = if matches!(active, Datapath::Xdp | Datapath::XdpGeneric) {
        let likely = netns.take().or_else(|| member.netns());
        let (facts, target) = netlink.facts(&link.ifname, likely.as_deref()).await?;
        *netns = target.peer.map(|(netns, _)| netns.name().to_owned());
        facts
    } else {
        Facts { link: link.clone(), features: Features::default(), peer: None }
    };
    faults.extend(ready::undone(&facts, active, role).into_iter().map(Fault::Undone));
    if role == Role::Uplink && promiscuous && !link.promisc {
        faults.push(Fault::Undone(Action::PromiscOn));
    }
    if role == Role::Uplink && !promiscuous {
        let lost = nics::lost_filters(dataplane, netlink, member, link).await?.len();
        faults.extend((lost != 0).then_some(Fault::Unfiltered(lost)));
    }
    Ok(faults)
}

/// Who has an address that an uplink has now, if somebody else has it.
fn claim(dataplane: &Dataplane, mac: MacAddr, slot: u16) -> Result<Option<String>> {
    let bound = dataplane.fdb_entry(key(mac))?.filter(|entry| entry.has(fdb_flags::STATIC));
    let Some(entry) = bound.filter(|entry| entry.slot() != slot) else { return Ok(None) };
    let owner = dataplane.member_at(entry.slot())?.ifname();
    Ok(Some(claimed(mac, &owner, Bound { slot: entry.slot(), flags: entry.flags() })))
}

/// What this process may not know counts as attached.
async fn is_attached(
    dataplane: &Dataplane,
    netlink: &Netlink,
    member: &Member,
    link: &Link,
    hook: Hook,
) -> Result<bool> {
    let tc = matches!(hook, Hook::In | Hook::Out);
    if tc && !links::tcx() {
        let filters = netlink.clsact_filters(link, CLSACT_PRIORITY, CLSACT_HANDLE.into()).await?;
        let runs = if hook == Hook::In { filters.ingress } else { filters.egress };
        let ours = links::program_id(&dataplane.pins, hook);
        return Ok(runs.is_some_and(|id| ours.is_none_or(|ours| ours == id)));
    }
    let at = links::attached_to(&dataplane.pins, member.slot, hook);
    Ok(at.is_none_or(|ifindex| ifindex == link.ifindex))
}
