//! Who hears a frame? Packet sockets on one interface: one to send raw frames and to hear what arrives.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr, thread,
    time::{Duration, Instant},
};

use crate::{
    frame::{Mac, TAG},
    patience::patience,
    topo::Netns,
};

/// Where the kernel hands over received frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ear {
    /// Everything that reaches the interface, before tc and rx handlers: for the far end of a cable.
    Tap,
    /// One ethertype, after tc and rx handlers: hearing it proves that the machine's own stack was given the frame.
    /// (A tap on a switch's uplink hears every frame whatever the switch does with it, and proves nothing.)
    Stack(u16),
    /// Nothing: it only sends.
    Deaf,
}

/// What the kernel thinks a received frame is; the stack's protocols drop `OtherHost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Host,
    Broadcast,
    Multicast,
    OtherHost,
}

#[derive(Clone, Debug)]
pub struct Arrival {
    pub class: Class,
    /// As it was on the wire: a VLAN tag that the kernel keeps beside the frame is back in its place.
    pub bytes: Vec<u8>,
}

/// Somebody who sends and receives frames: an interface, seen from its namespace.
#[derive(Debug)]
pub struct Station {
    pub name: String,
    pub mac: Mac,
    pub ear: Ear,
    ifindex: u32,
    socket: OwnedFd,
}

/// Larger than any frame of the labs; a longer one is an error, not cut.
const FRAME_MAX: usize = 9216;
const CARRIER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the machine may have no room for one more frame.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(1);
/// Thousands of small frames, each charged with about 1 KiB of buffer.
const RX_BUFFER: libc::c_int = 64 << 20;

impl Station {
    pub fn new(name: &str, netns: &Netns, ifname: &str, mac: Mac, ear: Ear) -> Self {
        let ifindex = netns.ifindex(ifname);
        let protocol = match ear {
            Ear::Tap => libc::ETH_P_ALL as u16,
            Ear::Stack(ethertype) => ethertype,
            Ear::Deaf => 0,
        };
        let socket = netns
            .run(|| open(ifindex, protocol))
            .unwrap_or_else(|err| panic!("open a packet socket on {ifname} for {name}: {err}"));
        Self { name: name.to_owned(), mac, ear, ifindex, socket }
    }

    /// Waits until the interface carries frames. Being up is not enough: the kernel switches a veth's queues and a
    /// bridge's port on from a worker that may run later, and drops what is sent before without a word.
    pub fn await_carrier(&self, ifname: &str) {
        // SAFETY: a plain C struct, for which all zeroes is a valid value.
        let mut request = unsafe { mem::zeroed::<libc::ifreq>() };
        for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
            *to = from as libc::c_char;
        }
        let deadline = Instant::now() + patience(CARRIER_TIMEOUT);
        loop {
            // SAFETY: the request is live and names an interface, with a NUL behind it: names have at most 15 bytes.
            let result =
                unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
            assert_eq!(result, 0, "flags of {ifname} of {}: {}", self.name, io::Error::last_os_error());
            // SAFETY: SIOCGIFFLAGS fills this member of the union.
            let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
            if flags & libc::IFF_RUNNING != 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{ifname} of {} has no carrier", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends one frame as it is. Over veth and bridge it has been received when this returns, or nearly so.
    pub fn send(&self, bytes: &[u8]) {
        // As a stack does it. Before 6.8 a macvlan child does not look at the frame (commit cb297cc5e194), and would not know a
        // pause frame that a socket sends for what it is.
        let ethertype = bytes.get(12..14).map_or(0, |field| u16::from_be_bytes([field[0], field[1]]));
        let address = address(self.ifindex, ethertype);
        let deadline = Instant::now() + patience(BACKLOG_TIMEOUT);
        loop {
            // SAFETY: the pointers and lengths are those of a live slice and a live address, which the call only reads.
            let sent = unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    0,
                    ptr::from_ref(&address).cast(),
                    ADDRESS_LEN,
                )
            };
            if sent == bytes.len() as isize {
                return;
            }
            let err = io::Error::last_os_error();
            // The CPU's backlog is full, which all namespaces share: the frame has not gone out.
            assert_eq!(err.raw_os_error(), Some(libc::ENOBUFS), "{} cannot send: {err}", self.name);
            assert!(Instant::now() < deadline, "{} cannot send: the machine's backlog stays full", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends many frames, as fast as they can be, and the switch has each. One that a full queue has no room for is sent
    /// again, unless the sender is the switch's host: there, it is the switch's own drop that looks the same.
    pub fn burst(&self, frames: &[Vec<u8>], is_host: bool) {
        let mut parts: Vec<_> = frames
            .iter()
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let message = |part: &mut libc::iovec| {
            // SAFETY: a plain C struct, for which all zeroes is a valid value.
            let mut message = unsafe { mem::zeroed::<libc::mmsghdr>() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        };
        let mut messages: Vec<_> = parts.iter_mut().map(message).collect();
        let (mut left, mut refused) = (messages.as_mut_slice(), 0);
        while !left.is_empty() {
            // The kernel takes 1024 at most.
            let count = left.len().min(1024);
            // SAFETY: each message points to a live part, which points to a live frame; the call only reads frames.
            let sent = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), left.as_mut_ptr(), count as libc::c_uint, 0)
            };
            let sent = usize::try_from(sent).unwrap_or_else(|_| {
                let err = io::Error::last_os_error();
                assert_eq!(err.raw_os_error(), Some(libc::ENOBUFS), "{} cannot send: {err}", self.name);
                0
            });
            // It stops at the first frame that is refused.
            let dropped = usize::from(is_host && sent < count);
            refused = if sent + dropped > 0 { 0 } else { refused + 1 };
            assert!(refused < 10_000, "{}: the machine's queues stay full", self.name);
            if refused > 0 {
                thread::sleep(Duration::from_micros(100));
            }
            left = &mut left[sent + dropped..];
        }
    }

    /// The next frame in the queue, without waiting.
    pub fn receive(&self) -> Option<Arrival> {
        let mut bytes = vec![0; FRAME_MAX];
        let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: both are plain C structs, for which all zeroes is a valid value.
        let (mut from, mut header) = unsafe { mem::zeroed::<(libc::sockaddr_ll, libc::msghdr)>() };
        // u64 gives the alignment that control message headers need.
        let mut control = [0_u64; 16];
        header.msg_name = ptr::from_mut(&mut from).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);

        // SAFETY: every pointer in the header is to a live local of the length given beside it.
        let len = unsafe {
            libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
        };
        if len < 0 {
            let err = io::Error::last_os_error();
            // ENETDOWN is told once to sockets whose interface goes down; tests do that on purpose.
            assert!(
                matches!(err.raw_os_error(), Some(libc::EAGAIN | libc::ENETDOWN)),
                "{} cannot receive: {err}",
                self.name
            );
            return None;
        }
        assert!(len as usize <= FRAME_MAX, "{} received a frame of {len} bytes, above FRAME_MAX", self.name);
        bytes.truncate(len as usize);
        if let Some(tag) = tag_beside(&header) {
            bytes.splice(TAG.start..TAG.start, tag);
        }
        let class = match from.sll_pkttype {
            libc::PACKET_HOST => Class::Host,
            libc::PACKET_BROADCAST => Class::Broadcast,
            libc::PACKET_MULTICAST => Class::Multicast,
            libc::PACKET_OTHERHOST => Class::OtherHost,
            other => panic!("{} received a frame of packet type {other}", self.name),
        };
        Some(Arrival { class, bytes })
    }

    /// For poll(2).
    pub fn ear_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Panics if the socket had to drop frames since the last call: then silence means nothing.
    pub fn assert_nothing_lost(&self) {
        assert_eq!(overflowed(&self.socket), 0, "the receive buffer of {} overflowed", self.name);
    }
}

/// How many frames the socket had to drop since the last call.
pub(crate) fn overflowed(socket: &OwnedFd) -> u32 {
    // SAFETY: a plain C struct, for which all zeroes is a valid value.
    let mut stats = unsafe { mem::zeroed::<libc::tpacket_stats>() };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of the struct it is pointed to.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            ptr::from_mut(&mut stats).cast(),
            &raw mut len,
        )
    };
    assert_eq!(result, 0, "a socket's statistics: {}", io::Error::last_os_error());
    stats.tp_drops
}

/// The VLAN tag that the kernel moved from the frame into the packet's metadata, as bytes on the wire.
fn tag_beside(header: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: recvmsg filled the header; its control buffer is still alive in the caller.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a complete header inside the control buffer.
    while let Some(cmsg) = unsafe { message.as_ref() } {
        if (cmsg.cmsg_level, cmsg.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: a PACKET_AUXDATA message carries one tpacket_auxdata; unaligned, as only bytes are promised.
            let aux = unsafe { libc::CMSG_DATA(message).cast::<libc::tpacket_auxdata>().read_unaligned() };
            if aux.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
                return None;
            }
            let ([p0, p1], [t0, t1]) = (aux.tp_vlan_tpid.to_be_bytes(), aux.tp_vlan_tci.to_be_bytes());
            return Some([p0, p1, t0, t1]);
        }
        // SAFETY: as above, with the header that recvmsg filled and a message inside it.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// A packet socket that hears one protocol on one interface of the calling thread's namespace.
pub(crate) fn open(ifindex: u32, protocol: u16) -> io::Result<OwnedFd> {
    // Protocol 0 hears nothing: otherwise the queue would begin with frames of every interface, before the options.
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RX_BUFFER)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    let address = address(ifindex, protocol);
    // SAFETY: the address is a live sockaddr_ll and the length is its size.
    let result = unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), ADDRESS_LEN) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn address(ifindex: u32, protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: a plain C struct, for which all zeroes is a valid value.
    let mut address = unsafe { mem::zeroed::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex as i32;
    address
}

fn set_option(socket: &OwnedFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is a live int and the length is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
