//! What must be true of a port so that it loses no frame silently, which datapath suits it, and what stands against it?

use std::fmt;

mod limits;
#[cfg(test)]
mod tests;

pub use limits::{TUN_XDP_MTU, VETH_XDP_MTU, VIRTIO_XDP_MTU};
use limits::{known_native, mtu};

use super::{Action, Features, Link, LinkKind, XdpProgram};
use crate::config::{Datapath, Role};

/// All that is to be known of a port beforehand; [`super::Netlink::facts`] gathers it.
#[derive(Debug, Clone)]
pub struct Facts {
    pub link: Link,
    pub features: Features,
    /// The far end of a veth. `None` also when its namespace cannot be reached from here.
    pub peer: Option<PeerFacts>,
}

/// The far end of a veth, looked up in its own namespace.
#[derive(Debug, Clone)]
pub struct PeerFacts {
    pub link: Link,
    pub features: Features,
    /// The namespace as it is called in messages; `None`: the port's own.
    pub netns: Option<String>,
}

/// The port can be used so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// What it is, never [`Datapath::Auto`].
    pub datapath: Datapath,
    /// What is still missing, in the order in which to do it; empty on a port that is ready. To be applied before XDP is
    /// attached, and reverted after it is detached: in between, frames would be lost.
    pub actions: Vec<Action>,
    /// What is worth knowing and prevents nothing.
    pub notes: Vec<String>,
}

/// The port cannot be used so. Displays as `"IF": reason: remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub ifname: String,
    pub reason: String,
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#""{}": {}: {}"#, self.ifname, self.reason, self.remedy)
    }
}

impl std::error::Error for Refusal {}

/// Decides. `own` are the ids of the switch's own XDP programs: any other on the port is somebody else's.
pub fn readiness(facts: &Facts, wanted: Datapath, role: Role, own: &[u32]) -> Result<Readiness, Refusal> {
    acceptable(&facts.link, own)?;
    let mut notes = Vec::new();
    let datapath = match wanted {
        Datapath::Tc => Datapath::Tc,
        Datapath::Auto => automatic(facts, &mut notes),
        Datapath::Xdp => {
            native(facts, &mut notes)?;
            Datapath::Xdp
        }
        Datapath::XdpGeneric => {
            generic(facts, role)?;
            notes.push("generic XDP is slower than tc and meant for trying things out".into());
            Datapath::XdpGeneric
        }
    };
    let actions = missing(facts, datapath, role);
    if let Some(peer) = facts.peer.as_ref().filter(|peer| !peer.link.up) {
        notes.push(format!("{} is down: nothing passes until it is up", describe(peer)));
    }
    if let Some(peer) = facts.peer.as_ref().filter(|peer| peer.link.mtu != facts.link.mtu) {
        let (mtu, other) = (facts.link.mtu, peer.link.mtu);
        notes.push(format!(
            "MTU {mtu} here and {other} at {}: frames longer than the smaller are dropped",
            describe(peer)
        ));
    }
    if facts.link.kind == LinkKind::Macvlan {
        notes.push(
            "a macvlan receives frames for its own MAC alone: stations behind it are not reached".into(),
        );
    }
    Ok(Readiness { datapath, actions, notes })
}

/// What no datapath helps against.
fn acceptable(link: &Link, own: &[u32]) -> Result<(), Refusal> {
    let refuse = |reason: String, remedy: &str| Err(refusal(link, reason, remedy));
    if link.kind == LinkKind::Loopback {
        return refuse("loopback carries no frames of other stations".into(), "name another interface");
    }
    if link.kind == LinkKind::Tun {
        return refuse(
            "a tun carries IP packets without Ethernet headers".into(),
            "make it a tap (mode tap)",
        );
    }
    if link.kind == LinkKind::NetkitL3 {
        return refuse(
            "a netkit in mode l3 carries IP packets without Ethernet headers".into(),
            "make it with mode l2",
        );
    }
    if !link.ethernet {
        return refuse(
            format!("{} carries no Ethernet frames", link.kind.as_str()),
            "name another interface",
        );
    }
    if let Some(master) = &link.master {
        let name = master.ifname.as_deref().map_or_else(|| master.ifindex.to_string(), str::to_owned);
        let remedy = format!("ip link set {} nomaster", link.ifname);
        return refuse(format!("already a port of {} {name}", master.kind), &remedy);
    }
    match link.xdp {
        Some(XdpProgram { id, .. }) if !own.contains(&id) => refuse(
            format!("another XDP program is attached (id {id})"),
            &format!("see `bpftool net show dev {0}`; ip link set {0} xdp off", link.ifname),
        ),
        Some(_) | None => Ok(()),
    }
}

/// What stands against a port that was acceptable once.
pub fn taken(link: &Link, own: &[u32]) -> Option<Refusal> {
    acceptable(link, own).err()
}

/// What made a port ready for its datapath and is not so any more. That it is down is for its administrator to say.
pub fn undone(facts: &Facts, datapath: Datapath, role: Role) -> Vec<Action> {
    let mut actions = missing(facts, datapath, role);
    actions.retain(|action| *action != Action::LinkUp);
    actions
}

/// XDP where frames arrive in hardware and the driver hands them over raw; tc where a stack is on the other side.
fn automatic(facts: &Facts, notes: &mut Vec<String>) -> Datapath {
    let link = &facts.link;
    if link.kind != LinkKind::Physical {
        return Datapath::Tc;
    }
    if !known_native(link) {
        let driver = link.driver.as_deref().unwrap_or("unknown");
        notes.push(format!("tc, for the driver {driver} is not known to have native XDP"));
        return Datapath::Tc;
    }
    match mtu(facts) {
        Ok(()) => Datapath::Xdp,
        Err(refusal) => {
            notes.push(format!("tc, for {}", refusal.reason));
            Datapath::Tc
        }
    }
}

fn native(facts: &Facts, notes: &mut Vec<String>) -> Result<(), Refusal> {
    let link = &facts.link;
    match &link.kind {
        LinkKind::Physical if known_native(link) => {}
        LinkKind::Physical | LinkKind::Bond | LinkKind::Other(_) => {
            notes.push("native XDP is not known of this driver: attaching it will tell".into());
        }
        LinkKind::Veth if facts.peer.is_none() => {
            let reason =
                "XDP needs the veth's far end prepared, and its namespace cannot be reached from here";
            return Err(refusal(
                link,
                reason.into(),
                "name it (ip netns attach NAME PID) or use --datapath tc",
            ));
        }
        LinkKind::Veth => {}
        LinkKind::Tap => {
            notes.push("XDP on a tap loses checksums that a guest leaves to the host: switch its off".into());
        }
        LinkKind::Bridge
        | LinkKind::Macvlan
        | LinkKind::Vlan
        | LinkKind::Dummy
        | LinkKind::Netkit
        | LinkKind::NetkitL3
        | LinkKind::Tun
        | LinkKind::Loopback => {
            let reason = format!("{} has no native XDP", link.kind.as_str());
            return Err(refusal(link, reason, "use --datapath tc"));
        }
    }
    mtu(facts)
}

fn generic(facts: &Facts, role: Role) -> Result<(), Refusal> {
    if role == Role::Uplink {
        let reason = "generic XDP on an uplink: a frame handed to the host would enter the switch again";
        return Err(refusal(&facts.link, reason.into(), "use --datapath tc"));
    }
    if facts.link.kind == LinkKind::Veth && facts.peer.is_none() {
        let reason = "XDP needs the veth's far end prepared, and its namespace cannot be reached from here";
        return Err(refusal(
            &facts.link,
            reason.into(),
            "name it (ip netns attach NAME PID) or use --datapath tc",
        ));
    }
    Ok(())
}

/// The actions that `datapath` still needs on this port.
fn missing(facts: &Facts, datapath: Datapath, role: Role) -> Vec<Action> {
    let Facts { link, features, peer } = facts;
    let raw = datapath != Datapath::Tc;
    // The far end of these gives away every frame that it sends; the others filter by MAC.
    let filters = !matches!(link.kind, LinkKind::Veth | LinkKind::Tap | LinkKind::Dummy | LinkKind::Netkit);
    let mut actions = Vec::new();
    let mut need = |condition: bool, action: Action| actions.extend(condition.then_some(action));
    // XDP sees single frames as they are on the wire, tags included.
    need(raw && features.lro, Action::LroOff);
    need(raw && link.kind == LinkKind::Physical && features.rx_vlan, Action::RxVlanOff);
    if let (true, LinkKind::Veth, Some(peer)) = (raw, &link.kind, peer) {
        // What the sender leaves for the device to do (checksum, cutting, tag) is lost with the skb.
        need(peer.features.tx_csum, Action::PeerTxCsumOff);
        need(peer.features.tx_vlan, Action::PeerTxVlanOff);
        // NAPI there, or XDP redirects into this port vanish.
        need(datapath == Datapath::Xdp && !peer.features.gro && peer.link.xdp.is_none(), Action::PeerGroOn);
    }
    // An uplink's filters follow from the other ports: see `uplink`.
    need(filters && role == Role::Downlink && !link.promisc, Action::PromiscOn);
    need(!link.up, Action::LinkUp);
    actions
}

fn describe(peer: &PeerFacts) -> String {
    match &peer.netns {
        Some(netns) => format!("its peer {} in {netns}", peer.link.ifname),
        None => format!("its peer {}", peer.link.ifname),
    }
}

fn refusal(link: &Link, reason: String, remedy: &str) -> Refusal {
    Refusal { ifname: link.ifname.clone(), reason, remedy: remedy.into() }
}
