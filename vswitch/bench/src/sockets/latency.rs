//! How long does an answer take?

use std::{
    net::UdpSocket,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{both, pair, pause, waited};
use crate::{
    contestants::Rival,
    generator::Generator,
    measure::{Ledger, Run, Trial},
};

/// When an answer is given up.
const PATIENCE: Duration = Duration::from_millis(500);

/// Datagrams, there and back.
pub(crate) struct Latency {
    contestant: Rival,
    client: UdpSocket,
    server: UdpSocket,
    /// Of the last request: an answer that was given up is no answer to the next.
    asked: u64,
}

impl Latency {
    pub(crate) fn new(contestant: Rival) -> Result<Self> {
        let (client, server) = pair(&contestant)?;
        Ok(Self { contestant, client, server, asked: 0 })
    }
}

impl Trial for Latency {
    fn run(&mut self, _generator: &mut Generator, time: Duration) -> Result<Run> {
        let (client, server, before) = (&self.client, &self.server, self.asked);
        let asked = &mut self.asked;
        let (mut delays, ()) = both(
            || round_trips(client, asked, time),
            |done| {
                let mut datagram = [0; size_of::<[u64; 2]>()];
                while !done.load(Ordering::Acquire) {
                    match server.recv(&mut datagram) {
                        Ok(_) => drop(server.send(&datagram).context("answer")?),
                        Err(error) if waited(&error) => pause(),
                        Err(error) => return Err(error).context("receive a request"),
                    }
                }
                Ok(())
            },
        )
        .with_context(|| self.contestant.contestant.name())?;
        delays.sort_unstable();
        let sent = self.asked - before;
        let mut ledger = Ledger { sent, received: delays.len() as u64, ..Ledger::default() };
        ledger.balance(sent);
        let part = |part: f64| {
            let index = (delays.len() as f64 * part) as usize;
            delays.get(index).or_else(|| delays.last()).map_or(0.0, |delay| delay.as_secs_f64() * 1e6)
        };
        Ok(Run { values: vec![part(0.5), part(0.99), part(0.999)], ledger })
    }
}

/// How long each answer took.
fn round_trips(client: &UdpSocket, asked: &mut u64, time: Duration) -> Result<Vec<Duration>> {
    let mut delays = Vec::new();
    let started = Instant::now();
    let mut now = started;
    while now - started < time {
        *asked += 1;
        let request = [*asked, 0].map(u64::to_ne_bytes);
        client.send(request.as_flattened()).context("ask")?;
        let at = now;
        let mut answer = [0; size_of::<[u64; 2]>()];
        loop {
            let got = client.recv(&mut answer);
            now = Instant::now();
            match got {
                Ok(_) if answer == request.as_flattened() => {
                    delays.push(now - at);
                    break;
                }
                Ok(_) => {}
                Err(error) if waited(&error) && now - at < PATIENCE => pause(),
                Err(error) if waited(&error) => break,
                Err(error) => return Err(error).context("receive an answer"),
            }
        }
    }
    Ok(delays)
}
