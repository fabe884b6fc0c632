//! What should the switch do with a frame? The specification: the switch as a page of maps, one frame at a time.
//!
//! Written from `semantics.md` 1.3 (the Linux bridge) and 2 (where vswitch differs), and from issue 2. It knows nothing
//! of the dataplane's code; `tests/model.rs` and `tests/kernel` prove that the code does the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::frame::{BROADCAST, Mac};

/// The switch: everything that a frame's fate depends on.
#[derive(Clone, PartialEq, Eq)]
pub struct Model {
    /// By slot. A port whose interface is missing is not here.
    pub ports: BTreeMap<u16, Port>,
    pub fdb: BTreeMap<Mac, Entry>,
    /// How many entries the FDB has room for.
    pub fdb_max: usize,
    /// How long after its last frame an entry forwards. 0: nothing is learned and nothing learned is used.
    pub ageing: u64,
    /// How old a time stamp must be to be renewed.
    pub refresh: u64,
    pub now: u64,
    /// Whether host and access ports exchange frames directly; if not, theirs take the wire, as macvlan's do.
    pub host_access: bool,
    /// The uplink whose stack receives the group frames. Without uplink there is no host.
    pub host_uplink: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Towards the outside; the others are access ports.
    pub uplink: bool,
    pub mtu: u32,
    pub hairpin: bool,
    pub isolated: bool,
    pub learning: bool,
    /// Whether it receives unknown unicast, multicast, broadcast.
    pub flood: bool,
    pub mcast_flood: bool,
    pub bcast_flood: bool,
}

/// Who sends, and behind whom an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// The far end of the port in this slot.
    Port(u16),
    /// The machine's own stack, speaking through the uplink in this slot.
    Host { uplink: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Member,
    pub kind: Kind,
    /// When its address last sent a frame, as far as `refresh` lets it be known.
    pub seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ages, and moves to where its address is seen.
    Learned,
    /// Never ages, but moves, as the bridge's does.
    Static,
    /// Does not move, but ages.
    Sticky,
    /// Neither moves nor ages.
    StickyStatic,
    /// An address of the host itself: nothing that a frame says changes it.
    Local,
}

/// What counts of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub dst: Mac,
    pub src: Mac,
    /// With the Ethernet header.
    pub len: u32,
    /// A super-frame, which the interface cuts to its MTU.
    pub gso: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Receiver {
    /// Leaves by the port in this slot.
    Port(u16),
    /// The host's stack, as if received by this uplink.
    Host { uplink: u16 },
    /// The stack of the interface that the frame is on, whatever the switch is: LLDP belongs to one link.
    HostHere,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub receivers: BTreeSet<Receiver>,
    /// Why nobody receives it.
    pub dropped: Option<&'static str>,
    /// The source address found no room. The frame is forwarded all the same.
    pub fdb_full: bool,
}

impl Model {
    /// One frame enters the switch now.
    pub fn send(&mut self, from: Member, frame: &Frame) -> Outcome {
        let admitted = admit(from, frame);
        let fdb_full = admitted.is_ok() && !self.learn(from, frame.src);
        let fate = admitted.and_then(|()| self.receivers(from, frame));
        Outcome { dropped: fate.as_ref().err().copied(), receivers: fate.unwrap_or_default(), fdb_full }
    }

    /// Every member's addresses are learned, the host's too. False if there was no room.
    fn learn(&mut self, from: Member, source: Mac) -> bool {
        if self.ageing == 0 || !self.ports[&slot_of(from)].learning || !is_station(source) {
            return true;
        }
        let full = self.fdb.len() >= self.fdb_max;
        match self.fdb.get_mut(&source) {
            None if full => return false,
            None => {
                self.fdb.insert(source, Entry { at: from, kind: Kind::Learned, seen: self.now });
            }
            Some(entry) => match entry.kind {
                Kind::Learned | Kind::Static if entry.at != from => {
                    entry.at = from;
                    entry.seen = self.now;
                }
                Kind::Learned | Kind::Static | Kind::Sticky | Kind::StickyStatic => {
                    if self.now - entry.seen >= self.refresh {
                        entry.seen = self.now;
                    }
                }
                Kind::Local => {}
            },
        }
        true
    }

    fn receivers(&self, from: Member, frame: &Frame) -> Result<BTreeSet<Receiver>, &'static str> {
        if is_link_local(frame.dst) {
            return Ok(BTreeSet::from([match from {
                Member::Port(_) => Receiver::HostHere,
                Member::Host { uplink } => Receiver::Port(uplink),
            }]));
        }
        match self.find(frame.dst) {
            Some(to) => self.deliver(from, to, frame).map(|receiver| BTreeSet::from([receiver])),
            None => Some(self.flood(from, frame)).filter(|all| !all.is_empty()).ok_or("no_receiver"),
        }
    }

    /// Behind whom the address is. Past its ageing time, or with its port missing, an entry is no entry.
    pub fn find(&self, destination: Mac) -> Option<Member> {
        let entry = self.fdb.get(&destination)?;
        let alive = match entry.kind {
            Kind::Learned | Kind::Sticky => self.now - entry.seen < self.ageing,
            Kind::Static | Kind::StickyStatic | Kind::Local => true,
        };
        (alive && self.ports.contains_key(&slot_of(entry.at))).then_some(entry.at)
    }

    /// A frame for one member.
    fn deliver(&self, from: Member, to: Member, frame: &Frame) -> Result<Receiver, &'static str> {
        let out = match (from, to) {
            (Member::Port(ingress), Member::Host { uplink }) if self.meets_host(ingress) => {
                return Ok(Receiver::Host { uplink });
            }
            (Member::Port(_), Member::Port(out) | Member::Host { uplink: out }) => out,
            (Member::Host { .. }, Member::Port(port)) if self.meets_host(port) => port,
            // Where it would have gone without the switch.
            (Member::Host { uplink }, Member::Port(_) | Member::Host { .. }) => uplink,
        };
        self.may_leave(from, out, frame).map(|()| Receiver::Port(out))
    }

    /// A frame for all: the ports that want it and may have it, and the host, which wants every group frame.
    fn flood(&self, from: Member, frame: &Frame) -> BTreeSet<Receiver> {
        let group = is_group(frame.dst);
        let wants = |slot: u16, port: &Port| match from {
            Member::Port(_) if frame.dst == BROADCAST => port.bcast_flood,
            Member::Port(_) if group => port.mcast_flood,
            Member::Port(_) => port.flood,
            // Attaching a switch must not cut the host off from its own wire.
            Member::Host { uplink } if uplink == slot => true,
            Member::Host { .. } => self.meets_host(slot) && (group || port.flood),
        };
        let host_wants = matches!(from, Member::Port(ingress) if group && self.meets_host(ingress));
        self.ports
            .iter()
            .filter(|&(&slot, port)| wants(slot, port) && self.may_leave(from, slot, frame).is_ok())
            .map(|(&slot, _)| Receiver::Port(slot))
            .chain(self.host_uplink.filter(|_| host_wants).map(|uplink| Receiver::Host { uplink }))
            .collect()
    }

    /// The bridge's `should_deliver`, and then its MTU check, which leaves room for one VLAN tag.
    fn may_leave(&self, from: Member, out: u16, frame: &Frame) -> Result<(), &'static str> {
        let egress = &self.ports[&out];
        match from {
            Member::Host { uplink } if uplink == out => return Ok(()),
            Member::Port(ingress) if ingress == out && !egress.hairpin => return Err("same_port"),
            Member::Port(ingress) if self.ports[&ingress].isolated && egress.isolated => {
                return Err("isolated");
            }
            Member::Port(_) | Member::Host { .. } => {}
        }
        let room = egress.mtu + ETHERNET_HEADER + VLAN_TAG;
        if frame.gso || frame.len <= room { Ok(()) } else { Err("mtu_exceeded") }
    }

    /// The outside always meets the host; access ports if host access is on.
    fn meets_host(&self, slot: u16) -> bool {
        self.host_access || self.ports[&slot].uplink
    }
}

/// What no port may send. The host may: its stack was there before the switch.
fn admit(from: Member, frame: &Frame) -> Result<(), &'static str> {
    match from {
        _ if frame.len < ETHERNET_HEADER => Err("malformed"),
        Member::Port(_) if !is_station(frame.src) => Err("invalid_source"),
        Member::Port(_) if frame.dst == PAUSE => Err("pause"),
        Member::Port(_) | Member::Host { .. } => Ok(()),
    }
}

pub const fn slot_of(member: Member) -> u16 {
    match member {
        Member::Port(slot) | Member::Host { uplink: slot } => slot,
    }
}

/// 802.3 annex 31B: a bridge never forwards it.
const PAUSE: Mac = [0x01, 0x80, 0xc2, 0, 0, 0x01];
const ETHERNET_HEADER: u32 = 14;
const VLAN_TAG: u32 = 4;

fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

fn is_station(mac: Mac) -> bool {
    !is_group(mac) && mac != [0; 6]
}

/// 01-80-C2-00-00-0X.
fn is_link_local(mac: Mac) -> bool {
    mac[..5] == PAUSE[..5] && mac[5] < 0x10
}
