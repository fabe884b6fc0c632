//! Which further MACs does an interface's own filter let in?

use anyhow::Result;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
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
