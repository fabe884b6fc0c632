//! Frames of the generator through a contestant that has learned where their destinations are.

use anyhow::Result;

use super::entrance;
use crate::bench::{
    contestants::{Contestant, Rival, Terms},
    generator::{BATCH, Generator, Load},
    measure::Frames,
};

/// A destination that nobody has.
const NOBODY: [u8; 6] = [0x02, 0xee, 0, 0, 0, 1];

/// Half of what a CPU's backlog has room for (net.core.netdev_max_backlog).
const BACKLOG: u32 = 500;

/// `copies`: how many are to receive each frame.
pub(super) fn make(
    rival: Rival,
    generator: &mut Generator,
    terms: Terms,
    (bytes, addresses, copies): (usize, u32, u32),
) -> Result<Frames> {
    let mut load = Load {
        sources: addresses,
        destinations: addresses,
        ..Load::new(entrance(generator, &rival, 0)?, bytes)
    };
    if copies > 1 {
        load.to = Some(NOBODY);
        // A CPU's backlog has room for a thousand.
        load.batch = (BACKLOG / copies).clamp(1, BATCH);
    } else if rival.contestant != Contestant::Macvlan {
        // Where the destinations are. For hairpin, behind the port that the frames come from.
        let teacher = if terms.hairpin { load.entrance } else { entrance(generator, &rival, 1)? };
        let lesson = Load { reverse: true, entrance: teacher, destinations: 1, ..load };
        generator.send(&lesson, addresses)?;
    }
    Ok(Frames { rival, load, copies, to_xdp: terms.to_xdp, hairpin: terms.hairpin, rate: 0.0 })
}
