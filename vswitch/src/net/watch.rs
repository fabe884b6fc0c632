//! What happens to the interfaces of this namespace from now on?

use anyhow::Result;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage},
    sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use std::collections::VecDeque;

use super::{Link, Refused};

/// Room for some thousand events: a burst while the controller works is the rule when a host starts its containers.
const BUFFER: libc::c_int = 4 << 20;

/// One change. An interface that moves to another namespace is `Gone` here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared or changed; also sent when nothing that [`Link`] shows differs. `driver` and the master's name are
    /// not filled.
    Changed(Box<Link>),
    Gone {
        ifindex: u32,
        ifname: String,
    },
    /// Events were lost: list the interfaces anew.
    Resync,
}

/// A subscription to link events (RTNLGRP_LINK) in the namespace that the opening thread was in.
pub struct Watch {
    socket: TokioSocket,
    waiting: VecDeque<LinkEvent>,
}

impl Watch {
    /// Subscribes. Open it before listing the interfaces, so that no change falls between the two.
    pub fn open() -> Result<Self> {
        Self::with_buffer(BUFFER)
    }

    pub(super) fn with_buffer(bytes: libc::c_int) -> Result<Self> {
        let refused = |err: std::io::Error| Refused::from_io("subscribe to link events", &err);
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(refused)?;
        // Best effort: the kernel caps it at net.core.rmem_max.
        let _ = socket.socket_ref().set_rx_buf_sz(bytes);
        let group = 1 << (MulticastGroup::Link as u32 - 1);
        socket.socket_mut().bind(&SocketAddr::new(0, group)).map_err(refused)?;
        Ok(Self { socket, waiting: VecDeque::new() })
    }

    /// Waits for the next event. May be dropped while waiting (`select!`) without losing one. Errors: the socket failed.
    pub async fn next(&mut self) -> Result<LinkEvent> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            match self.socket.recv_from_full().await {
                // Port 0 is the kernel; any process may send to a multicast group that it may join.
                Ok((bytes, from)) if from.port_number() == 0 => decode(&bytes, &mut self.waiting),
                Ok(_) => {}
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.drain();
                    return Ok(LinkEvent::Resync);
                }
                Err(err) => return Err(Refused::from_io("read link events", &err).into()),
            }
        }
    }
}

impl Watch {
    /// After an overrun the kernel drops every further event, and says so no second time, until the queue has been
    /// empty once (netlink_overrun and netlink_rcv_wake, net/netlink/af_netlink.c). Only what comes then is complete;
    /// the list that follows replaces what is thrown away here.
    fn drain(&mut self) {
        loop {
            match self.socket.socket_ref().recv_from_full() {
                Ok(_) => {}
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

fn decode(mut bytes: &[u8], events: &mut VecDeque<LinkEvent>) {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
            // Not understood: whatever it said, a new list says it too.
            events.push_back(LinkEvent::Resync);
            return;
        };
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            events.extend(event(message));
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

/// AF_BRIDGE messages tell of a bridge's port, and their RTM_DELLINK means that it left the bridge, not that it is gone.
fn event(message: RouteNetlinkMessage) -> Option<LinkEvent> {
    let gone = message.is_del_link();
    let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message else {
        return None;
    };
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let link = Link::parse(message);
    Some(if gone {
        LinkEvent::Gone { ifindex: link.ifindex, ifname: link.ifname }
    } else {
        LinkEvent::Changed(Box::new(link))
    })
}
