//! When are entries removed that are past their ageing time?

use std::time::Duration;

use anyhow::Result;

use crate::{dataplane::Dataplane, lock::Lock};

/// The longest that an aged entry stays in the FDB.
const SWEEP: Duration = Duration::from_secs(10);

/// Removes them. Returns when to do it again.
pub(super) fn sweep(dataplane: &mut Dataplane) -> Result<Duration> {
    let _lock = Lock::change(&dataplane.name)?;
    let now = dataplane.now();
    dataplane.maps.fdb_sweep(now)?;
    let ageing = dataplane.maps.settings()?.ageing;
    Ok(SWEEP.min(Duration::from_secs(dataplane.seconds(ageing.into()).max(4) / 4)))
}
