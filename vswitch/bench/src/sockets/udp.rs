//! How fast are small datagrams from socket to socket, one way?

use std::{
    fs,
    net::UdpSocket,
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{DATAGRAM, QUIET, both, buffer, pair, pause, waited};
use crate::{
    clock::{CpuTime, Deferred},
    contestants::Rival,
    counters::{Snapshot, backlog_drops},
    cpus::cpu_of,
    generator::Generator,
    iperf3::{self, Traffic},
    measure::{Ledger, Run, Trial},
};

/// More than a run's datagrams fill: the receiver may be late.
const ROOM: usize = 8 << 20;

/// Datagrams, one way.
pub(crate) struct Udp {
    rival: Rival,
    from: UdpSocket,
    to: UdpSocket,
    deferred: Deferred,
}

impl Udp {
    pub(crate) fn new(rival: Rival) -> Result<Self> {
        let (from, to) = pair(&rival)?;
        buffer(to.as_fd(), libc::SO_RCVBUFFORCE, ROOM)?;
        Ok(Self { rival, from, to, deferred: Deferred::of(cpu_of(0)) })
    }

    /// Sends for that long; how many, and how much of its CPU's time it took: its soft interrupts are the switch's and, up to
    /// the socket, the receiver's stack.
    fn send(&self, time: Duration) -> Result<(u64, Duration)> {
        let (began, started) = (CpuTime::now(&self.deferred), Instant::now());
        let mut sent = 0;
        while sent % 64 != 0 || started.elapsed() < time {
            match self.from.send(&[0; DATAGRAM]) {
                Ok(_) => sent += 1,
                Err(error) if waited(&error) => pause(),
                Err(error) => return Err(error).context("send a datagram"),
            }
        }
        Ok((sent, CpuTime::now(&self.deferred).since(&began)))
    }
}

impl Trial for Udp {
    fn run(&mut self, _generator: &mut Generator, time: Duration) -> Result<Run> {
        let before = Counted::take(&self.rival)?;
        // Known before the receiver is told that the sender has ended.
        let all = AtomicU64::new(u64::MAX);
        let ((sent, took), received) = both(
            || {
                let sent = self.send(time)?;
                all.store(sent.0, Ordering::Release);
                Ok(sent)
            },
            |done| {
                let (mut received, mut last) = (0, Instant::now());
                let mut datagram = [0; 2 * DATAGRAM];
                while received < all.load(Ordering::Acquire) {
                    match self.to.recv(&mut datagram) {
                        Ok(_) => {
                            received += 1;
                            last = Instant::now();
                        }
                        Err(error) if waited(&error) => {
                            if !done.load(Ordering::Acquire) {
                                last = Instant::now();
                            } else if last.elapsed() > QUIET {
                                break;
                            }
                            pause();
                        }
                        Err(error) => return Err(error).context("receive a datagram"),
                    }
                }
                Ok(received)
            },
        )?;
        let mut ledger = Ledger { sent, received, ..Ledger::default() };
        Counted::take(&self.rival)?.explain(&before, &mut ledger);
        Ok(Run { values: vec![received as f64 / took.as_secs_f64().max(1e-6)], ledger })
    }

    fn second_opinion(&self) -> Result<Option<f64>> {
        iperf3::ask(&self.rival, Traffic::Udp { bytes: DATAGRAM }).map(Some)
    }
}

/// What the kernel counted of datagrams that no socket got.
struct Counted {
    /// In the order of the way: what one sends, the next one receives.
    rooms: Vec<Snapshot>,
    no_room: u64,
    backlog: u64,
}

impl Counted {
    fn take(rival: &Rival) -> Result<Self> {
        let lab = &rival.lab;
        let mut rooms = vec![Snapshot::take(&lab.sender)?, Snapshot::take(&lab.switch)?];
        if let Some(adjacent) = rival.adjacent() {
            rooms.push(Snapshot::take(adjacent)?);
        }
        rooms.push(Snapshot::take(&lab.receiver)?);
        let snmp = lab.receiver.netns.run_in(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let no_room = udp_no_room(&snmp.context("read /proc/thread-self/net/snmp")?);
        Ok(Self { rooms, no_room, backlog: backlog_drops() })
    }

    fn explain(&self, before: &Self, ledger: &mut Ledger) {
        ledger.drop_for("the socket's buffer", self.no_room - before.no_room);
        let rooms: Vec<_> = self.rooms.iter().zip(&before.rooms).map(|(now, old)| now.since(old)).collect();
        // A veth's ring and its CPU's backlog are counted by the sending end, the ring by the receiving end too.
        for ends in rooms.windows(2) {
            if let [from, to] = ends {
                ledger.drop_for("a veth's ring or backlog", from.send_drops().max(to.receive_drops()));
            }
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
