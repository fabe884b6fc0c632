//! `--log-packets`: a line for every frame. The programs are replaced by ones with the logging compiled in, and back.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;

use crate::{
    control::Scope,
    dataplane::{Access, Dataplane, programs},
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
    pub(crate) async fn new(dataplane: &Dataplane, wanted: bool) -> Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let _lock = Lock::change(&dataplane.name).await?;
        // Also if there are logging ones: they belong to a controller that was killed, and their lines go nowhere.
        let mut ebpf = programs::load(dataplane, true)?;
        let logger = EbpfLogger::init_with_logger(&mut ebpf, StdErr).context("open the packets' log")?;
        programs::install(dataplane, &mut ebpf, true)?;
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
    pub(crate) async fn stop(self, scope: &Scope) -> Result<()> {
        let Some((mut logger, _ebpf)) = self.0 else { return Ok(()) };
        let _lock = Lock::change(&scope.switch).await?;
        let dataplane = Dataplane::open(&scope.switch, Access::Write)?;
        // Another build's may have taken their place.
        if programs::are_current(&dataplane.pins, true) {
            programs::replace(&dataplane)?;
        }
        logger.flush();
        Ok(())
    }
}
