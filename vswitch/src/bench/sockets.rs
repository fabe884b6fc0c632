//! How fast are small datagrams, and how long does an answer take? Through sockets, from thread to thread.

use std::{
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

pub(super) use super::transfer::Tcp;
use super::{
    contestants::Rival,
    counters::{Snapshot, backlog_drops},
    generator::Generator,
    lab::{Room, address},
    machine::{cpu_of, pin},
    measure::{Ledger, Run, Trial},
};

const DATAGRAM: usize = 16;
/// How long the receiver waits for what is on its way.
const QUIET: Duration = Duration::from_millis(50);
/// How long a new path may take until the first answer: neighbours are looked up.
const FIRST: Duration = Duration::from_secs(5);

/// Datagrams, one way.
pub(super) struct Udp {
    rival: Rival,
    from: UdpSocket,
    to: UdpSocket,
}

/// Datagrams, there and back.
pub(super) struct Latency {
    rival: Rival,
}

impl Udp {
    pub(super) fn new(rival: Rival) -> Result<Self> {
        let (from, to) = pair(&rival)?;
        more_room(&to)?;
        Ok(Self { rival, from, to })
    }
}

impl Trial for Udp {
    fn run(&mut self, _generator: &mut Generator, time: Duration) -> Result<Run> {
        let before = Counted::take(&self.rival)?;
        let done = AtomicBool::new(false);
        self.to.set_read_timeout(Some(QUIET)).context("set a timeout")?;
        let (received, sent) = thread::scope(|scope| {
            let receiver = scope.spawn(|| -> Result<u64> {
                pin(cpu_of(1))?;
                let mut received = 0;
                let mut datagram = [0; 2 * DATAGRAM];
                loop {
                    match self.to.recv(&mut datagram) {
                        Ok(_) => received += 1,
                        Err(error) if waited(&error) && done.load(Ordering::Relaxed) => return Ok(received),
                        Err(error) if waited(&error) => {}
                        Err(error) => return Err(error).context("receive a datagram"),
                    }
                }
            });
            let sender = scope.spawn(|| -> Result<(u64, Duration)> {
                pin(cpu_of(0))?;
                let started = Instant::now();
                let mut sent = 0;
                while sent % 64 != 0 || started.elapsed() < time {
                    self.from.send(&[0; DATAGRAM]).context("send a datagram")?;
                    sent += 1;
                }
                Ok((sent, started.elapsed()))
            });
            let sent = joined(sender.join());
            done.store(true, Ordering::Relaxed);
            (joined(receiver.join()), sent)
        });
        let (received, (sent, took)) = (received?, sent?);
        let mut ledger = Ledger { sent, received, ..Ledger::default() };
        Counted::take(&self.rival)?.explain(&before, &mut ledger);
        Ok(Run { values: vec![received as f64 / took.as_secs_f64()], ledger })
    }
}

impl Latency {
    pub(super) fn new(rival: Rival) -> Self {
        Self { rival }
    }
}

impl Trial for Latency {
    fn run(&mut self, _generator: &mut Generator, time: Duration) -> Result<Run> {
        let (client, server) = pair(&self.rival)?;
        let done = AtomicBool::new(false);
        server.set_read_timeout(Some(QUIET)).context("set a timeout")?;
        client.set_read_timeout(Some(10 * QUIET)).context("set a timeout")?;
        let (delays, served) = thread::scope(|scope| {
            let answers = scope.spawn(|| -> Result<()> {
                pin(cpu_of(1))?;
                let mut datagram = [0; DATAGRAM];
                while !done.load(Ordering::Relaxed) {
                    match server.recv(&mut datagram) {
                        Ok(_) => drop(server.send(&datagram).context("answer")?),
                        Err(error) if waited(&error) => {}
                        Err(error) => return Err(error).context("receive a request"),
                    }
                }
                Ok(())
            });
            let requests = scope.spawn(|| round_trips(&client, time));
            let delays = joined(requests.join());
            done.store(true, Ordering::Relaxed);
            (delays, joined(answers.join()))
        });
        served?;
        let (mut delays, sent) = delays?;
        delays.sort_unstable();
        let ledger = Ledger { sent, received: delays.len() as u64, ..Ledger::default() };
        let mut ledger = ledger;
        ledger.balance(sent);
        let part = |part: f64| {
            let index = (delays.len() as f64 * part) as usize;
            delays.get(index).or_else(|| delays.last()).map_or(0.0, |delay| delay.as_secs_f64() * 1e6)
        };
        Ok(Run { values: vec![part(0.5), part(0.99), part(0.999)], ledger })
    }
}

/// How long each answer took, and how many were asked for.
fn round_trips(client: &UdpSocket, time: Duration) -> Result<(Vec<Duration>, u64)> {
    pin(cpu_of(0))?;
    let (mut delays, mut sent) = (Vec::new(), 0);
    let mut datagram = [0; DATAGRAM];
    let started = Instant::now();
    while started.elapsed() < time {
        let asked = Instant::now();
        client.send(&datagram).context("ask")?;
        sent += 1;
        match client.recv(&mut datagram) {
            Ok(_) => delays.push(asked.elapsed()),
            Err(error) if waited(&error) => {}
            Err(error) => return Err(error).context("receive an answer"),
        }
    }
    Ok((delays, sent))
}

/// Connected sockets in the sender's and the receiver's room, whose path is known to work.
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
                socket.set_nonblocking(true)?;
                while socket.recv(&mut datagram).is_ok() {}
                socket.set_nonblocking(false)?;
            }
            return Ok((from, to));
        }
    }
    bail!("{}: no datagram comes through", rival.contestant)
}

/// What the kernel counted of datagrams that no socket got.
struct Counted {
    rooms: [Snapshot; 3],
    no_room: u64,
    backlog: u64,
}

impl Counted {
    fn take(rival: &Rival) -> Result<Self> {
        let lab = &rival.lab;
        let rooms =
            [Snapshot::take(&lab.sender)?, Snapshot::take(&lab.switch)?, Snapshot::take(&lab.receiver)?];
        let snmp = lab.receiver.netns.run_in(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let no_room = udp_no_room(&snmp.context("read /proc/thread-self/net/snmp")?);
        Ok(Self { rooms, no_room, backlog: backlog_drops() })
    }

    fn explain(&self, before: &Self, ledger: &mut Ledger) {
        ledger.drop_for("the socket's buffer", self.no_room - before.no_room);
        let [sender, switch, receiver] = [0, 1, 2].map(|room| {
            let (now, old) = (self.rooms.get(room), before.rooms.get(room));
            now.zip(old).map(|(now, old)| now.since(old)).unwrap_or_default()
        });
        // A veth's ring and its CPU's backlog are counted by the sending end, the ring by the receiving end too.
        let rings = [(&sender, &switch), (&switch, &receiver)];
        for (from, to) in rings {
            ledger.drop_for("a veth's ring or backlog", from.send_drops().max(to.receive_drops()));
        }
        ledger.balance(ledger.sent);
        if ledger.unaccounted > 0 {
            ledger.drop_for("a CPU's backlog", (self.backlog - before.backlog).min(ledger.unaccounted));
            ledger.balance(ledger.sent);
        }
    }
}

/// `RcvbufErrors` of `/proc/net/snmp`.
fn udp_no_room(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    columns.find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

fn more_room(socket: &UdpSocket) -> Result<()> {
    let bytes: libc::c_int = 4 << 20;
    // SAFETY: the option's value is an int of ours, whose size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()).context("give a socket a larger buffer") } else { Ok(()) }
}

fn waited(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused
    )
}

/// A thread's result; its panic is an error of the run.
pub(super) fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|_panic| Err(anyhow!("a thread of the bench panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_columns_are_found_by_name() {
        let text = "Tcp: A\nTcp: 1\nUdp: InDatagrams NoPorts RcvbufErrors\nUdp: 5 6 7\n";
        assert_eq!(udp_no_room(text), 7);
        assert_eq!(udp_no_room(""), 0);
    }
}
