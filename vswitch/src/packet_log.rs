//! `--log-packets`: a line for every frame. The programs are replaced by ones with the logging compiled in, and back.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;

use crate::{
    control::Scope,
    dataplane::{Access, Dataplane, links, links::Hook},
    lock::Lock,
};

/// The lines of the frames, if they are asked for.
pub(crate) struct PacketLog(Option<(EbpfLogger<StdErr>, Ebpf)>);

/// How long a line may wait to be printed.
const LATENCY: Duration = Duration::from_millis(50);

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
    /// Replaces the switch's programs by logging ones, if `wanted`.
    pub(crate) fn new(dataplane: &Dataplane, wanted: bool) -> Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let _lock = Lock::change(&dataplane.name)?;
        let mut ebpf = swap(dataplane, true)?;
        let logger = EbpfLogger::init_with_logger(&mut ebpf, StdErr).context("open the packets' log")?;
        Ok(Self(Some((logger, ebpf))))
    }

    /// Prints what has come in since. Never ends where nothing is logged.
    pub(crate) async fn print(&mut self) -> Result<()> {
        let Some((logger, _ebpf)) = &mut self.0 else { return std::future::pending().await };
        tokio::time::sleep(LATENCY).await;
        logger.flush();
        Ok(())
    }

    /// Puts the silent programs back.
    pub(crate) fn stop(self, scope: &Scope) -> Result<()> {
        if self.0.is_some() {
            let _lock = Lock::change(&scope.switch)?;
            swap(&Dataplane::open(&scope.switch, Access::Write)?, false)?;
        }
        Ok(())
    }
}

fn swap(dataplane: &Dataplane, log_packets: bool) -> Result<Ebpf> {
    let mut ebpf = dataplane.load_again(log_packets)?;
    for member in dataplane.members()? {
        for hook in [Hook::In, Hook::Out, Hook::Xdp] {
            if links::is_attached(&dataplane.pins, member.slot, hook) {
                links::replace(&dataplane.pins, member.slot, hook, &mut ebpf)?;
            }
        }
    }
    dataplane.repin_programs(&mut ebpf)?;
    Ok(ebpf)
}
