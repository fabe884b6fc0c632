//! How are stations given sockets, and threads that do nothing but use them?
//!
//! One thread is a station's. It polls and never sleeps: what a wake-up costs is the machine's affair, a virtual one's above
//! all, and differs from one moment to the next by more than switches do.

mod latency;
mod tcp;
mod udp;

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    contestants::Rival,
    cpus::{cpu_of, pin},
    lab::{Room, address},
};

pub(super) use latency::Latency;
pub(super) use tcp::{BUFFER, Tcp};
pub(super) use udp::Udp;

const DATAGRAM: usize = 16;
/// How long the first answers may take, and what is on its way.
const QUIET: Duration = Duration::from_millis(50);
/// How long a new path may take until the first answer: neighbours are looked up.
const FIRST: Duration = Duration::from_secs(5);

/// Runs a sender and a receiver, each on its CPU, from the moment that both are there. The receiver is told when the
/// sender has ended.
pub(super) fn both<S: Send, R: Send>(
    send: impl FnOnce() -> Result<S> + Send,
    receive: impl FnOnce(&AtomicBool) -> Result<R> + Send,
) -> Result<(S, R)> {
    let (there, done) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let placed = pin(cpu_of(1));
            there.wait();
            placed.and_then(|()| receive(&done))
        });
        let sender = scope.spawn(|| {
            let placed = pin(cpu_of(0));
            there.wait();
            let sent = placed.and_then(|()| send());
            done.store(true, Ordering::Release);
            sent
        });
        let (sent, received) = (joined(sender.join()), joined(receiver.join()));
        Ok((sent?, received?))
    })
}

/// What a thread does that has found nothing. Where there is but one CPU, the other one has its turn.
fn pause() {
    thread::yield_now();
}

/// A thread's result; its panic is an error of the run.
fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|_panic| Err(anyhow!("a thread of the bench panicked")))
}

/// Connected UDP sockets in the sender's and the receiver's room, whose path is known to work; they do not block.
fn pair(rival: &Rival) -> Result<(UdpSocket, UdpSocket)> {
    let bound = |room: &Room, at: Ipv4Addr| -> Result<UdpSocket> {
        room.netns.run_in(|| UdpSocket::bind((at, 0)))?.context("open a UDP socket")
    };
    let (from, to) = (bound(rival.lab.room(0), address(0))?, bound(rival.lab.room(1), address(1))?);
    from.connect(to.local_addr()?).context("connect")?;
    to.connect(from.local_addr()?).context("connect")?;
    let deadline = Instant::now() + FIRST;
    from.set_read_timeout(Some(QUIET)).context("set a timeout")?;
    to.set_read_timeout(Some(QUIET)).context("set a timeout")?;
    let mut datagram = [0; DATAGRAM];
    while Instant::now() < deadline {
        let _unreachable = from.send(&datagram);
        if to.recv(&mut datagram).is_ok() && to.send(&datagram).is_ok() && from.recv(&mut datagram).is_ok() {
            // What was asked again is not to be counted.
            thread::sleep(QUIET);
            for socket in [&from, &to] {
                socket.set_nonblocking(true).context("set a socket to poll")?;
                while socket.recv(&mut datagram).is_ok() {}
            }
            return Ok((from, to));
        }
    }
    bail!("{}: no datagram comes through", rival.contestant)
}

/// Gives a socket a buffer of so many bytes: `SO_RCVBUFFORCE` or `SO_SNDBUFFORCE`.
fn buffer(socket: BorrowedFd<'_>, which: libc::c_int, bytes: usize) -> Result<()> {
    let bytes = libc::c_int::try_from(bytes).context("a buffer's size")?;
    // SAFETY: the option's value is an int of ours, whose size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            which,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()).context("give a socket a larger buffer") } else { Ok(()) }
}

/// Nothing there yet.
fn waited(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused
    )
}
