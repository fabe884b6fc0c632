//! What does the user get to see? The rows of every table; serialized, they are the CLI's JSON contract.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use serde::{Serialize, Serializer};
use vswitch_ebpf::{abi::Counters, frame::MacAddr, verdict::DropReason};

use crate::config::{Datapath, Flags, Mode, Role};

/// Name of the build: the commit, and whether its sources were changed.
pub const BUILD: &str = match option_env!("VSWITCH_BUILD") {
    Some(build) => build,
    None => "unknown",
};

/// The name of the host where a port's interface would stand: in `fdb show` and `stats`.
pub const HOST: &str = "host";

/// One row of `port show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortView {
    /// The interface.
    pub ifname: String,
    /// Its index; none while it is missing.
    pub ifindex: Option<u32>,
    /// Towards the outside or not.
    #[serde(serialize_with = "text")]
    pub role: Role,
    /// What it exchanges with its siblings.
    #[serde(serialize_with = "text")]
    pub mode: Mode,
    /// Whether frames can flow.
    #[serde(serialize_with = "text")]
    pub state: PortState,
    /// The datapath in use, never [`Datapath::Auto`]; none while the interface is missing.
    #[serde(serialize_with = "optional_text")]
    pub datapath: Option<Datapath>,
    /// Addresses that are bound to it: by the user, and that of a far end which vswitch made.
    #[serde(serialize_with = "texts")]
    pub mac: Vec<MacAddr>,
    /// In source mode, the senders whose frames it receives.
    #[serde(serialize_with = "texts")]
    pub source: Vec<MacAddr>,
    /// What of it is on; in JSON, a key each.
    #[serde(flatten)]
    pub flags: Flags,
    /// Whether the switch has set the interface to receive frames for any address.
    pub promisc: bool,
    /// The stations' addresses that the switch has entered into the interface's receive filter.
    #[serde(serialize_with = "texts")]
    pub filters: Vec<MacAddr>,
    /// What the user should know of it, a sentence each.
    pub notes: Vec<String>,
    /// What is not as the switch left it: cause, and remedy if it is the user's to put right.
    pub faults: Vec<String>,
}

/// Whether frames can flow through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// They can.
    Forwarding,
    /// Something is not as the switch left it: [`PortView::faults`].
    Degraded,
    /// Its interface is down or has no carrier.
    Down,
    /// Its interface does not exist at the moment.
    Missing,
}

/// One row of `fdb show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FdbView {
    /// The address.
    #[serde(serialize_with = "text")]
    pub mac: MacAddr,
    /// The VLAN; 0 without VLAN awareness.
    pub vlan: u16,
    /// The port's interface, or [`HOST`].
    pub ifname: String,
    /// How the entry came about.
    #[serde(rename = "type", serialize_with = "text")]
    pub kind: FdbKind,
    /// Seconds since the last frame from the address, for learned entries.
    pub age: Option<u64>,
}

/// How an FDB entry came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbKind {
    /// By a frame from the address; it ages.
    Learned,
    /// By the user; it stays.
    Static,
    /// It is one of the machine's own addresses.
    Local,
}

/// One row of `stats`. For each row `rx.packets = forwarded + host + sum of drops`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatsView {
    /// The port's interface, or [`HOST`].
    pub ifname: String,
    /// Received from it and decided.
    pub rx: RxFrames,
    /// Handed to it.
    pub tx: TxFrames,
    /// Received frames that went to at least one port.
    pub forwarded: u64,
    /// Received frames that went to the host alone.
    pub host: u64,
    /// Source addresses that were not learned because the FDB was full.
    pub fdb_full: u64,
    /// Received frames that went nowhere, by the reason's name; every reason is there.
    pub drops: BTreeMap<&'static str, u64>,
}

/// Frames that came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RxFrames {
    /// Frames; a GSO super-frame is one.
    pub packets: u64,
    /// Bytes with Ethernet headers.
    pub bytes: u64,
}

/// Frames that went out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TxFrames {
    /// Frames; a GSO super-frame is one.
    pub packets: u64,
    /// Bytes with Ethernet headers.
    pub bytes: u64,
    /// Frames that the kernel refused to send.
    pub errors: u64,
}

/// The one row of `show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SwitchView {
    /// The instance.
    pub name: String,
    /// The namespace that it lives in, as far as it has a name.
    pub netns: Option<String>,
    /// Seconds after which a learned address is forgotten.
    pub ageing: u32,
    /// The most addresses that the FDB holds.
    pub fdb_max: u32,
    /// The addresses that it holds now.
    pub fdb_used: u32,
    /// Whether ports and host reach each other directly.
    pub host_access: bool,
    /// Whether the kernel macvlan's rules hold.
    pub macvlan_compat: bool,
    /// Version of the layout of its maps.
    pub abi: u32,
    /// The build that answers.
    pub build: String,
    /// How many ports it has.
    pub ports: PortCounts,
    /// How many ports use each datapath, by its name.
    pub datapaths: BTreeMap<String, u32>,
    /// The faults of all ports, with their names.
    pub faults: Vec<String>,
}

/// How many ports a switch has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortCounts {
    /// All.
    pub count: u32,
    /// Those towards the outside.
    pub uplinks: u32,
    /// The others.
    pub downlinks: u32,
    /// Those through which frames can flow.
    pub forwarding: u32,
    /// Those with faults.
    pub degraded: u32,
}

impl StatsView {
    /// A row from a port's counters, summed over the CPUs.
    pub fn new(ifname: &str, counters: &Counters) -> Self {
        Self {
            ifname: ifname.to_owned(),
            rx: RxFrames { packets: counters.rx_packets, bytes: counters.rx_bytes },
            tx: TxFrames {
                packets: counters.tx_packets,
                bytes: counters.tx_bytes,
                errors: counters.tx_errors,
            },
            forwarded: counters.forwarded,
            host: counters.host,
            fdb_full: counters.fdb_full,
            drops: DropReason::ALL
                .into_iter()
                .map(|reason| (reason.name(), counters.drops[reason as usize]))
                .collect(),
        }
    }

    /// Received frames that went nowhere, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

impl PortCounts {
    /// Counts `ports`.
    pub fn of(ports: &[PortView]) -> Self {
        let count = |wanted: fn(&PortView) -> bool| {
            ports.iter().filter(|port| wanted(port)).fold(0, |count, _| count + 1)
        };
        Self {
            count: count(|_| true),
            uplinks: count(|port| port.role == Role::Uplink),
            downlinks: count(|port| port.role == Role::Downlink),
            forwarding: count(|port| port.state == PortState::Forwarding),
            degraded: count(|port| port.state == PortState::Degraded),
        }
    }
}

/// How many of the `ports` use each datapath, by its name.
pub fn datapaths(ports: &[PortView]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for datapath in ports.iter().filter_map(|port| port.datapath) {
        *counts.entry(datapath.to_string()).or_default() += 1;
    }
    counts
}

impl Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forwarding => "forwarding",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Missing => "missing",
        })
    }
}

impl Display for FdbKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Learned => "learned",
            Self::Static => "static",
            Self::Local => "local",
        })
    }
}

fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn optional_text<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn texts<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}
