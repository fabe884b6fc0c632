//! Does every byte of a TCP stream arrive, and unchanged? Sender and receiver, each a process in its host's namespace.
//!
//! Not iperf3, whose receiver stops reading when the sender says that it is done: what is on its way then is not counted.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

const PORT: u16 = 7700;
/// Silence that counts as a failure.
const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK: usize = 128 * 1024;
/// The stream repeats itself after so many bytes: a prime, so that a piece that is missing or doubled shows.
const PERIOD: usize = 251;

/// A transfer that has ended well.
pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

/// Has `bytes` sent from the one command's namespace to `address` in the other's. Both commands are completed here.
pub(super) fn run(sender: &mut Command, receiver: &mut Command, address: &str, bytes: u64) -> Result<Done> {
    let mut receiving =
        receiver.arg("receive").stdout(Stdio::piped()).spawn().context("start the receiver")?;
    let mut lines = BufReader::new(receiving.stdout.take().context("read from the receiver")?).lines();
    let mut line = || lines.next().context("the receiver ended early")?.context("read from the receiver");
    let sent = line().and_then(|_listening| {
        let sender = sender.args(["send", address, &bytes.to_string()]);
        let status = sender.status().context("start the sender")?;
        if status.success() { Ok(()) } else { bail!("the sender failed ({status})") }
    });
    if sent.is_err() {
        // It may be waiting for a connection that will not come.
        let _ended = receiving.kill();
    }
    let report = sent.and_then(|()| line());
    receiving.wait().context("wait for the receiver")?;
    let report = report?;
    let mut words = report.split_whitespace();
    let arrived: u64 = words.next().unwrap_or_default().parse().context("read the receiver's count")?;
    let seconds: f64 = words.next().unwrap_or_default().parse().context("read the receiver's time")?;
    if arrived != bytes {
        bail!("{arrived} of {bytes} bytes arrived");
    }
    Ok(Done { bytes, seconds })
}

/// Takes one stream; prints how many bytes it had, and how many seconds it took.
pub(super) fn receive() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen")?;
    say("listening")?;
    let (mut stream, _) = listener.accept().context("accept")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let started = Instant::now();
    let expected = pattern();
    let mut buffer = vec![0; CHUNK];
    let mut arrived = 0;
    loop {
        let length = stream.read(&mut buffer).with_context(|| format!("after {arrived} bytes"))?;
        if length == 0 {
            break;
        }
        let phase = arrived % PERIOD;
        if buffer.get(..length) != expected.get(phase..phase + length) {
            bail!("something other than what was sent arrived after {arrived} bytes");
        }
        arrived += length;
    }
    say(&format!("{arrived} {}", started.elapsed().as_secs_f64()))
}

/// Sends one stream, and waits until the other side has read it all.
pub(super) fn send(address: Ipv4Addr, bytes: u64) -> Result<()> {
    let address = SocketAddr::from((address, PORT));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let pattern = pattern();
    let mut sent = 0;
    while sent < bytes {
        let phase = (sent % PERIOD as u64) as usize;
        let length = (bytes - sent).min(CHUNK as u64) as usize;
        let chunk = pattern.get(phase..phase + length).unwrap_or_default();
        stream.write_all(chunk).with_context(|| format!("after {sent} bytes"))?;
        sent += length as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read(&mut [0]).context("wait for the other side to close")?;
    Ok(())
}

/// A chunk of the stream, at any phase of it.
fn pattern() -> Vec<u8> {
    (0..CHUNK + PERIOD).map(|index| (index % PERIOD) as u8).collect()
}

fn say(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("print")
}
