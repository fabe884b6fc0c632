//! What does iperf3 say to the same path, where it is installed? A second opinion: it sleeps, is woken, and has all its defaults.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    contestants::Rival,
    cpus::cpu_of,
    lab::{Room, address},
};

/// How long the server may take until it listens.
const READY: Duration = Duration::from_secs(3);
/// After so many seconds it is ended, whatever becomes of this process.
const END: &str = "20";
const PORT: &str = "5201";

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Traffic {
    Tcp {
        flows: u32,
    },
    /// Of so many bytes, as fast as it can.
    Udp {
        bytes: usize,
    },
}

/// Whether it is here, and may be asked.
pub(super) fn installed() -> bool {
    let version =
        Command::new("iperf3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Bits, or datagrams, that are received in a second.
pub(super) fn ask(rival: &Rival, traffic: Traffic) -> Result<f64> {
    let _server = Server(start(&rival.lab.receiver, &["-s", "-1", "-p", PORT])?);
    let (at, cpus) = (address(1).to_string(), format!("{},{}", cpu_of(0), cpu_of(1)));
    let mut args = vec!["-J", "-c", &at, "-p", PORT, "-t", "1", "-A", &cpus];
    let (flows, bytes);
    match traffic {
        Traffic::Tcp { flows: number } => {
            flows = number.to_string();
            args.extend(["-P", &flows]);
        }
        Traffic::Udp { bytes: number } => {
            bytes = number.to_string();
            args.extend(["-u", "-b", "0", "-l", &bytes]);
        }
    }
    let deadline = Instant::now() + READY;
    loop {
        let output = start(&rival.lab.sender, &args)?.wait_with_output().context("wait for iperf3")?;
        let said: Value = serde_json::from_slice(&output.stdout).context("what iperf3 prints")?;
        match (said["error"].as_str(), figure(&said["end"], traffic)) {
            (None, Some(figure)) => return Ok(figure),
            (error, _) if Instant::now() > deadline => bail!("iperf3: {}", error.unwrap_or("no figure")),
            // It does not listen yet.
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn figure(end: &Value, traffic: Traffic) -> Option<f64> {
    match traffic {
        Traffic::Tcp { .. } => end["sum_received"]["bits_per_second"].as_f64(),
        Traffic::Udp { .. } => {
            let sum = &end["sum"];
            let received = sum["packets"].as_f64()? - sum["lost_packets"].as_f64()?;
            Some(received / sum["seconds"].as_f64()?)
        }
    }
}

fn start(room: &Room, args: &[&str]) -> Result<Child> {
    let mut command = Command::new("timeout");
    command.args([END, "iperf3"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    room.netns.run_in(|| command.spawn())?.context("start iperf3")
}

/// Ended when it is no longer wanted; by itself, it ends after one client.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // `timeout` hands a TERM on to iperf3, which a KILL would leave behind.
        // SAFETY: a signal to a child of ours that has not been waited for.
        unsafe { libc::kill(self.0.id().cast_signed(), libc::SIGTERM) };
        let _ended = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_was_received() {
        let end = serde_json::json!({
            "sum": {"packets": 1000, "lost_packets": 100, "seconds": 2.0},
            "sum_received": {"bits_per_second": 5e9},
        });
        assert_eq!(figure(&end, Traffic::Udp { bytes: 16 }), Some(450.0));
        assert_eq!(figure(&end, Traffic::Tcp { flows: 1 }), Some(5e9));
        assert_eq!(figure(&Value::Null, Traffic::Tcp { flows: 1 }), None);
    }
}
