//! Which further MACs does an interface's own filter let in, and which IP addresses does it have?

use std::net::IpAddr;

use anyhow::Result;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};

use super::{Link, Mac, Netlink, Refused, mac_text};

impl Netlink {
    /// Lets frames to `mac` in without promiscuity: `bridge fdb add MAC dev IF self`. Returns whether that is new.
    /// Errors: EOPNOTSUPP where the driver has no filter, EINVAL for a MAC that it cannot hold.
    pub async fn fdb_self_add(&self, link: &Link, mac: &Mac) -> Result<bool> {
        let what = format!(r#"let {} in at "{}""#, mac_text(mac), link.ifname);
        let message = RouteNetlinkMessage::NewNeighbour(filter(link, mac));
        match self.change(message, NLM_F_CREATE | NLM_F_EXCL, &what).await {
            Err(err) if refusal(&err) == Some(libc::EEXIST) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Takes such an entry away; that there is none is no error.
    pub async fn fdb_self_del(&self, link: &Link, mac: &Mac) -> Result<()> {
        let what = format!(r#"no longer let {} in at "{}""#, mac_text(mac), link.ifname);
        match self.change(RouteNetlinkMessage::DelNeighbour(filter(link, mac)), 0, &what).await {
            Err(err) if refusal(&err) == Some(libc::ENOENT) => Ok(()),
            done => done,
        }
    }

    /// The entries of the interface's own filter, unicast and multicast: `bridge fdb show dev IF`, those marked `self`.
    pub async fn fdb_self_list(&self, link: &Link) -> Result<Vec<Mac>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let what = format!(r#"list the filter of "{}""#, link.ifname);
        let replies = self.dump(RouteNetlinkMessage::GetNeighbour(message), &what).await?;
        Ok(replies.into_iter().filter_map(|reply| own_entry(reply, link.ifindex)).collect())
    }

    /// The IP addresses of the interface, with their prefix lengths.
    pub async fn addresses(&self, link: &Link) -> Result<Vec<(IpAddr, u8)>> {
        let what = format!(r#"list the addresses of "{}""#, link.ifname);
        let replies = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), &what).await?;
        Ok(replies.into_iter().filter_map(|reply| address(reply, link.ifindex)).collect())
    }
}

fn refusal(err: &anyhow::Error) -> Option<i32> {
    err.downcast_ref::<Refused>().map(Refused::errno)
}

fn filter(link: &Link, mac: &Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link.ifindex;
    message.header.state = NeighbourState::Permanent;
    // NTF_SELF: the interface's own filter, not that of a bridge it is a port of.
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}

fn own_entry(reply: RouteNetlinkMessage, ifindex: u32) -> Option<Mac> {
    let RouteNetlinkMessage::NewNeighbour(entry) = reply else { return None };
    if entry.header.ifindex != ifindex || !entry.header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    entry.attributes.into_iter().find_map(|attribute| {
        if let NeighbourAttribute::LinkLayerAddress(mac) = attribute { mac.try_into().ok() } else { None }
    })
}

fn address(reply: RouteNetlinkMessage, ifindex: u32) -> Option<(IpAddr, u8)> {
    let RouteNetlinkMessage::NewAddress(entry) = reply else { return None };
    if entry.header.index != ifindex {
        return None;
    }
    // On a point-to-point link IFA_ADDRESS is the far end and IFA_LOCAL the own address; IPv6 has IFA_ADDRESS alone.
    let (mut own, mut any) = (None, None);
    for attribute in entry.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            own = Some(ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            any = Some(ip);
        }
    }
    own.or(any).map(|ip| (ip, entry.header.prefix_len))
}
