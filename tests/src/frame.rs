//! What is sent? One Ethernet frame, written as a test thinks of it: to whom, from whom, with which tag.

use std::{fmt, ops::Range};

pub type Mac = [u8; 6];

/// IEEE local experimental ethertype: no protocol in the kernel listens to it, so a frame disturbs nobody.
pub const ETHERTYPE: u16 = 0x88b5;
pub const BROADCAST: Mac = [0xff; 6];
/// A group that nobody has joined, of the kind that IP multicast uses.
pub const MULTICAST: Mac = [0x01, 0x00, 0x5e, 0x7f, 0x01, 0x02];
/// A unicast address that no member of any lab has.
pub const UNKNOWN: Mac = [0x02, 0, 0, 0, 0xde, 0xad];

/// Where an 802.1Q tag is, if there is one.
pub const TAG: Range<usize> = 12..16;

const TPID: u16 = 0x8100;
/// Marks our frames among whatever else is on the wire.
const MAGIC: [u8; 4] = *b"vst!";
const STAMP: usize = MAGIC.len() + 8;
/// The shortest frame the wire carries, without its checksum.
const MIN_LEN: usize = 60;

/// 01-80-C2-00-00-0X, which a bridge keeps on the link.
pub const fn link_local(x: u8) -> Mac {
    [0x01, 0x80, 0xc2, 0x00, 0x00, x]
}

/// A MAC as `ip` writes it.
pub fn colons(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A member of the lab by name, or an address that need not belong to anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addr {
    Of(String),
    Mac(Mac),
}

impl From<&str> for Addr {
    fn from(name: &str) -> Self {
        Self::Of(name.to_owned())
    }
}

impl From<Mac> for Addr {
    fn from(mac: Mac) -> Self {
        Self::Mac(mac)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(name) => f.write_str(name),
            Self::Mac(mac) => f.write_str(&colons(*mac)),
        }
    }
}

/// A frame to be. It names no lab, so the same value goes through the switch and through its oracle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub dst: Addr,
    /// None: the sender's own.
    pub src: Option<Addr>,
    pub tci: Option<u16>,
    pub ethertype: u16,
    pub len: usize,
}

/// The beginning of every row of a test table: `to("web")`, `to(BROADCAST)`.
pub fn to(dst: impl Into<Addr>) -> Frame {
    Frame { dst: dst.into(), src: None, tci: None, ethertype: ETHERTYPE, len: MIN_LEN }
}

impl Frame {
    /// Sends under another source address than the sender's.
    pub fn from(mut self, src: impl Into<Addr>) -> Self {
        self.src = Some(src.into());
        self
    }

    pub const fn vlan(self, vid: u16) -> Self {
        self.tci(vid)
    }

    /// The whole tag control information: priority, DEI and VLAN.
    pub const fn tci(mut self, tci: u16) -> Self {
        self.tci = Some(tci);
        self
    }

    pub const fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = ethertype;
        self
    }

    /// Length on the wire, headers and tag included, checksum not.
    pub const fn len(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    /// The bytes on the wire, with `seq` in the payload so that the receivers know this very transmission.
    pub fn bytes(&self, dst: Mac, src: Mac, seq: u64) -> Vec<u8> {
        let mut bytes = [dst, src].concat();
        if let Some(tci) = self.tci {
            bytes.extend(TPID.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend(self.ethertype.to_be_bytes());
        bytes.extend(MAGIC);
        bytes.extend(seq.to_be_bytes());
        let len = self.len.max(bytes.len());
        bytes.resize(len, 0);
        bytes
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}", self.dst)?;
        if let Some(src) = &self.src {
            write!(f, " as {src}")?;
        }
        if let Some(tci) = self.tci {
            write!(f, " tci {tci:#x}")?;
        }
        write!(f, " ethertype {:#x} length {}", self.ethertype, self.len)
    }
}

/// The number that `Frame::bytes` stamped, if the frame is one of ours, at any depth of VLAN tags.
pub fn seq_of(bytes: &[u8]) -> Option<u64> {
    let payload = bytes.get(payload_at(bytes)..)?;
    let stamp = payload.get(..STAMP)?.strip_prefix(&MAGIC)?;
    Some(u64::from_be_bytes(stamp.try_into().ok()?))
}

/// The outer 802.1Q tag.
pub fn tci_of(bytes: &[u8]) -> Option<u16> {
    let tag = bytes.get(TAG)?.strip_prefix(&TPID.to_be_bytes())?;
    Some(u16::from_be_bytes(tag.try_into().ok()?))
}

fn payload_at(bytes: &[u8]) -> usize {
    let mut at = TAG.start;
    while bytes.get(at..at + 2).is_some_and(|word| [[0x81, 0x00], [0x88, 0xa8]].contains(&[word[0], word[1]]))
    {
        at += TAG.len();
    }
    at + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_by_its_number_with_and_without_a_tag() {
        let frame = to(BROADCAST).len(80);
        let tagged = frame.clone().tci(0xe00a);
        for (frame, tci) in [(frame, None), (tagged, Some(0xe00a))] {
            let bytes = frame.bytes(BROADCAST, UNKNOWN, 7);
            assert_eq!((bytes.len(), seq_of(&bytes), tci_of(&bytes)), (80, Some(7), tci));
        }
        assert_eq!(seq_of(&[0; 60]), None);
    }
}
