//! What is read of a frame: bounded byte access, and the Ethernet header.

use bytemuck::{Pod, Zeroable};

/// Bytes of an Ethernet header: destination, source, EtherType.
pub const ETH_HLEN: u32 = 14;

/// Bytes of one 802.1Q tag.
pub const VLAN_HLEN: u32 = 4;

/// A frame as the decision sees it. A trait and not a slice: the verifier forgets the bound of a slice of the packet.
pub trait Frame {
    /// The eight bytes from the destination address on, and the eight from the source address on, which end with the
    /// EtherType, as little-endian words; `None` if the frame is shorter. Words and not bytes: the compiler does not know
    /// that BPF may load them from any address, and would load byte by byte.
    fn words(&self) -> Option<[u64; 2]>;

    /// Length in bytes with the Ethernet header, of the longest frame that will be on a wire: 0 for a GSO super-frame,
    /// whose segments fit the MTU by construction.
    fn wire_len(&self) -> u32;

    /// Length in bytes with the Ethernet header, of a GSO super-frame as it is: what is counted.
    fn length(&self) -> u32;
}

/// A 48-bit MAC address, in the order of the wire.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address as a number, its first byte the lowest.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The address in the low 48 bits of a word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = word.to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    /// Whether the group bit is set: multicast or broadcast.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.word() & 1 != 0
    }

    /// Whether it is the broadcast address.
    #[inline(always)]
    pub fn is_broadcast(self) -> bool {
        self.word() == Self::BROADCAST.word()
    }

    /// Whether it is all zero.
    #[inline(always)]
    pub fn is_zero(self) -> bool {
        self.word() == 0
    }

    /// Whether a station may send from it: neither a group address nor zero.
    #[inline(always)]
    pub fn is_station(self) -> bool {
        !self.is_group() && !self.is_zero()
    }

    /// The last digit of 01-80-C2-00-00-0X, the reserved addresses that a bridge does not forward (802.1Q table 8-1).
    #[inline(always)]
    pub fn link_local(self) -> Option<u8> {
        const RESERVED: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
        let digit = self.word() ^ RESERVED.word();
        (digit & !(0x0f << 40) == 0).then_some((digit >> 40) as u8)
    }
}

impl core::fmt::Display for MacAddr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, x] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{x:02x}")
    }
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the frame goes.
    pub destination: MacAddr,
    /// Where it says that it comes from.
    pub source: MacAddr,
    /// What it carries; the tag's protocol for a frame that is tagged in-band.
    pub ethertype: u16,
}

/// EtherType of MAC control frames, of which pause frames are the only ones in use (ETH_P_PAUSE).
pub const ETH_P_PAUSE: u16 = 0x8808;

impl Header {
    /// Reads them; `None` if the frame is shorter than an Ethernet header.
    #[inline(always)]
    pub fn read(frame: &impl Frame) -> Option<Self> {
        let [destination, source] = frame.words()?;
        let [.., high, low] = source.to_le_bytes();
        Some(Self {
            destination: MacAddr::from_word(destination),
            source: MacAddr::from_word(source),
            ethertype: u16::from_be_bytes([high, low]),
        })
    }
}

/// What there is to know of a frame, read once.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    words: [u64; 2],
    is_whole: bool,
    wire_len: u32,
    length: u32,
}

impl Seen {
    /// Of any frame.
    #[inline(always)]
    pub fn of(frame: &impl Frame) -> Self {
        // Not an option kept: what it leaves unwritten makes the verifier stumble (6.18: "verifier bug: stack slot 13").
        let (words, is_whole) = match frame.words() {
            Some(words) => (words, true),
            None => ([0; 2], false),
        };
        Self { words, is_whole, wire_len: frame.wire_len(), length: frame.length() }
    }
}

impl Frame for Seen {
    #[inline(always)]
    fn words(&self) -> Option<[u64; 2]> {
        self.is_whole.then_some(self.words)
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        self.wire_len
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }
}

impl Frame for &[u8] {
    fn words(&self) -> Option<[u64; 2]> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = *self.first_chunk::<{ ETH_HLEN as usize }>()?;
        Some([[a, b, c, d, e, f, g, h], [g, h, i, j, k, l, m, n]].map(u64::from_le_bytes))
    }

    fn wire_len(&self) -> u32 {
        self.length()
    }

    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_address() {
        assert!(MacAddr::BROADCAST.is_group() && MacAddr::BROADCAST.is_broadcast());
        assert!(!MacAddr([0; 6]).is_station());
        assert!(!MacAddr([0x33, 0x33, 0, 0, 0, 1]).is_station());
        assert!(MacAddr([2, 0, 0, 0, 0, 1]).is_station());
        assert_eq!(MacAddr([1, 0x80, 0xc2, 0, 0, 0x0e]).link_local(), Some(0x0e));
        assert_eq!(MacAddr([1, 0x80, 0xc2, 0, 0, 0x10]).link_local(), None);
        assert_eq!(MacAddr([2, 0, 0, 0, 0, 0xa]).to_string(), "02:00:00:00:00:0a");
    }

    #[test]
    fn a_short_frame_has_no_addresses() {
        assert_eq!(Header::read(&[0u8; 13].as_slice()), None);
        assert!(Header::read(&[0u8; 14].as_slice()).is_some());
    }
}
