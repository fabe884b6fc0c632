//! What happens to the interfaces of this namespace from now on, and to the far ends of its veths in others?

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd as _, RawFd},
};

use anyhow::Result;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use tokio::io::unix::AsyncFd;

use super::{Link, Refused};

mod filter;

/// Room for some thousand events: a burst while the controller works is the rule when a host starts its containers.
const BUFFER: libc::c_int = 4 << 20;

/// More than the kernel ever puts into one message of ours.
const LONGEST: usize = 64 << 10;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared or changed; also sent when nothing that [`Link`] shows differs. `driver` and the master's name are
    /// not filled.
    Changed(Box<Link>),
    /// It is here no longer.
    Gone {
        ifindex: u32,
        /// It lives on in another namespace.
        moved: bool,
    },
    /// Something on it is gone that is not told of as part of the link: an entry of its receive filter, a qdisc, or a tc
    /// filter, in whose place there may be another.
    Stripped { ifindex: u32 },
    /// An interface changed or went in another namespace, by the number that this one gives to that (`ip netns list-id`).
    Elsewhere { netnsid: i32, ifindex: u32 },
    /// Events were lost: list the interfaces anew.
    Resync,
}

/// A subscription to link events in the namespace that the opening thread was in, and in those that it has numbers for.
pub struct Watch {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    waiting: VecDeque<LinkEvent>,
}

impl Watch {
    /// Subscribes. Open it before listing the interfaces, so that no change falls between the two.
    pub fn open() -> Result<Self> {
        Self::with_buffer(BUFFER)
    }

    pub(super) fn with_buffer(bytes: libc::c_int) -> Result<Self> {
        let refused = |err: io::Error| Refused::from_io("subscribe to link events", &err);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(refused)?;
        socket.set_non_blocking(true).map_err(refused)?;
        // Best effort: the kernel caps it at net.core.rmem_max.
        let _ = socket.set_rx_buf_sz(bytes);
        filter::attach(socket.as_raw_fd()).map_err(refused)?;
        // Best effort: without CAP_NET_BROADCAST far ends are looked at when all is.
        let _ = listen_to_all(socket.as_raw_fd());
        let group = |group: MulticastGroup| 1 << (group as u32 - 1);
        let groups = group(MulticastGroup::Link) | group(MulticastGroup::Neigh) | group(MulticastGroup::Tc);
        socket.bind(&SocketAddr::new(0, groups)).map_err(refused)?;
        // SAFETY: the socket owns its descriptor, and is neither replaced nor closed while `AsyncFd` has it.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|err| refused(err.into()))?;
        Ok(Self { socket, buffer: vec![0; LONGEST], waiting: VecDeque::new() })
    }

    /// Waits for the next event. May be dropped while waiting (`select!`) without losing one. Errors: the socket failed.
    pub async fn next(&mut self) -> Result<LinkEvent> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let failed = |err: io::Error| Refused::from_io("read link events", &err);
            let mut ready = self.socket.readable().await.map_err(failed)?;
            let buffer = &mut self.buffer;
            let Ok(received) = ready.try_io(|socket| receive(socket.as_raw_fd(), buffer)) else { continue };
            match received {
                // Port 0 is the kernel; any process may send to a multicast group that it may join.
                Ok(Datagram { from: 0, length, netnsid }) => {
                    decode(self.buffer.get(..length).unwrap_or_default(), netnsid, &mut self.waiting);
                }
                Ok(_) => {}
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.drain();
                    return Ok(LinkEvent::Resync);
                }
                Err(err) => return Err(failed(err).into()),
            }
        }
    }

    /// After an overrun the kernel drops every further event, and says so no second time, until the queue has been
    /// empty once (netlink_overrun and netlink_rcv_wake, net/netlink/af_netlink.c). Only what comes then is complete;
    /// the list that follows replaces what is thrown away here.
    fn drain(&mut self) {
        loop {
            match receive(self.socket.as_raw_fd(), &mut self.buffer) {
                Ok(_) => {}
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

/// Asks for the events of all namespaces that have a number here, as those of far ends have (NETLINK_LISTEN_ALL_NSID).
fn listen_to_all(fd: RawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from `on`, which is as long and outlives the call.
    let done = unsafe {
        libc::setsockopt(fd, libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID, (&raw const on).cast(), length)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

struct Datagram {
    /// The sender's port.
    from: u32,
    length: usize,
    /// None: this namespace.
    netnsid: Option<i32>,
}

/// recvmsg(2) with the one control message that tells the namespace, which netlink-sys has no word for.
fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    // u64s, so that it is aligned as a cmsghdr.
    let mut control = [0u64; 8];
    // SAFETY: all-zero bytes are a valid sockaddr_nl and a valid msghdr: they consist of integers and null pointers.
    let (mut sender, mut message) = unsafe { std::mem::zeroed::<(libc::sockaddr_nl, libc::msghdr)>() };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut sender).cast();
    message.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: every pointer in `message` is to memory of the length beside it, and outlives the call.
    let length = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut netnsid = None;
    // SAFETY: the kernel has filled `message`, whose control buffer is `control`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give pointers to whole headers within `control`, or null.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if (level, kind) == (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID) {
            // SAFETY: the data of this control message is an int, not necessarily aligned.
            netnsid = Some(unsafe { libc::CMSG_DATA(header).cast::<i32>().read_unaligned() });
        }
        // SAFETY: `header` is one of `message`'s.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Datagram { from: sender.nl_pid, length: length.unsigned_abs(), netnsid })
}

fn decode(mut bytes: &[u8], netnsid: Option<i32>, events: &mut VecDeque<LinkEvent>) {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
            // Not understood: whatever it said, a new list says it too.
            events.push_back(LinkEvent::Resync);
            return;
        };
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            events.extend(event(message, netnsid));
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the filter lets nothing else through")]
fn event(message: RouteNetlinkMessage, netnsid: Option<i32>) -> Option<LinkEvent> {
    let gone = message.is_del_link();
    let link = match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => link,
        _ if netnsid.is_some() => return None,
        RouteNetlinkMessage::DelNeighbour(entry) => {
            return Some(LinkEvent::Stripped { ifindex: entry.header.ifindex });
        }
        RouteNetlinkMessage::DelQueueDiscipline(tc)
        | RouteNetlinkMessage::NewTrafficFilter(tc)
        | RouteNetlinkMessage::DelTrafficFilter(tc) => {
            return Some(LinkEvent::Stripped { ifindex: tc.header.index.cast_unsigned() });
        }
        _ => return None,
    };
    // AF_BRIDGE messages tell of a bridge's port, and their RTM_DELLINK means that it left the bridge, not that it is gone.
    if link.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    if let Some(netnsid) = netnsid {
        return Some(LinkEvent::Elsewhere { netnsid, ifindex: link.header.index });
    }
    let moved = has_moved(&link);
    let link = Link::parse(link);
    Some(if gone {
        LinkEvent::Gone { ifindex: link.ifindex, moved }
    } else {
        LinkEvent::Changed(Box::new(link))
    })
}

/// Whether an interface that is gone has gone to another namespace (rtmsg_ifinfo_newnet, net/core/rtnetlink.c).
fn has_moved(link: &LinkMessage) -> bool {
    link.attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::NewNetnsId(_) | LinkAttribute::NewIfIndex(_)))
}
