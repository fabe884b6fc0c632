//! How fast is bulk TCP, by as many flows as wanted?

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{both, buffer, pause, waited};
use crate::{
    contestants::Rival,
    generator::Generator,
    iperf3::{self, Traffic},
    lab::address,
    measure::{Ledger, Run, Trial},
};

/// Of each end: what is on its way stays in the CPU's cache, and its size does not depend on what the kernel has tuned so far.
pub(crate) const BUFFER: usize = 256 << 10;
/// What is written and read at once.
const CHUNK: usize = 128 << 10;
/// How long a run's flows may come into their stride.
const RAMP: Duration = Duration::from_millis(2);
/// How long a flow may stand still.
const STALLED: Duration = Duration::from_secs(5);

/// Flows through a contestant. Several are new ones in each run: how flows come to share a path is chance, and stays as it came
/// about. A single one lasts: it is faster at first than ever after, by a bridge for longest, for tens of milliseconds.
pub(crate) struct Tcp {
    rival: Rival,
    listener: TcpListener,
    flows: u32,
    lasting: Option<(Vec<TcpStream>, Vec<TcpStream>)>,
}

impl Tcp {
    pub(crate) fn new(rival: Rival, flows: u32) -> Result<Self> {
        let receiver = rival.lab.room(1);
        let listener = receiver.netns.run_in(|| TcpListener::bind((address(1), 0)))?.context("listen")?;
        // What is accepted has the listener's.
        buffer(listener.as_fd(), libc::SO_RCVBUFFORCE, BUFFER)?;
        Ok(Self { rival, listener, flows, lasting: None })
    }

    /// The sending ends, and the receiving ends.
    fn connect(&self) -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
        let at = self.listener.local_addr().context("listen")?;
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for _ in 0..self.flows {
            let flow = self.rival.lab.room(0).netns.run_in(|| TcpStream::connect_timeout(&at, STALLED))?;
            let flow =
                flow.with_context(|| format!("{}: no connection comes about", self.rival.contestant))?;
            buffer(flow.as_fd(), libc::SO_SNDBUFFORCE, BUFFER)?;
            reno(&flow).context("choose TCP's congestion control")?;
            from.push(flow);
            to.push(self.listener.accept().context("accept")?.0);
        }
        from.iter()
            .chain(&to)
            .try_for_each(|flow| flow.set_nonblocking(true))
            .context("set a flow to poll")?;
        Ok((from, to))
    }
}

impl Trial for Tcp {
    fn run(&mut self, _generator: &mut Generator, time: Duration) -> Result<Run> {
        let (from, to) = match self.lasting.take() {
            Some(flows) => flows,
            None => self.connect()?,
        };
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let (rate, ()) = both(
            || {
                let mut ready = Ready::new(&from, libc::POLLOUT);
                let mut written = 0;
                let outcome = (|| {
                    written += write_for(&mut ready, RAMP)?;
                    let (started, before) = (Instant::now(), received.load(Ordering::Acquire));
                    written += write_for(&mut ready, time)?;
                    let bytes = received.load(Ordering::Acquire) - before;
                    Ok(bytes as f64 * 8.0 / started.elapsed().as_secs_f64())
                })();
                sent.store(written, Ordering::Release);
                outcome
            },
            |done| {
                let (mut chunk, mut last) = (vec![0; CHUNK], Instant::now());
                let mut ready = Ready::new(&to, libc::POLLIN);
                // `sent` is known before `done` is.
                while !done.load(Ordering::Acquire)
                    || received.load(Ordering::Relaxed) < sent.load(Ordering::Relaxed)
                {
                    let bytes = ready.each(|mut flow| flow.read(&mut chunk)).context("receive by TCP")?;
                    received.fetch_add(bytes, Ordering::Release);
                    if bytes > 0 {
                        last = Instant::now();
                    } else if last.elapsed() > STALLED {
                        bail!("a flow of TCP stands still");
                    }
                }
                Ok(())
            },
        )?;
        let mut ledger =
            Ledger { sent: sent.into_inner(), received: received.into_inner(), ..Ledger::default() };
        ledger.balance(ledger.sent);
        self.lasting = (self.flows == 1).then_some((from, to));
        Ok(Run { values: vec![rate], ledger })
    }

    fn second_opinion(&self) -> Result<Option<f64>> {
        iperf3::ask(&self.rival, Traffic::Tcp { flows: self.flows }).map(Some)
    }
}

/// Reno, which every kernel has. CUBIC ends its slow start by delays that it measures (HyStart), and where it ends is chance.
fn reno(flow: &TcpStream) -> io::Result<()> {
    const NAME: &[u8] = b"reno";
    // SAFETY: the option's value is a string of ours, whose length is given.
    let done = unsafe {
        libc::setsockopt(
            flow.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            NAME.as_ptr().cast(),
            NAME.len() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes to all flows for that long; how many bytes.
fn write_for(ready: &mut Ready<'_>, time: Duration) -> Result<u64> {
    let (chunk, started) = ([0; CHUNK], Instant::now());
    let mut written = 0;
    while started.elapsed() < time {
        written += ready.each(|mut flow| flow.write(&chunk)).context("send by TCP")?;
    }
    Ok(written)
}

/// Flows that can be written to or read from. To ask poll(2) first leaves a socket without data to its soft interrupt: an
/// attempt to read takes the socket's lock, and what arrives meanwhile is processed by the reader.
struct Ready<'f> {
    flows: &'f [TcpStream],
    polled: Vec<libc::pollfd>,
}

impl<'f> Ready<'f> {
    fn new(flows: &'f [TcpStream], events: libc::c_short) -> Self {
        let polled = flows.iter().map(|flow| libc::pollfd { fd: flow.as_raw_fd(), events, revents: 0 });
        Self { flows, polled: polled.collect() }
    }

    /// Does it with each flow that is ready; how many bytes in all.
    fn each(&mut self, mut transfer: impl FnMut(&'f TcpStream) -> io::Result<usize>) -> io::Result<u64> {
        // SAFETY: an array of ours of that length, which the kernel writes `revents` of; it does not wait.
        let ready = unsafe { libc::poll(self.polled.as_mut_ptr(), self.polled.len() as libc::nfds_t, 0) };
        if ready <= 0 {
            pause();
            return Ok(0);
        }
        let mut total = 0;
        for (flow, _) in self.flows.iter().zip(&self.polled).filter(|(_, polled)| polled.revents != 0) {
            match transfer(flow) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => total += bytes as u64,
                Err(error) if waited(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }
}
