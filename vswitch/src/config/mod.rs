//! What a switch should be: the desired state that CLI and TOML speak of, and that [`crate::change::plan`] compares.
//!
//! Interfaces are named, never numbered: this is what the user says, and what `export` prints.

mod document;
pub mod mac;
pub mod names;
pub mod parse;
pub mod print;
mod problem;
#[cfg(test)]
pub(crate) mod samples;
pub mod validate;
pub mod words;

use serde::{Deserialize, Serialize};
use vswitch_ebpf::{abi, frame::MacAddr};

pub use parse::{ConfigError, ConfigErrors, parse, parse_noting};
pub use validate::{ConfigProblem, ConfigProblems};

/// A whole switch. Serialized, it is the pinned document (`change/intent.rs`); files are TOML.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchConfig {
    /// The instance's name; also a directory's.
    pub name: String,
    /// Seconds after which a learned address is forgotten; 0: nothing is learned.
    pub ageing: u32,
    /// The most addresses that the FDB holds. Fixed while the switch is up.
    pub fdb_max: u32,
    /// Whether downlinks and the host reach each other directly.
    pub host_access: bool,
    /// Whether the kernel macvlan's rules hold where vswitch differs from them on purpose.
    pub macvlan_compat: bool,
    /// The ports, in the order in which they were added. Names are unique.
    pub ports: Vec<PortConfig>,
    /// Addresses that the user has bound to ports. (VLAN, MAC) is unique.
    pub fdb: Vec<StaticEntry>,
}

/// One port. Serialized, it is what it has not by default: there may be a thousand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortConfig {
    /// The interface in the switch's namespace.
    pub ifname: String,
    /// Towards the outside or not.
    #[serde(skip_serializing_if = "is_default")]
    pub role: Role,
    /// What a downlink exchanges with its siblings.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Addresses known to be behind the port: never learned elsewhere. With [`FarEnd::Veth`] the first is the far end's.
    #[serde(with = "mac::texts", skip_serializing_if = "is_default")]
    pub mac: Vec<MacAddr>,
    /// In source mode, the senders whose frames it receives. Empty in the other modes.
    #[serde(with = "mac::texts", skip_serializing_if = "is_default")]
    pub source: Vec<MacAddr>,
    /// May send a frame back out where it came from.
    #[serde(skip_serializing_if = "is_default")]
    pub hairpin: bool,
    /// Exchanges nothing with other isolated ports.
    #[serde(skip_serializing_if = "is_default")]
    pub isolated: bool,
    /// Source addresses are learned.
    #[serde(skip_serializing_if = "is_on")]
    pub learning: bool,
    /// Receives unknown unicast.
    #[serde(skip_serializing_if = "is_on")]
    pub flood: bool,
    /// Receives multicast.
    #[serde(skip_serializing_if = "is_on")]
    pub mcast_flood: bool,
    /// Receives broadcast.
    #[serde(skip_serializing_if = "is_on")]
    pub bcast_flood: bool,
    /// In source mode, whether frames of its senders go nowhere else.
    #[serde(skip_serializing_if = "is_default")]
    pub nodst: bool,
    /// How its frames are taken and delivered.
    #[serde(skip_serializing_if = "is_default")]
    pub datapath: Datapath,
    /// Whether vswitch makes the interface.
    #[serde(skip_serializing_if = "is_default")]
    pub far_end: FarEnd,
}

/// Where a port leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// To the outside.
    Uplink,
    /// To a station: a namespace, a VM.
    #[default]
    Downlink,
}

/// What a downlink exchanges with its siblings: macvlan's modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Frames go to siblings directly.
    #[default]
    Bridge,
    /// Everything leaves by the uplink.
    Vepa,
    /// Nothing is exchanged with siblings.
    Private,
    /// The only port has everything.
    Passthru,
    /// Frames are received by their source.
    Source,
}

/// The datapath that the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Datapath {
    /// Native XDP on NICs that have it, tc elsewhere.
    #[default]
    Auto,
    /// Native XDP.
    Xdp,
    /// XDP in the driver-independent way, slower than tc; only on request.
    XdpGeneric,
    /// tc.
    Tc,
}

/// Whether vswitch makes a port's interface, and deletes it with the port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FarEnd {
    /// The interface exists without vswitch.
    #[default]
    Existing,
    /// One end of a veth pair; the other is `peer` in the namespace `netns`, up.
    Veth {
        /// The namespace, as `ip netns` names it, or a path.
        netns: String,
        /// The far end's name there.
        peer: String,
    },
    /// A persistent tap.
    Tap,
}

/// An address that the user has bound to a port. It never ages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticEntry {
    /// The address.
    #[serde(with = "mac::text")]
    pub mac: MacAddr,
    /// The VLAN; 0 without VLAN awareness.
    pub vlan: u16,
    /// The port's interface.
    pub ifname: String,
}

/// The name of a switch when the user gives none.
pub const DEFAULT_SWITCH: &str = "vs0";

/// The ageing time when the user gives none, in seconds: the bridge's.
pub const DEFAULT_AGEING: u32 = 300;

/// The far end's name when the user gives none.
pub const DEFAULT_PEER: &str = "eth0";

impl SwitchConfig {
    /// A switch without ports and with every default.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ageing: DEFAULT_AGEING,
            fdb_max: abi::DEFAULT_FDB_MAX,
            host_access: true,
            macvlan_compat: false,
            ports: Vec::new(),
            fdb: Vec::new(),
        }
    }

    /// The port with this interface.
    pub fn port(&self, ifname: &str) -> Option<&PortConfig> {
        self.ports.iter().find(|port| port.ifname == ifname)
    }

    /// Calls a port otherwise.
    pub fn rename(&mut self, before: &str, after: &str) {
        let ports = self.ports.iter_mut().map(|port| &mut port.ifname);
        let entries = self.fdb.iter_mut().map(|entry| &mut entry.ifname);
        ports.chain(entries).filter(|ifname| *ifname == before).for_each(|ifname| after.clone_into(ifname));
    }
}

impl PortConfig {
    /// A downlink with every default.
    pub fn new(ifname: &str) -> Self {
        Self {
            ifname: ifname.to_owned(),
            role: Role::default(),
            mode: Mode::default(),
            mac: Vec::new(),
            source: Vec::new(),
            hairpin: false,
            isolated: false,
            learning: true,
            flood: true,
            mcast_flood: true,
            bcast_flood: true,
            nodst: false,
            datapath: Datapath::default(),
            far_end: FarEnd::default(),
        }
    }

    /// Whether its station's address is known without learning: the user names it, or vswitch makes the far end.
    pub fn is_known(&self) -> bool {
        !self.mac.is_empty() || matches!(self.far_end, FarEnd::Veth { .. })
    }

    /// Sets what follows from addresses and far end where the user says nothing: a port whose address is known is not
    /// learned from, and needs no frames for unknown addresses. It is what a macvlan child has.
    pub fn set_known_defaults(&mut self) {
        if self.role == Role::Downlink && self.is_known() {
            self.learning = false;
            self.flood = false;
        }
    }
}

/// A port that names no interface yet.
impl Default for PortConfig {
    fn default() -> Self {
        Self::new("")
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_on(on: &bool) -> bool {
    *on
}

/// A switch of a port that is on or off: one list for the file, the plan and what they print.
#[derive(Clone, Copy)]
pub struct PortFlag {
    /// Its key in the file, and its option on the command line.
    pub key: &'static str,
    /// Reads it.
    pub get: fn(&PortConfig) -> bool,
    /// Sets it.
    pub set: fn(&mut PortConfig, bool),
}

/// Every [`PortFlag`], in the order in which they are printed.
pub const PORT_FLAGS: [PortFlag; 7] = [
    PortFlag { key: "hairpin", get: |port| port.hairpin, set: |port, on| port.hairpin = on },
    PortFlag { key: "isolated", get: |port| port.isolated, set: |port, on| port.isolated = on },
    PortFlag { key: "learning", get: |port| port.learning, set: |port, on| port.learning = on },
    PortFlag { key: "flood", get: |port| port.flood, set: |port, on| port.flood = on },
    PortFlag { key: "mcast-flood", get: |port| port.mcast_flood, set: |port, on| port.mcast_flood = on },
    PortFlag { key: "bcast-flood", get: |port| port.bcast_flood, set: |port, on| port.bcast_flood = on },
    PortFlag { key: "nodst", get: |port| port.nodst, set: |port, on| port.nodst = on },
];
