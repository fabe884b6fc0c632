//! What does the generator of `vswitch bench` send? Its contract with userspace, no part of the switch's.

use bytemuck::{Pod, Zeroable};

/// How many far ends the generator can send from.
pub const ENTRANCES: u32 = 1024;

/// Bytes at the start of a frame that are addresses.
pub const ADDRESSES_LEN: usize = 12;

/// A stream of frames: the only element of the map `STREAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Stream {
    /// Element of the map `ENTRANCE`: where the frames enter.
    pub entrance: u32,
    /// How many sources the frames have, in turn.
    pub sources: u32,
    /// How many destinations.
    pub destinations: u32,
    /// The next frame's source.
    pub source: u32,
    /// The next frame's destination.
    pub destination: u32,
    /// What the sources begin with.
    pub source_side: [u8; 2],
    /// What the destinations begin with.
    pub destination_side: [u8; 2],
}

/// What the addresses of the stations on the sending side begin with.
pub const SENDING: [u8; 2] = [0x02, 0x51];

/// What the addresses of the stations on the receiving side begin with.
pub const RECEIVING: [u8; 2] = [0x02, 0xd1];

/// Address of the station number `n` on a side.
#[inline(always)]
pub const fn station([x, y]: [u8; 2], n: u32) -> [u8; 6] {
    let [a, b, c, d] = n.to_be_bytes();
    [x, y, a, b, c, d]
}
