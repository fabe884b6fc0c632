//! How are interfaces looked up, and how does a request travel to the kernel and its refusal come back?

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
    sys::AsyncSocket as _,
};

use super::{Ethtool, Link, Netns, Refused, check_name};

/// The kernel answers at once; only a message that the parser cannot read leaves a request open.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the interfaces of one network namespace: the one the opening thread was in. It stays with that
/// namespace wherever it is used afterwards. Needs a tokio runtime with time and I/O enabled.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    ethtool: Ethtool,
    netns: Netns,
}

impl Netlink {
    /// Connects in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let what = "open a netlink socket";
        let (mut connection, handle, _) =
            rtnetlink::new_connection().map_err(|err| Refused::from_io(what, &err))?;
        let socket = connection.socket_mut().socket_mut();
        // The kernel then says in words what it dislikes; one that cannot (before 4.12) is no reason to fail.
        if socket.set_ext_ack(true).is_ok() {
            socket.set_cap_ack(true).map_err(|err| Refused::from_io(what, &err))?;
        }
        tokio::spawn(connection);
        Ok(Self { handle, ethtool: Ethtool::open()?, netns: Netns::current()? })
    }

    /// The namespace that it was opened in.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The ethtool interface of the same namespace.
    pub fn ethtool(&self) -> &Ethtool {
        &self.ethtool
    }

    /// The interface of that name; an error when there is none.
    pub async fn get(&self, ifname: &str) -> Result<Link> {
        self.find(ifname).await?.with_context(|| {
            format!(r#"interface "{ifname}": not found (`ip link` shows those of this network namespace)"#)
        })
    }

    /// The interface of that name, if there is one. Errors: no interface can have that name.
    pub async fn find(&self, ifname: &str) -> Result<Option<Link>> {
        check_name(ifname)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(ifname.to_owned()));
        self.look_up(message, format!(r#"look up interface "{ifname}""#)).await
    }

    /// The interface of that index; an error when there is none.
    pub async fn get_index(&self, ifindex: u32) -> Result<Link> {
        self.find_index(ifindex)
            .await?
            .with_context(|| format!("interface with index {ifindex}: not found (it may have gone away)"))
    }

    /// The interface of that index, if there is one.
    pub async fn find_index(&self, ifindex: u32) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        self.look_up(message, format!("look up interface {ifindex}")).await
    }

    /// All interfaces of the namespace, by index.
    pub async fn list(&self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links: Vec<Link> =
            self.dump(request, "list interfaces").await?.into_iter().filter_map(as_link).collect();
        links.sort_by_key(|link| link.ifindex);
        let names: Vec<(u32, String)> =
            links.iter().map(|link| (link.ifindex, link.ifname.clone())).collect();
        for link in &mut links {
            link.driver = self.ethtool.driver(&link.ifname);
            if let Some(master) = &mut link.master {
                master.ifname =
                    names.iter().find(|(i, _)| *i == master.ifindex).map(|(_, name)| name.clone());
            }
        }
        Ok(links)
    }

    async fn look_up(&self, message: LinkMessage, what: String) -> Result<Option<Link>> {
        let Some(mut link) = self.get_one(message, &what).await? else { return Ok(None) };
        link.driver = self.ethtool.driver(&link.ifname);
        if let Some(master) = &mut link.master {
            let mut message = LinkMessage::default();
            message.header.index = master.ifindex;
            master.ifname = self.get_one(message, &what).await?.map(|master| master.ifname);
        }
        Ok(Some(link))
    }

    async fn get_one(&self, message: LinkMessage, what: &str) -> Result<Option<Link>> {
        match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST, what).await {
            Ok(replies) => Ok(replies.into_iter().find_map(as_link)),
            Err(err) if err.downcast_ref::<Refused>().is_some_and(Refused::is_gone) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Sends a change and waits until the kernel has done it. `flags` are NLM_F_CREATE and the like.
    pub(super) async fn change(&self, message: RouteNetlinkMessage, flags: u16, what: &str) -> Result<()> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags, what).await.map(drop)
    }

    /// Asks for a list.
    pub(super) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.request(message, NLM_F_REQUEST | NLM_F_DUMP, what).await
    }

    /// Sends one request and gathers its answers. Errors: [`Refused`] with `what` in front.
    #[expect(clippy::wildcard_enum_match_arm, reason = "acknowledgements and ends of lists carry nothing")]
    pub(super) async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        let mut answers = self.handle.clone().request(message).with_context(|| format!("{what}: netlink"))?;
        let gather = async {
            let mut replies = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::InnerMessage(reply) => replies.push(reply),
                    NetlinkPayload::Error(err) if err.raw_code() != 0 => {
                        let kernel = extended_text(&err.header);
                        return Err(Refused::new(what, err.raw_code().abs()).kernel(kernel));
                    }
                    NetlinkPayload::Overrun(_) => return Err(Refused::new(what, libc::ENOBUFS)),
                    _ => {}
                }
            }
            Ok(replies)
        };
        let timed_out = |_elapsed| Refused::new(what, libc::ETIMEDOUT);
        Ok(tokio::time::timeout(PATIENCE, gather).await.map_err(timed_out)??)
    }
}

fn as_link(message: RouteNetlinkMessage) -> Option<Link> {
    if let RouteNetlinkMessage::NewLink(link) = message { Some(Link::parse(link)) } else { None }
}

/// NLMSGERR_ATTR_MSG behind the 16 bytes of the request's header (NETLINK_CAP_ACK leaves no more of it).
fn extended_text(payload: &[u8]) -> Option<String> {
    const ATTR_MSG: u16 = 1;
    let mut rest = payload.get(16..)?;
    while let [len0, len1, kind0, kind1, ..] = *rest {
        let len = usize::from(u16::from_ne_bytes([len0, len1]));
        let value = rest.get(4..len)?;
        if u16::from_ne_bytes([kind0, kind1]) & 0x3fff == ATTR_MSG {
            let text = String::from_utf8_lossy(value);
            return Some(text.trim_end_matches(['\0', '.']).to_owned());
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}
