//! What a switch should be: the desired state that CLI and TOML speak of, and that [`crate::change::plan`] compares.
//!
//! Interfaces are named, never numbered: this is what the user says, and what `export` prints.

mod document;
mod flags;
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

pub use flags::{Flags, PORT_FLAGS, PortFlag};
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
    /// What of it is on.
    #[serde(with = "flags::bits")]
    pub flags: Flags,
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
            flags: Flags::default(),
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
            for flag in PORT_FLAGS.iter().filter(|flag| flag.known != flag.usual) {
                self.flags.set(flag.bit, flag.known);
            }
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
