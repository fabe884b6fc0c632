//! How is a port made ready, and how is that undone?

use anyhow::{Context as _, Result, bail};

use super::{Ethtool, Facts, Feature, Link, LinkKind, Netlink, Netns, PeerFacts, Refused};

/// One change that makes a port ready. `ready` asks only for what is not so already, hence what was applied may be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    LinkUp = 1 << 0,
    PromiscOn = 1 << 1,
    LroOff = 1 << 2,
    RxVlanOff = 1 << 3,
    PeerGroOn = 1 << 4,
    /// Takes TCP and UDP segmentation offload with it, which depend on checksumming.
    PeerTxCsumOff = 1 << 5,
    PeerTxVlanOff = 1 << 6,
}

/// The actions to be undone when the port goes: what a controller stores. The bits are part of the ABI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Undo(pub u32);

/// A port and, for a veth, where its far end is.
#[derive(Debug, Clone)]
pub struct Target {
    pub link: Link,
    /// Namespace and ifindex there.
    pub peer: Option<(Netns, u32)>,
}

impl Action {
    /// Every action, in the order in which they are applied; undoing goes backwards.
    pub const ALL: [Self; 7] = [
        Self::LroOff,
        Self::RxVlanOff,
        Self::PeerTxCsumOff,
        Self::PeerTxVlanOff,
        Self::PeerGroOn,
        Self::PromiscOn,
        Self::LinkUp,
    ];

    /// What it does, for plans and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinkUp => "set up",
            Self::PromiscOn => "set promiscuous",
            Self::LroOff => "large-receive-offload off",
            Self::RxVlanOff => "rx-vlan-offload off",
            Self::PeerGroOn => "generic-receive-offload of the peer on",
            Self::PeerTxCsumOff => "tx-checksumming of the peer off",
            Self::PeerTxVlanOff => "tx-vlan-offload of the peer off",
        }
    }

    /// Does it, and checks that it is so.
    pub async fn apply(self, netlink: &Netlink, target: &Target) -> Result<()> {
        self.switch(netlink, target, true).await
    }

    /// Takes it back. An interface that is gone is no error.
    pub async fn revert(self, netlink: &Netlink, target: &Target) -> Result<()> {
        match self.switch(netlink, target, false).await {
            Err(err) if err.downcast_ref::<Refused>().is_some_and(Refused::is_gone) => Ok(()),
            done => done,
        }
    }

    async fn switch(self, netlink: &Netlink, target: &Target, apply: bool) -> Result<()> {
        let link = &target.link;
        match self {
            Self::LinkUp if apply => netlink.set_up(link).await,
            Self::LinkUp => netlink.set_down(link).await,
            Self::PromiscOn => netlink.set_promisc(link, apply).await,
            Self::LroOff => netlink.ethtool().set(&link.ifname, Feature::Lro, !apply),
            Self::RxVlanOff => netlink.ethtool().set(&link.ifname, Feature::RxVlan, !apply),
            Self::PeerGroOn => target.set_peer(Feature::Gro, apply),
            Self::PeerTxCsumOff => target.set_peer(Feature::TxCsum, !apply),
            Self::PeerTxVlanOff => target.set_peer(Feature::TxVlan, !apply),
        }
        .with_context(|| {
            let ifname = &link.ifname;
            if apply {
                format!(r#"make "{ifname}" ready"#)
            } else {
                format!(r#"put "{ifname}" back as it was"#)
            }
        })
    }
}

impl Undo {
    /// Records `action`.
    pub fn insert(&mut self, action: Action) {
        self.0 |= action as u32;
    }

    /// Forgets `action`.
    pub fn remove(&mut self, action: Action) {
        self.0 &= !(action as u32);
    }

    /// Is `action` recorded?
    pub fn contains(self, action: Action) -> bool {
        self.0 & action as u32 != 0
    }

    /// Those of them that were done to the far end, in its own namespace.
    pub fn of_far_end(self) -> Self {
        let far = Action::PeerGroOn as u32 | Action::PeerTxCsumOff as u32 | Action::PeerTxVlanOff as u32;
        Self(self.0 & far)
    }

    /// The recorded actions in the order in which to revert them. Unknown bits are ignored.
    pub fn actions(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().rev().filter(move |&action| self.contains(action))
    }

    /// Reverts everything recorded, going on after a failure; the first one is returned. XDP must be detached before.
    pub async fn revert(self, netlink: &Netlink, target: &Target) -> Result<()> {
        let mut first = Ok(());
        for action in self.actions() {
            let done = action.revert(netlink, target).await;
            first = first.and(done);
        }
        first
    }
}

impl Target {
    /// Finds where the far end of `link` is. `likely` is a namespace to look at first: there may be a thousand.
    pub async fn of(netlink: &Netlink, link: Link, likely: Option<&str>) -> Result<Self> {
        let peer = match (&link.kind, link.peer) {
            (LinkKind::Veth, Some(peer)) => {
                let netns = match peer.netnsid {
                    Some(id) => netlink.namespace_of(id, likely).await?,
                    None => Some(netlink.netns().clone()),
                };
                netns.map(|netns| (netns, peer.ifindex))
            }
            _ => None,
        };
        Ok(Self { link, peer })
    }

    /// The address of the far end, if it can be reached from here.
    pub fn peer_mac(&self) -> Result<Option<[u8; 6]>> {
        let Some((netns, ifindex)) = &self.peer else { return Ok(None) };
        let peer = netns.run_async_in(async || Netlink::open()?.get_index(*ifindex).await)??;
        Ok(Some(peer.mac))
    }

    /// Switches an offload of the far end, in its namespace.
    fn set_peer(&self, feature: Feature, on: bool) -> Result<()> {
        let Some((netns, ifindex)) = &self.peer else {
            bail!(r#"peer of "{}": its namespace cannot be reached from here"#, self.link.ifname);
        };
        netns.run_in(|| {
            let ethtool = Ethtool::open()?;
            ethtool.set(&ethtool.name_of(*ifindex)?, feature, on)
        })?
    }
}

impl Netlink {
    /// Gathers what [`super::readiness`] wants to know of an interface, and where its far end is: `likely` there.
    pub async fn facts(&self, ifname: &str, likely: Option<&str>) -> Result<(Facts, Target)> {
        let link = self.get(ifname).await?;
        let features = self.ethtool().features(ifname)?;
        let mut target = Target::of(self, link.clone(), likely).await?;
        let mut peer = None;
        if let Some((netns, ifindex)) = &target.peer {
            let look = move || async move {
                let there = Self::open()?;
                let Some(link) = there.find_index(*ifindex).await? else { return Ok(None) };
                let features = there.ethtool().features(&link.ifname)?;
                Ok::<_, anyhow::Error>(Some((link, features)))
            };
            let elsewhere = link.peer.is_some_and(|peer| peer.netnsid.is_some());
            let netns_label = elsewhere.then(|| netns.label().to_owned());
            let looked = match netns.run_async_in(look) {
                // Without CAP_SYS_ADMIN: what needs to know the far end is refused later, tc does not.
                Err(err) if err.downcast_ref::<Refused>().is_some_and(Refused::is_denied) => None,
                looked => looked??,
            };
            peer = looked.map(|(link, features)| PeerFacts { link, features, netns: netns_label });
        }
        if peer.is_none() {
            target.peer = None;
        }
        Ok((Facts { link, features, peer }, target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_is_a_set_reverted_backwards() {
        let mut undo = Undo::default();
        assert_eq!(undo.actions().count(), 0);
        for action in [Action::LinkUp, Action::PeerGroOn, Action::LroOff] {
            undo.insert(action);
        }
        assert_eq!(undo, Undo(0b10101), "the bits are stored in maps: never renumber them");
        assert_eq!(undo.actions().collect::<Vec<_>>(), [Action::LinkUp, Action::PeerGroOn, Action::LroOff]);
        assert_eq!(Undo(u32::MAX).actions().count(), Action::ALL.len());
    }
}
