//! How fast are addresses learned, and how many are held? Each frame comes from another source.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    contestants::Rival,
    frames::Frames,
    generator::{Generator, Load},
    measure::{Run, Trial},
    scenarios::entrance,
};

/// A contestant that forgets before each run.
pub(super) struct Learning {
    frames: Frames,
    addresses: u32,
    /// How many it knows that it has not learned.
    before: Option<u64>,
}

impl Learning {
    pub(super) fn new(rival: Rival, generator: &mut Generator, addresses: u32) -> Result<Self> {
        let load = Load { sources: addresses, ..Load::new(entrance(generator, &rival, 0)?, 60) };
        let frames = Frames { rival, load, copies: 1, to_xdp: false, hairpin: false, rate: 0.0 };
        Ok(Self { frames, addresses, before: None })
    }
}

impl Trial for Learning {
    fn run(&mut self, generator: &mut Generator, _time: Duration) -> Result<Run> {
        let rival = &self.frames.rival;
        rival.flush()?;
        // A bridge frees its entries in the background.
        thread::sleep(Duration::from_millis(20));
        let before = match self.before {
            Some(before) => before,
            None => rival.learned()?.context("it cannot be told what was learned")?,
        };
        self.before = Some(before);
        let (rate, ledger) = self.frames.send(generator, self.addresses)?;
        let held = self.frames.rival.learned()?.unwrap_or_default().saturating_sub(before) as f64;
        // A frame that was lost on the way to the switch taught nothing.
        Ok(Run { values: vec![rate * held / f64::from(self.addresses), held], ledger })
    }
}
