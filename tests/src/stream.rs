//! Does every byte arrive, and unchanged? Streams of a known pattern by TCP and by UDP, from one namespace to another.

use std::{
    io::{self, Read as _, Write as _},
    mem,
    net::{Shutdown, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{patience::patience, topo::Netns};

/// How long a stream may stand still.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A prime, and no period that a segment, a page or a buffer could share.
const PERIOD: usize = 65_521;
const CHUNK: usize = 128 << 10;
/// Bytes of a datagram: its number, and as much of the stream as fits an MTU of 1500 with headers.
const NUMBER: usize = 8;
const BLOCK: usize = 1464;
/// Datagrams that are on their way at once: what a super-frame holds, and a veth's ring.
const WINDOW: usize = 40;
/// How long a window may be on its way until it is sent again.
const AGAIN: Duration = Duration::from_millis(100);

/// One end of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    pub name: &'a str,
    pub netns: &'a Netns,
    pub address: &'a str,
}

/// Moves bytes by TCP and compares each with what was sent. Returns how many segments were sent again.
pub fn tcp(from: Host<'_>, to: Host<'_>, bytes: usize) -> u32 {
    let listener = to.netns.run(|| TcpListener::bind((to.address, 0))).expect("listen");
    let address = listener.local_addr().expect("bound");
    let sender = from.netns.run(|| TcpStream::connect_timeout(&address, patience(TIMEOUT)));
    let mut sender = sender.unwrap_or_else(|err| panic!("{} connects to {}: {err}", from.name, to.name));
    sender.set_write_timeout(Some(patience(TIMEOUT))).expect("set a timeout");
    let (mut receiver, _) = listener.accept().expect("accept");
    receiver.set_read_timeout(Some(patience(TIMEOUT))).expect("set a timeout");
    let pattern = pattern();
    thread::scope(|scope| {
        let pattern = &pattern;
        let received = scope.spawn(move || {
            let (mut buffer, mut at) = (vec![0; CHUNK], 0);
            loop {
                match receiver.read(&mut buffer) {
                    Ok(0) => return at,
                    Ok(len) => {
                        assert!(
                            buffer[..len] == pattern[at % PERIOD..][..len],
                            "{} received other bytes than {} sent, after {at}",
                            to.name,
                            from.name
                        );
                        at += len;
                    }
                    Err(err) => panic!("{} receives from {}, after {at} bytes: {err}", to.name, from.name),
                }
            }
        });
        let mut at = 0;
        while at < bytes {
            let len = CHUNK.min(bytes - at);
            let sent = sender.write_all(&pattern[at % PERIOD..][..len]);
            sent.unwrap_or_else(|err| panic!("{} sends to {}, after {at} bytes: {err}", from.name, to.name));
            at += len;
        }
        sender.shutdown(Shutdown::Write).expect("end the stream");
        let received = received.join().expect("the receiver's thread");
        assert_eq!(received, bytes, "bytes from {} to {}", from.name, to.name);
    });
    retransmits(&sender)
}

/// Moves bytes by UDP, a window at a time, and compares each with what was sent. With `segmented` the kernel is given
/// whole windows to cut (UDP_SEGMENT). Returns how many windows were sent again.
pub fn udp(from: Host<'_>, to: Host<'_>, bytes: usize, segmented: bool) -> u32 {
    let bind = |host: Host<'_>| host.netns.run(|| UdpSocket::bind((host.address, 0))).expect("bind");
    let (sender, receiver) = (bind(from), bind(to));
    sender.connect(receiver.local_addr().expect("bound")).expect("connect");
    sender.set_read_timeout(Some(AGAIN)).expect("set a timeout");
    receiver.set_read_timeout(Some(AGAIN)).expect("set a timeout");
    more_room(&receiver);
    if segmented {
        cut_into(&sender, NUMBER + BLOCK);
    }
    let (pattern, blocks, done) = (pattern(), bytes.div_ceil(BLOCK), AtomicBool::new(false));
    thread::scope(|scope| {
        let received = scope.spawn(|| receive(&receiver, &pattern, blocks, &done));
        let mut again = 0;
        for first in (0..blocks).step_by(WINDOW) {
            let window = first..blocks.min(first + WINDOW);
            let datagrams: Vec<Vec<u8>> = window
                .clone()
                .map(|number| {
                    [&(number as u64).to_be_bytes()[..], &pattern[number * BLOCK % PERIOD..][..BLOCK]]
                        .concat()
                })
                .collect();
            for attempt in 0.. {
                assert!(
                    attempt < 50,
                    "{} sends to {}: nothing arrives after {first} datagrams",
                    from.name,
                    to.name
                );
                again += u32::from(attempt > 0);
                let sent = if segmented {
                    sender.send(&datagrams.concat()).map(drop)
                } else {
                    datagrams.iter().try_for_each(|datagram| sender.send(datagram).map(drop))
                };
                match sent {
                    Ok(()) => {}
                    Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => continue,
                    Err(err) => panic!("{} sends to {}: {err}", from.name, to.name),
                }
                if acknowledged(&sender, window.end) {
                    break;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        received
            .join()
            .unwrap_or_else(|_| panic!("{} received other bytes than {} sent", to.name, from.name));
        again
    })
}

/// Takes windows, and tells the sender of each that is whole, until the sender is `done`.
fn receive(socket: &UdpSocket, pattern: &[u8], blocks: usize, done: &AtomicBool) {
    let mut buffer = [0; 1 << 16];
    let (mut first, mut have, mut heard) = (0, 0_u64, Instant::now());
    while !done.load(Ordering::Relaxed) {
        let Ok((len, sender)) = socket.recv_from(&mut buffer) else {
            assert!(heard.elapsed() < patience(TIMEOUT), "nothing more after {first} datagrams");
            continue;
        };
        heard = Instant::now();
        let (number, block) = buffer[..len].split_at(NUMBER);
        let number = u64::from_be_bytes(number.try_into().expect("its length")) as usize;
        assert!(
            number < blocks && block == &pattern[number * BLOCK % PERIOD..][..BLOCK],
            "datagram {number}"
        );
        let end = blocks.min(first + WINDOW);
        if (first..end).contains(&number) {
            have |= 1 << (number - first);
        }
        let whole = end > first && have.count_ones() as usize == end - first;
        if whole {
            (first, have) = (end, 0);
        }
        // Also if the sender has not heard of it before.
        if whole || number + 1 == first {
            socket.send_to(&(first as u64).to_be_bytes(), sender).expect("acknowledge");
        }
    }
}

fn acknowledged(socket: &UdpSocket, end: usize) -> bool {
    let mut number = [0; NUMBER];
    while socket.recv(&mut number).is_ok() {
        if u64::from_be_bytes(number) as usize >= end {
            return true;
        }
    }
    false
}

/// A chunk of the stream, at any phase of it.
fn pattern() -> Vec<u8> {
    (0..CHUNK + PERIOD).map(|at| (at % PERIOD % 251) as u8).collect()
}

fn more_room(socket: &UdpSocket) {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20);
}

/// Has the kernel, or the device, cut what is sent into datagrams of so many bytes.
fn cut_into(socket: &UdpSocket, bytes: usize) {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, bytes as libc::c_int);
}

fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let (fd, len) = (socket.as_raw_fd(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the value is a live int and the length is its size.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
    assert_eq!(result, 0, "socket option {option}: {}", io::Error::last_os_error());
}

fn retransmits(stream: &TcpStream) -> u32 {
    // SAFETY: a plain C struct, for which all zeroes is a valid value.
    let mut info = unsafe { mem::zeroed::<libc::tcp_info>() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (fd, into) = (stream.as_raw_fd(), ptr::from_mut(&mut info).cast());
    // SAFETY: the kernel writes at most `len` bytes, the size of the struct it is pointed to.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut len) };
    assert_eq!(result, 0, "TCP_INFO: {}", io::Error::last_os_error());
    info.tcpi_total_retrans
}
