//! How fast is bulk TCP? As many flows as wanted, each a sending and a receiving thread.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    contestants::Rival,
    generator::Generator,
    lab::address,
    machine::{cpu_of, pin},
    measure::{Ledger, Run, Trial},
    sockets::joined,
};

/// What is written and read at once.
const CHUNK: usize = 128 << 10;
/// How long the windows may open.
const RAMP: Duration = Duration::from_millis(60);
/// How long a flow may stand still.
const STALLED: Duration = Duration::from_secs(5);

/// Flows through a contestant.
pub(super) struct Tcp {
    rival: Rival,
    flows: u32,
}

impl Tcp {
    pub(super) fn new(rival: Rival, flows: u32) -> Self {
        Self { rival, flows }
    }

    /// Both ends of each flow.
    fn connect(&self) -> Result<Vec<(TcpStream, TcpStream)>> {
        let lab = &self.rival.lab;
        let listener = lab.room(1).netns.run_in(|| TcpListener::bind((address(1), 0)))?.context("listen")?;
        let at = listener.local_addr().context("listen")?;
        let connect = || {
            let from = lab.room(0).netns.run_in(|| TcpStream::connect_timeout(&at, STALLED))?;
            let from =
                from.with_context(|| format!("{}: no connection comes about", self.rival.contestant))?;
            let (to, _) = listener.accept().context("accept")?;
            from.set_write_timeout(Some(STALLED))?;
            to.set_read_timeout(Some(STALLED))?;
            Ok((from, to))
        };
        (0..self.flows).map(|_| connect()).collect()
    }
}

impl Trial for Tcp {
    fn run(&mut self, _generator: &mut Generator, time: Duration) -> Result<Run> {
        let flows = self.connect()?;
        let (sent, received, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let rate = thread::scope(|scope| {
            let mut threads = Vec::new();
            for (from, to) in &flows {
                threads.push(scope.spawn(|| send(from, &sent, &done)));
                threads.push(scope.spawn(|| receive(to, &received)));
            }
            thread::sleep(RAMP);
            let (started, before) = (Instant::now(), received.load(Ordering::Relaxed));
            thread::sleep(time);
            let bytes = received.load(Ordering::Relaxed) - before;
            let rate = bytes as f64 * 8.0 / started.elapsed().as_secs_f64();
            done.store(true, Ordering::Relaxed);
            threads.into_iter().try_for_each(|thread| joined(thread.join()))?;
            Ok::<_, anyhow::Error>(rate)
        })?;
        let mut ledger =
            Ledger { sent: sent.into_inner(), received: received.into_inner(), ..Ledger::default() };
        ledger.balance(ledger.sent);
        Ok(Run { values: vec![rate], ledger })
    }
}

fn send(mut stream: &TcpStream, sent: &AtomicU64, done: &AtomicBool) -> Result<()> {
    pin(cpu_of(0))?;
    let chunk = vec![0; CHUNK];
    while !done.load(Ordering::Relaxed) {
        let bytes = stream.write(&chunk).context("send by TCP")?;
        sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    stream.shutdown(Shutdown::Write).context("end a flow")
}

fn receive(mut stream: &TcpStream, received: &AtomicU64) -> Result<()> {
    pin(cpu_of(1))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(bytes) => drop(received.fetch_add(bytes as u64, Ordering::Relaxed)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("receive by TCP"),
        }
    }
}
