//! Which flags may a port have? One table, from which the file's keys, the command line's options, what is shown and
//! planned, and the dataplane's bits follow.

use std::fmt;

use serde::{Serialize, Serializer};
use vswitch_ebpf::abi::port_flags;

use super::Mode;

/// What of a port is on: bits of [`port_flags`], those alone that are in [`PORT_FLAGS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(u32);

/// Something of a port that is on or off.
#[derive(Clone, Copy, Debug)]
pub struct PortFlag {
    /// Its key in the file, and its option on the command line.
    pub key: &'static str,
    /// Of [`port_flags`].
    pub bit: u32,
    /// What it is where the user says nothing.
    pub usual: bool,
    /// The same of a downlink whose station's address is known.
    pub known: bool,
    /// The only mode in which it may be other than usual, if it is for one.
    pub mode: Option<Mode>,
    /// What `--help` says of it.
    pub help: &'static str,
}

/// Every [`PortFlag`], in the order in which they are printed.
pub const PORT_FLAGS: [PortFlag; 7] = [
    PortFlag {
        help: "Whether a frame may leave where it came from, as from a reflecting switch",
        ..off("hairpin", port_flags::HAIRPIN)
    },
    PortFlag {
        help: "Whether it exchanges nothing with other isolated ports",
        ..off("isolated", port_flags::ISOLATED)
    },
    PortFlag {
        known: false,
        help: "Whether source addresses are learned",
        ..on("learning", port_flags::LEARNING)
    },
    PortFlag { known: false, help: "Whether it receives unknown unicast", ..on("flood", port_flags::FLOOD) },
    PortFlag { help: "Whether it receives multicast", ..on("mcast-flood", port_flags::MCAST_FLOOD) },
    PortFlag { help: "Whether it receives broadcast", ..on("bcast-flood", port_flags::BCAST_FLOOD) },
    PortFlag {
        mode: Some(Mode::Source),
        help: "With mode source: whether frames of its senders go nowhere else",
        ..off("nodst", port_flags::NODST)
    },
];

/// As a number, where no person reads it.
pub(super) mod bits {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Flags, PORT_FLAGS};

    /// The bits.
    pub(in super::super) fn serialize<S: Serializer>(
        flags: &Flags,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(flags.0)
    }

    /// Those that are flags.
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Flags, D::Error> {
        let known = PORT_FLAGS.iter().fold(0, |known, flag| known | flag.bit);
        u32::deserialize(deserializer).map(|bits| Flags(bits & known))
    }
}

/// One that is usually off.
const fn off(key: &'static str, bit: u32) -> PortFlag {
    PortFlag { key, bit, usual: false, known: false, mode: None, help: "" }
}

/// One that is usually on.
const fn on(key: &'static str, bit: u32) -> PortFlag {
    PortFlag { usual: true, known: true, ..off(key, bit) }
}

impl Flags {
    /// Whether the flag with this bit is on.
    pub const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Sets the flag with this bit.
    pub const fn set(&mut self, bit: u32, on: bool) {
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }

    /// The same, but for the flag with this bit.
    #[must_use]
    pub const fn with(mut self, bit: u32, on: bool) -> Self {
        self.set(bit, on);
        self
    }

    /// Makes usual what is not for this mode.
    pub fn fit(&mut self, mode: Mode) {
        for flag in PORT_FLAGS.iter().filter(|flag| flag.mode.is_some_and(|only| only != mode)) {
            self.set(flag.bit, flag.usual);
        }
    }

    /// All that are on.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Flags {
    /// Each as usual.
    fn default() -> Self {
        Self(PORT_FLAGS.iter().filter(|flag| flag.usual).fold(0, |all, flag| all | flag.bit))
    }
}

impl PortFlag {
    /// Its key in JSON.
    pub fn json_key(&self) -> String {
        self.key.replace('-', "_")
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = PORT_FLAGS.iter().filter(|flag| self.has(flag.bit)).map(|flag| flag.key);
        f.debug_list().entries(on).finish()
    }
}

/// As an object of all flags.
impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(PORT_FLAGS.iter().map(|flag| (flag.json_key(), self.has(flag.bit))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What files, scripts and readers of JSON rely on.
    #[test]
    fn keys_order_and_defaults_are_a_contract() {
        let in_json = r#"{"hairpin":false,"isolated":false,"learning":true,"flood":true,"mcast_flood":true,"bcast_flood":true,"nodst":false}"#;
        assert_eq!(serde_json::to_string(&Flags::default()).unwrap(), in_json);
    }

    #[test]
    fn each_has_a_bit_of_its_own() {
        let all = PORT_FLAGS.iter().fold(0, |all, flag| all | flag.bit);
        assert_eq!(all.count_ones() as usize, PORT_FLAGS.len());
        assert_eq!(all & (port_flags::UPLINK | port_flags::XDP | port_flags::PEER), 0);
    }
}
