//! When are entries removed that are past their ageing time?

use std::time::Duration;

use anyhow::Result;

use crate::{
    dataplane::{Dataplane, image::Write},
    lock::Lock,
};

/// The longest that an aged entry stays in the FDB.
const SWEEP: Duration = Duration::from_secs(10);

/// Removes them, under the switch's lock. Returns when to do it again.
pub(super) fn sweep(dataplane: &mut Dataplane, _lock: &Lock) -> Result<Duration> {
    dataplane.write(&Write::Sweep)?;
    let ageing = dataplane.settings()?.ageing;
    Ok(pause(dataplane.seconds(ageing.into())))
}

/// Between two sweeps, where entries age in so many seconds. With 0 nothing is learned.
fn pause(ageing: u64) -> Duration {
    if ageing == 0 { SWEEP } else { SWEEP.min(Duration::from_secs(ageing.max(4) / 4)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_as_frequent_as_ageing_wants() {
        let seconds = [0, 1, 2, 20, 300].map(|ageing| pause(ageing).as_secs());
        assert_eq!(seconds, [10, 1, 1, 5, 10]);
    }
}
