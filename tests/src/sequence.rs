//! Does every frame of millions arrive, once, where it should, and nowhere else? Numbered frames between stations, as fast
//! as they come out at the other end: no more are on their way than every queue holds, so that none overflows.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{frame::Mac, topo::Netns, wire};

/// IEEE 802 local experimental 2: no stack answers.
const ETHERTYPE: u16 = 0x88b6;
/// Addresses and type, then the flow, then the frame's number in it.
const FLOW_AT: usize = 14;
const NUMBER_AT: usize = 18;
const FRAME: usize = 60;
/// How many frames a system call sends.
const BURST: usize = 32;
/// How many may be on their way beside a burst: all of them have room in one ring of a veth, which drops silently what
/// comes in by XDP when it is full.
const WINDOW: u64 = 192;
/// How long the last frames may take before they count as lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// A station of the load.
#[derive(Debug)]
pub struct Place<'a> {
    pub netns: &'a Netns,
    pub ifname: &'a str,
    pub mac: Mac,
}

/// What became of the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    /// Arrived where they should, the first time.
    pub arrived: u64,
    /// Arrived there again.
    pub again: u64,
    /// Arrived elsewhere.
    pub astray: u64,
}

impl Tally {
    pub fn lost(&self) -> u64 {
        self.sent - self.arrived
    }

    /// Panics unless each frame arrived once, and nowhere else.
    pub fn assert_whole(&self) {
        assert!(
            self.sent > 0 && self.lost() == 0 && self.again == 0 && self.astray == 0,
            "{} lost: {self:?}",
            self.lost()
        );
    }
}

/// Frames on their way, until [`Sequence::finish`].
pub struct Sequence {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    sent: Arc<Vec<AtomicU64>>,
    sender: JoinHandle<()>,
    receivers: Vec<JoinHandle<Arrivals>>,
}

struct Arrivals {
    arrived: u64,
    again: u64,
    astray: u64,
}

/// Numbers that have been seen: all below `next`, and those in `early`.
#[derive(Default)]
struct Numbers {
    next: u64,
    early: std::collections::BTreeSet<u64>,
}

impl Numbers {
    /// False if it was there before.
    fn add(&mut self, number: u64) -> bool {
        if number < self.next || !self.early.insert(number) {
            return false;
        }
        while self.early.remove(&self.next) {
            self.next += 1;
        }
        true
    }
}

impl Sequence {
    /// Starts to send, in turn, from each of the `flows`' first place to its second.
    pub fn start(places: &[Place<'_>], flows: &[(usize, usize)]) -> Self {
        let sockets: Vec<_> = places.iter().map(Place::open).collect();
        let macs: Vec<_> = places.iter().map(|place| place.mac).collect();
        let targets: Vec<_> = flows.iter().map(|(_, to)| *to).collect();
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let arrived = Arc::new(AtomicU64::new(0));
        let sent: Arc<Vec<_>> = Arc::new(flows.iter().map(|_| AtomicU64::new(0)).collect());
        let mut receivers = Vec::new();
        for (here, socket) in sockets.iter().enumerate() {
            let socket = socket.try_clone().expect("a socket's descriptor");
            let (done, arrived, targets) = (Arc::clone(&done), Arc::clone(&arrived), targets.clone());
            receivers.push(thread::spawn(move || receive(here, &socket, &targets, &arrived, &done)));
        }
        let flows = flows.to_vec();
        let (stopping, counts) = (Arc::clone(&stop), Arc::clone(&sent));
        let sender = thread::spawn(move || send(&sockets, &macs, &flows, &counts, &arrived, &stopping));
        Self { stop, done, sent, sender, receivers }
    }

    /// How many frames have been sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Sends no more, and waits for what is on its way.
    pub fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("the sender");
        let sent = self.sent.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        // The sender has waited for the last ones; what comes twice or goes astray may be a moment later.
        thread::sleep(Duration::from_millis(100));
        self.done.store(true, Ordering::Relaxed);
        let mut tally = Tally { sent, ..Tally::default() };
        for receiver in self.receivers {
            let Arrivals { arrived, again, astray } = receiver.join().expect("a receiver");
            tally.arrived += arrived;
            tally.again += again;
            tally.astray += astray;
        }
        tally
    }
}

impl Place<'_> {
    fn open(&self) -> OwnedFd {
        let ifindex = self.netns.ifindex(self.ifname);
        self.netns.run(|| wire::open(ifindex, ETHERTYPE)).expect("a packet socket")
    }
}

fn send(
    sockets: &[OwnedFd],
    macs: &[Mac],
    flows: &[(usize, usize)],
    counts: &[AtomicU64],
    arrived: &AtomicU64,
    stop: &AtomicBool,
) {
    let mut total = 0;
    // What is given up, so that the window opens again.
    let mut lost = 0;
    let mut frames = [[0_u8; FRAME]; BURST];
    'sending: while !stop.load(Ordering::Relaxed) {
        for (flow, (from, to)) in flows.iter().enumerate() {
            let first = counts[flow].load(Ordering::Relaxed);
            for (frame, number) in frames.iter_mut().zip(first..) {
                frame[..6].copy_from_slice(&macs[*to]);
                frame[6..12].copy_from_slice(&macs[*from]);
                frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
                frame[FLOW_AT..NUMBER_AT].copy_from_slice(&(flow as u32).to_be_bytes());
                frame[NUMBER_AT..NUMBER_AT + 8].copy_from_slice(&number.to_be_bytes());
            }
            send_burst(&sockets[*from], &frames);
            counts[flow].fetch_add(BURST as u64, Ordering::Relaxed);
            total += BURST as u64;
            if !open_window(total - lost, WINDOW, arrived) {
                lost = total - arrived.load(Ordering::Relaxed);
            }
            if stop.load(Ordering::Relaxed) {
                break 'sending;
            }
        }
    }
    open_window(total - lost, 0, arrived);
}

/// Waits until at most so many are on their way. False if they do not arrive.
fn open_window(sent: u64, window: u64, arrived: &AtomicU64) -> bool {
    let mut last = arrived.load(Ordering::Relaxed);
    let mut since = Instant::now();
    while sent > last + window {
        thread::sleep(Duration::from_micros(50));
        let now = arrived.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return false;
        }
    }
    true
}

fn send_burst(socket: &OwnedFd, frames: &[[u8; FRAME]]) {
    let mut vectors: Vec<_> = frames
        .iter()
        .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: FRAME })
        .collect();
    let mut messages = messages(&mut vectors);
    let mut done = 0;
    let started = Instant::now();
    while done < messages.len() {
        let rest = &mut messages[done..];
        // SAFETY: each header names one vector, each vector a frame, and all are live; sendmmsg only reads the frames.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        if sent > 0 {
            done += sent as usize;
            continue;
        }
        let err = io::Error::last_os_error();
        // A queue on the first step of the way is full, the CPU's backlog or a veth's ring: the frame has not gone out.
        assert_eq!(err.raw_os_error(), Some(libc::ENOBUFS), "send: {err}");
        assert!(started.elapsed() < PATIENCE, "nothing can be sent");
        thread::sleep(Duration::from_micros(100));
    }
}

fn receive(
    here: usize,
    socket: &OwnedFd,
    targets: &[usize],
    arrivals: &AtomicU64,
    done: &AtomicBool,
) -> Arrivals {
    let mut numbers: Vec<_> = targets.iter().map(|_| Numbers::default()).collect();
    let mut received = Arrivals { arrived: 0, again: 0, astray: 0 };
    let mut frames = vec![[0_u8; FRAME]; 256];
    let mut vectors: Vec<_> = frames
        .iter_mut()
        .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: FRAME })
        .collect();
    let mut messages = messages(&mut vectors);
    while !done.load(Ordering::Relaxed) {
        let mut ear = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&raw mut ear, 1, 20) };
        // SAFETY: each header names one vector, each vector a frame's room of its length, and all are live.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let before = received.arrived;
        for frame in frames.iter().take(usize::try_from(count).unwrap_or_default()) {
            let flow = u32::from_be_bytes(frame[FLOW_AT..NUMBER_AT].try_into().expect("4 bytes")) as usize;
            let number = u64::from_be_bytes(frame[NUMBER_AT..NUMBER_AT + 8].try_into().expect("8 bytes"));
            match numbers.get_mut(flow).filter(|_| targets[flow] == here).map(|numbers| numbers.add(number)) {
                Some(true) => received.arrived += 1,
                Some(false) => received.again += 1,
                None => received.astray += 1,
            }
        }
        arrivals.fetch_add(received.arrived - before, Ordering::Relaxed);
    }
    assert_eq!(wire::overflowed(socket), 0, "a receiver's buffer overflowed: the switch is not to blame");
    received
}

/// A header for each vector.
fn messages(vectors: &mut [libc::iovec]) -> Vec<libc::mmsghdr> {
    let header = |vector: &mut libc::iovec| {
        // SAFETY: a plain C struct, for which all zeroes is a valid value.
        let mut message = unsafe { mem::zeroed::<libc::mmsghdr>() };
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
        message
    };
    vectors.iter_mut().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_new_once() {
        let mut numbers = Numbers::default();
        assert!([0, 2, 1, 5].into_iter().all(|number| numbers.add(number)));
        assert!([0, 1, 2, 5].into_iter().all(|number| !numbers.add(number)));
        assert!(numbers.add(3) && numbers.next == 4);
    }
}
