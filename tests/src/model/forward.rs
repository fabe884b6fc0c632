//! Who receives a frame: "Destinations" and "Modes" of `docs/semantics.md`.

use std::collections::BTreeSet;

use super::{
    ETHERNET_HEADER, Frame, Member, Mode, Model, Origin, PAUSE, Port, Receiver, is_group, is_permanent,
    macvlan::{heard_from_the_wire, meet_directly},
};
use crate::frame::BROADCAST;

const VLAN_TAG: u32 = 4;

/// Who receives, or why nobody does.
type Fate = Result<BTreeSet<Receiver>, &'static str>;

/// Where a unicast destination is.
enum Place {
    At(Member),
    /// Told for good to be behind a port that is down or missing.
    Unreachable,
    Unknown,
}

impl Model {
    pub(super) fn receivers(&self, from: Member, origin: Origin, frame: &Frame) -> Fate {
        match from {
            Member::Host { uplink } => self.host_sends(uplink, frame),
            Member::Port(slot) if self.ports[&slot].uplink => self.wire_brings(slot, origin, frame),
            Member::Port(slot) => self.station_sends(slot, frame),
        }
    }

    /// The host reaches the ports that it meets, and by its own wire whatever it reached without a switch.
    fn host_sends(&self, uplink: u16, frame: &Frame) -> Fate {
        let from = Member::Host { uplink };
        let own_wire = only(Receiver::Port(uplink));
        let meets = |slot: u16| self.host_meets(slot) && self.may_hear(slot, frame);
        if self.stays_on_the_link(frame) || self.is_pause(frame) {
            return own_wire;
        }
        match self.place(frame) {
            Place::At(Member::Port(slot)) if meets(slot) => self.leave(from, slot, frame),
            Place::Unknown => {
                // As of the bridge itself, only unknown unicast looks at the flags.
                let group = is_group(frame.dst);
                let wants = |slot: u16, port: &Port| slot == uplink || meets(slot) && (group || port.flood);
                self.copies(from, frame, wants)
            }
            // Also what the host sends to itself.
            Place::At(_) | Place::Unreachable => own_wire,
        }
    }

    /// A frame from outside, or a reflection. "Evaluate in this order": the lists first.
    fn wire_brings(&self, uplink: u16, origin: Origin, frame: &Frame) -> Fate {
        if self.stays_on_the_link(frame) {
            return only(Receiver::Host { uplink });
        }
        let fate = self.by_address(uplink, origin, frame);
        match origin {
            // Nobody but the host and the outside has to do with a private port.
            Origin::Sibling(slot) if !self.compat && self.ports[&slot].mode == Mode::Private => fate,
            // Who may hear the host has heard it.
            Origin::Host if self.meets_ports() && self.is_flooded(frame) => Err("reflected"),
            Origin::Elsewhere | Origin::Sibling(_) | Origin::Host | Origin::MovedFrom(_) => {
                self.and_listed(uplink, origin, frame, fate)
            }
        }
    }

    /// What came in by an uplink and is not for the lists alone.
    fn by_address(&self, uplink: u16, origin: Origin, frame: &Frame) -> Fate {
        let from = Member::Port(uplink);
        let passthru = self.ports.iter().find(|(_, port)| port.mode == Mode::Passthru);
        if let Some((&slot, _)) = passthru
            && !is_group(frame.dst)
        {
            return self.leave(from, slot, frame);
        }
        match self.place(frame) {
            Place::At(Member::Port(slot)) if self.is_kept_private(origin, slot) => Err("private"),
            _ if self.is_flooded(frame) => self.flood_from_wire(uplink, origin, frame),
            // macvlan knows its children: what lives outside is for the host to see.
            Place::At(Member::Port(slot)) if self.compat && slot == uplink && !self.ports[&slot].hairpin => {
                only(Receiver::Host { uplink })
            }
            Place::At(Member::Port(slot)) => self.leave(from, slot, frame),
            Place::At(Member::Host { uplink }) => only(Receiver::Host { uplink }),
            Place::Unreachable if self.compat => only(Receiver::Host { uplink }),
            Place::Unreachable | Place::Unknown => Err("port_down"),
        }
    }

    /// A reflection does not return to the wire, nor to whom the table leaves out.
    fn flood_from_wire(&self, ingress: u16, origin: Origin, frame: &Frame) -> Fate {
        let group = is_group(frame.dst);
        let sender = match origin {
            Origin::Sibling(slot) => Some(slot),
            Origin::Elsewhere | Origin::Host | Origin::MovedFrom(_) => None,
        };
        let from_outside = matches!(origin, Origin::Elsewhere | Origin::MovedFrom(_));
        let row = heard_from_the_wire(sender.map(|slot| self.ports[&slot].mode));
        let hears = |slot: u16, port: &Port| match port.uplink {
            true => from_outside && !self.is_pause(frame),
            // Its own echo is macvlan's alone: IPv6 takes it for a duplicate address.
            false if sender == Some(slot) => self.compat && group && row.itself,
            false if self.is_kept_private(origin, slot) => false,
            false => row.children.contains(&port.mode) && !self.is_pause(frame),
        };
        let mut all = self
            .copies(Member::Port(ingress), frame, |slot, port| hears(slot, port) && wants(port, frame))
            .unwrap_or_default();
        // A sibling's frame the host has had from the sibling, if they meet.
        let host = row.host && (from_outside || !self.meets_ports());
        match group {
            true if host && !self.is_pause(frame) => all.extend(self.stacks()),
            // macvlan lets the stack see what it has no child for, and what is no child's business.
            true if host => all.extend([Receiver::Host { uplink: ingress }]),
            false if self.compat => all.extend([Receiver::Host { uplink: ingress }]),
            true | false => {}
        }
        if all.is_empty() { Err(nobody(origin)) } else { Ok(all) }
    }

    /// From a downlink: directly to whom it meets, all else by the wire.
    fn station_sends(&self, slot: u16, frame: &Frame) -> Fate {
        let (from, port) = (Member::Port(slot), &self.ports[&slot]);
        if self.stays_on_the_link(frame) {
            return only(Receiver::HostHere);
        }
        if self.is_pause(frame) {
            return self.by_wire(slot, frame);
        }
        let meets = |to: &Port| to.uplink || meet_directly(port.mode, to.mode);
        match self.place(frame) {
            // macvlan gives a child in bridge mode what it sends to itself.
            Place::At(Member::Port(to)) if self.compat && to == slot && port.mode == Mode::Bridge => {
                self.and_listed(slot, Origin::Elsewhere, frame, only(Receiver::Port(slot)))
            }
            Place::At(Member::Port(to)) if self.ports[&to].uplink => self.leave(from, to, frame),
            Place::At(Member::Port(to)) if meets(&self.ports[&to]) => {
                // It passes the lower device, where the lists are.
                self.and_listed(slot, Origin::Elsewhere, frame, self.leave(from, to, frame))
            }
            Place::At(Member::Host { uplink }) if self.host_meets(slot) => only(Receiver::Host { uplink }),
            Place::Unknown => {
                let mut all =
                    self.copies(from, frame, |_, port| meets(port) && wants(port, frame)).unwrap_or_default();
                if is_group(frame.dst) && self.host_meets(slot) {
                    all.extend(self.stacks());
                }
                if all.is_empty() { Err("no_receiver") } else { Ok(all) }
            }
            Place::Unreachable if !self.compat && port.mode == Mode::Bridge => Err("port_down"),
            Place::At(_) | Place::Unreachable => self.by_wire(slot, frame),
        }
    }

    /// Out by the uplink, or by all of them.
    fn by_wire(&self, slot: u16, frame: &Frame) -> Fate {
        let uplinks: Vec<u16> = self.uplinks().collect();
        match uplinks[..] {
            [uplink] => self.leave(Member::Port(slot), uplink, frame),
            _ => self.copies(Member::Port(slot), frame, |_, port| port.uplink),
        }
    }

    /// The ports in source mode that list the sender have the frame as well, or, with `nodst`, instead.
    fn and_listed(&self, ingress: u16, origin: Origin, frame: &Frame, fate: Fate) -> Fate {
        let lists = |slot: u16| self.sources.contains(&(slot, frame.src));
        let listing = self.ports.iter().filter(|(slot, _)| lists(**slot));
        let (mut listed, mut consumed) = (false, false);
        listing.for_each(|(_, port)| (listed, consumed) = (true, consumed || port.nodst));
        if !listed {
            return fate;
        }
        let copies = self.copies(Member::Port(ingress), frame, |slot, _| lists(slot)).unwrap_or_default();
        let others = if consumed { BTreeSet::new() } else { fate.unwrap_or_default() };
        let all = &copies | &others;
        if all.is_empty() { Err(nobody(origin)) } else { Ok(all) }
    }

    /// Where a unicast destination is, by the FDB. Past its ageing time an entry is no entry, and what was only learned
    /// is forgotten with its port. The host is there, too, when its cable is not.
    fn place(&self, frame: &Frame) -> Place {
        let Some(entry) = self.fdb.get(&frame.dst).filter(|entry| self.is_alive(entry)) else {
            return Place::Unknown;
        };
        let reachable = match entry.at {
            Member::Port(slot) => self.ports.get(&slot).is_some_and(|port| !port.down),
            Member::Host { uplink } => self.ports.contains_key(&uplink),
        };
        match reachable {
            true => Place::At(entry.at),
            false if is_permanent(entry.kind) => Place::Unreachable,
            false => Place::Unknown,
        }
    }

    /// Whether a frame from the wire is for all. The own address of a port in source mode leads nowhere.
    fn is_flooded(&self, frame: &Frame) -> bool {
        let passthru = self.ports.values().any(|port| port.mode == Mode::Passthru);
        let unknown = match self.place(frame) {
            Place::Unknown => true,
            Place::At(Member::Port(slot)) => self.ports[&slot].mode == Mode::Source,
            Place::At(Member::Host { .. }) | Place::Unreachable => false,
        };
        is_group(frame.dst) || unknown && !passthru
    }

    /// Strictly, a private port has nothing to do with its siblings.
    fn is_kept_private(&self, origin: Origin, to: u16) -> bool {
        let private = |slot: u16| self.ports[&slot].mode == Mode::Private;
        !self.compat
            && match origin {
                Origin::Sibling(from) => private(from) || private(to),
                Origin::MovedFrom(_) => private(to),
                // The host would have reached it directly.
                Origin::Host => self.meets_ports() && private(to),
                Origin::Elsewhere => false,
            }
    }

    fn copies(&self, from: Member, frame: &Frame, to: impl Fn(u16, &Port) -> bool) -> Fate {
        let may = |slot: u16, port: &Port| to(slot, port) && self.leave(from, slot, frame).is_ok();
        let slots = self.ports.iter().filter(|&(&slot, port)| may(slot, port));
        let all: BTreeSet<_> = slots.map(|(&slot, _)| Receiver::Port(slot)).collect();
        if all.is_empty() { Err("no_receiver") } else { Ok(all) }
    }

    /// The bridge's `should_deliver`, and then its MTU check, which leaves room for one VLAN tag. Out of its own wire the
    /// host sends what it sent without the switch.
    fn leave(&self, from: Member, out: u16, frame: &Frame) -> Fate {
        let egress = &self.ports[&out];
        let fits = frame.gso || frame.len <= egress.mtu + ETHERNET_HEADER + VLAN_TAG;
        match from {
            Member::Host { uplink } if uplink == out => only(Receiver::Port(out)),
            _ if egress.down => Err("port_down"),
            Member::Port(ingress) if ingress == out && !egress.hairpin => Err("same_port"),
            Member::Port(ingress) if self.ports[&ingress].isolated && egress.isolated => Err("isolated"),
            _ if !fits => Err("mtu_exceeded"),
            Member::Port(_) | Member::Host { .. } => only(Receiver::Port(out)),
        }
    }

    /// Whether the host and any downlink meet: macvlan's never do.
    fn meets_ports(&self) -> bool {
        self.host_access && !self.compat
    }

    /// Whether the host and this port meet. The outside always does, and a passthru port is as good as the wire.
    fn host_meets(&self, slot: u16) -> bool {
        let port = &self.ports[&slot];
        port.uplink || self.meets_ports() && port.mode != Mode::Passthru
    }

    /// A port in source mode hears the senders that it lists.
    fn may_hear(&self, slot: u16, frame: &Frame) -> bool {
        self.ports[&slot].mode != Mode::Source || self.sources.contains(&(slot, frame.src))
    }

    fn uplinks(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().filter(|(_, port)| port.uplink).map(|(&slot, _)| slot)
    }

    /// The host is on the LAN with each of its uplinks, as if with as many cards.
    fn stacks(&self) -> impl Iterator<Item = Receiver> {
        self.uplinks().map(|uplink| Receiver::Host { uplink })
    }

    /// 01-80-C2-00-00-0X, which a bridge does not forward and macvlan does.
    fn stays_on_the_link(&self, frame: &Frame) -> bool {
        !self.compat && frame.dst[..5] == PAUSE[..5] && frame.dst[5] < 0x10
    }

    /// What macvlan keeps from all children and siblings.
    fn is_pause(&self, frame: &Frame) -> bool {
        self.compat && frame.pause && is_group(frame.dst)
    }
}

/// Whether a port has frames for all that are of this kind.
fn wants(port: &Port, frame: &Frame) -> bool {
    match () {
        () if frame.dst == BROADCAST => port.bcast_flood,
        () if is_group(frame.dst) => port.mcast_flood,
        () => port.flood,
    }
}

/// Why nobody had a frame for all.
fn nobody(origin: Origin) -> &'static str {
    match origin {
        Origin::Elsewhere | Origin::MovedFrom(_) => "no_receiver",
        Origin::Sibling(_) | Origin::Host => "reflected",
    }
}

fn only(receiver: Receiver) -> Fate {
    Ok(BTreeSet::from([receiver]))
}
