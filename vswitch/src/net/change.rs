//! How is an interface created, changed and deleted?

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Result, anyhow, bail};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    },
};

use super::{Link, Mac, Netlink, Refused, mac_text};
use crate::config::names::check_ifname;

/// A link group (`ip link set group`) of interfaces that are about to be deleted together.
const DOOMED: u32 = 0x7673_0000;

/// A veth pair to be made: one end here, the other where it is wanted from its first moment on.
#[derive(Debug, Default)]
pub struct Veth<'a> {
    pub ifname: &'a str,
    /// Random when absent, as is the peer's.
    pub mac: Option<Mac>,
    pub peer_ifname: &'a str,
    /// The peer's namespace; here when absent.
    pub peer_netns: Option<BorrowedFd<'a>>,
    pub peer_mac: Option<Mac>,
    /// Of both ends; 1500 when absent.
    pub mtu: Option<u32>,
}

/// Fails if no interface can have this name, by the configuration's rule.
pub(super) fn check_name(ifname: &str) -> Result<()> {
    check_ifname(ifname).map_err(|what| anyhow!("interface name: {what}"))
}

impl Netlink {
    /// `ip link set up`; no change when it is up.
    pub async fn set_up(&self, link: &Link) -> Result<()> {
        self.set_flag(link, LinkFlags::Up, true, "set up").await
    }

    /// `ip link set down`.
    pub async fn set_down(&self, link: &Link) -> Result<()> {
        self.set_flag(link, LinkFlags::Up, false, "set down").await
    }

    /// Receive frames for any MAC, or no longer. This is the one IFF_PROMISC flag of `ip link set promisc`, shared by
    /// all who set it: who finds it set must leave it so. (A packet socket's own count would end with its process.)
    pub async fn set_promisc(&self, link: &Link, on: bool) -> Result<()> {
        let what = if on { "set promiscuous" } else { "set not promiscuous" };
        self.set_flag(link, LinkFlags::Promisc, on, what).await
    }

    /// Gives the interface another MAC. Errors: EADDRNOTAVAIL for a multicast or zero one; EBUSY where the driver wants it down.
    pub async fn set_mac(&self, link: &Link, mac: &Mac) -> Result<()> {
        let what = format!(r#"set MAC of "{}" to {}"#, link.ifname, mac_text(mac));
        self.set_attribute(link, LinkAttribute::Address(mac.to_vec()), &what).await
    }

    /// Notes something down on the interface, for people and for programs that have forgotten.
    pub async fn set_alias(&self, link: &Link, alias: &str) -> Result<()> {
        let what = format!(r#"set alias of "{}""#, link.ifname);
        self.set_attribute(link, LinkAttribute::IfAlias(alias.to_owned()), &what).await
    }

    /// Deletes the interface; a veth's peer goes with it.
    pub async fn delete(&self, link: &Link) -> Result<()> {
        let what = format!(r#"delete "{}""#, link.ifname);
        self.change(RouteNetlinkMessage::DelLink(addressed(link)), 0, &what).await
    }

    /// Deletes interfaces, all in one step where they are many: each by itself would wait for the kernel's grace periods.
    /// veth's peers go with them. It cannot be done to what is not made by `ip link add` and the like.
    pub async fn delete_all(&self, links: &[Link]) -> Result<()> {
        let unless_gone = |done: Result<()>| match done {
            Err(err) if err.downcast_ref::<Refused>().is_some_and(Refused::is_gone) => Ok(()),
            done => done,
        };
        let (group, what) = match links {
            [] => return Ok(()),
            [only] => return unless_gone(self.delete(only).await),
            // Nobody's, as far as chance will have it.
            [first, ..] => (DOOMED | first.ifindex, format!("delete {} interfaces", links.len())),
        };
        for link in links {
            unless_gone(self.set_attribute(link, LinkAttribute::Group(group), &what).await)?;
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        unless_gone(self.change(RouteNetlinkMessage::DelLink(message), 0, &what).await)
    }

    /// Creates a veth pair, its ends down, the peer directly in its namespace. Errors: either name is taken.
    pub async fn add_veth(&self, veth: &Veth<'_>) -> Result<Link> {
        check_name(veth.ifname)?;
        check_name(veth.peer_ifname)?;
        let mut peer = LinkMessage::default();
        peer.attributes = end(veth.peer_ifname, veth.peer_mac, veth.mtu);
        if let Some(netns) = veth.peer_netns {
            peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        }
        let mut message = LinkMessage::default();
        message.attributes = end(veth.ifname, veth.mac, veth.mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));

        let (ifname, peer_ifname) = (veth.ifname, veth.peer_ifname);
        let what = format!(r#"create veth "{ifname}" with peer "{peer_ifname}""#);
        let made = self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, &what).await;
        if let Err(err) = made {
            // The kernel does not say which of the two names is taken.
            if err.downcast_ref::<Refused>().is_some_and(|refused| refused.errno() == libc::EEXIST) {
                let taken = if self.find(ifname).await?.is_some() { ifname } else { peer_ifname };
                bail!(r#"{what}: an interface "{taken}" exists already: delete it or choose another name"#);
            }
            return Err(err);
        }
        self.get(ifname).await
    }

    async fn set_flag(&self, link: &Link, flag: LinkFlags, on: bool, what: &str) -> Result<()> {
        let mut message = addressed(link);
        message.header.change_mask = flag;
        message.header.flags = if on { flag } else { LinkFlags::empty() };
        let what = format!(r#"{what} "{}""#, link.ifname);
        self.change(RouteNetlinkMessage::NewLink(message), 0, &what).await
    }

    async fn set_attribute(&self, link: &Link, attribute: LinkAttribute, what: &str) -> Result<()> {
        let mut message = addressed(link);
        message.attributes.push(attribute);
        self.change(RouteNetlinkMessage::NewLink(message), 0, what).await
    }
}

/// By index: a name may have passed to another interface since the look-up.
fn addressed(link: &Link) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link.ifindex;
    message
}

fn end(ifname: &str, mac: Option<Mac>, mtu: Option<u32>) -> Vec<LinkAttribute> {
    let mut attributes = vec![LinkAttribute::IfName(ifname.to_owned())];
    attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    attributes.extend(mtu.map(LinkAttribute::Mtu));
    attributes
}
