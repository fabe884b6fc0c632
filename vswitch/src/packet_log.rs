//! `--log-packets`: a line for every frame. The programs are replaced by ones with the logging compiled in, and back.

use std::{fs, io, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use aya::Ebpf;
use aya_log::EbpfLogger;

use crate::{
    control::Scope,
    dataplane::{Access, Dataplane, links, links::Hook, pins::Pins},
    lock::Lock,
};

/// The lines of the frames, if they are asked for.
pub(crate) struct PacketLog(Option<(EbpfLogger<StdErr>, Ebpf)>);

/// How long a line may wait to be printed.
const LATENCY: Duration = Duration::from_millis(50);

/// The map through which the lines come. It is pinned while logging programs are attached, so that the next controller
/// knows of them if this one is killed.
const LINES: &str = "AYA_LOGS";

/// Prints records as lines.
struct StdErr;

impl log::Log for StdErr {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}", record.args());
    }

    fn flush(&self) {}
}

impl PacketLog {
    /// Replaces the switch's programs by logging ones, if `wanted`; else by silent ones, should a controller have been
    /// killed that had logging ones attached.
    pub(crate) fn new(dataplane: &Dataplane, wanted: bool) -> Result<Self> {
        let _lock = Lock::change(&dataplane.name)?;
        if !wanted {
            silence(dataplane)?;
            return Ok(Self(None));
        }
        let mut ebpf = dataplane.load_again(true)?;
        let pin = pin(&dataplane.pins);
        unpin(&pin)?;
        let lines = ebpf.map(LINES).ok_or_else(|| anyhow!("map {LINES}: not in the BPF object"))?;
        lines.pin(&pin).with_context(|| format!("pin map {LINES}"))?;
        let logger = EbpfLogger::init_with_logger(&mut ebpf, StdErr).context("open the packets' log")?;
        replace(dataplane, &mut ebpf)?;
        Ok(Self(Some((logger, ebpf))))
    }

    /// Prints what has come in since. Never ends where nothing is logged.
    pub(crate) async fn print(&mut self) -> Result<()> {
        let Some((logger, _ebpf)) = &mut self.0 else { return std::future::pending().await };
        tokio::time::sleep(LATENCY).await;
        logger.flush();
        Ok(())
    }

    /// Puts the silent programs back, and prints what is left.
    pub(crate) fn stop(self, scope: &Scope) -> Result<()> {
        let Some((mut logger, _ebpf)) = self.0 else { return Ok(()) };
        let _lock = Lock::change(&scope.switch)?;
        silence(&Dataplane::open(&scope.switch, Access::Write)?)?;
        logger.flush();
        Ok(())
    }
}

/// Replaces logging programs, if there are any, by silent ones.
fn silence(dataplane: &Dataplane) -> Result<()> {
    let pin = pin(&dataplane.pins);
    if !pin.try_exists()? {
        return Ok(());
    }
    replace(dataplane, &mut dataplane.load_again(false)?)?;
    unpin(&pin)
}

fn replace(dataplane: &Dataplane, ebpf: &mut Ebpf) -> Result<()> {
    for member in dataplane.members()? {
        for hook in [Hook::In, Hook::Out, Hook::Xdp] {
            if member.is_present() && links::is_attached(&dataplane.pins, member.slot, hook) {
                links::replace(&dataplane.pins, member.slot, hook, ebpf)?;
            }
        }
    }
    dataplane.repin_programs(ebpf)
}

fn pin(pins: &Pins) -> PathBuf {
    pins.program(LINES)
}

fn unpin(pin: &PathBuf) -> Result<()> {
    match fs::remove_file(pin) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("remove {}", pin.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
