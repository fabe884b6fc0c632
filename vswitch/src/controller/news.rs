//! What has happened since the controller last looked, and which ports does it concern?

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    dataplane::state::Member,
    net::{Link, LinkEvent, LinkKind},
};

/// What has happened, as far as it may concern a port. One look answers many events.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Everything has to be looked at.
    pub(super) all: bool,
    /// Pins are missing.
    pub(super) pins: bool,
    /// Interfaces that are here no longer, whatever has their index now, and whether they live on elsewhere.
    pub(super) gone: BTreeMap<u32, bool>,
    /// Interfaces that have changed in some way.
    pub(super) changed: BTreeSet<u32>,
    /// Names that interfaces have now.
    pub(super) names: BTreeSet<String>,
    /// Ports that are not in order.
    pub(super) slots: BTreeSet<u16>,
}

/// Where the far ends are of ports whose datapath needs something of them, by the port's interface.
#[derive(Debug, Default)]
pub(super) struct FarEnds(BTreeMap<u32, FarEnd>);

#[derive(Debug)]
struct FarEnd {
    /// Its namespace as the switch's own numbers it (`None`: that one), and its index there.
    at: (Option<i32>, u32),
    /// What the namespace is called, where it is known: there may be a thousand to look through.
    netns: Option<String>,
}

impl FarEnds {
    /// Notes where the far end of a port is.
    pub(super) fn note(&mut self, link: &Link, netns: Option<String>) {
        if let (LinkKind::Veth, Some(peer)) = (&link.kind, link.peer) {
            self.0.insert(link.ifindex, FarEnd { at: (peer.netnsid, peer.ifindex), netns });
        }
    }

    /// Forgets an interface that is gone.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.0.remove(&ifindex);
    }

    /// The namespace of a port's far end.
    pub(super) fn netns(&self, ifindex: u32) -> Option<String> {
        self.0.get(&ifindex)?.netns.clone()
    }

    fn of(&self, at: (Option<i32>, u32)) -> impl Iterator<Item = u32> {
        self.0.iter().filter(move |(_, far)| far.at == at).map(|(near, _)| *near)
    }
}

impl News {
    pub(super) fn add(&mut self, event: LinkEvent, far_ends: &FarEnds) {
        match event {
            LinkEvent::Changed(link) => {
                self.changed.extend(far_ends.of((None, link.ifindex)));
                self.changed.insert(link.ifindex);
                self.names.insert(link.ifname);
            }
            LinkEvent::Gone { ifindex, moved } => {
                self.gone.insert(ifindex, moved);
            }
            LinkEvent::Stripped { ifindex } => {
                self.changed.insert(ifindex);
            }
            LinkEvent::Elsewhere { netnsid, ifindex } => {
                self.changed.extend(far_ends.of((Some(netnsid), ifindex)));
            }
            LinkEvent::Resync => self.all = true,
        }
    }

    /// Adds what has happened since.
    pub(super) fn append(&mut self, later: Self) {
        let Self { all, pins, gone, changed, names, slots } = later;
        self.all |= all;
        self.pins |= pins;
        self.gone.extend(gone);
        self.changed.extend(changed);
        self.names.extend(names);
        self.slots.extend(slots);
    }

    /// Whether there is anything that could concern a port at all.
    pub(super) fn is_empty(&self) -> bool {
        !self.all
            && !self.pins
            && self.gone.is_empty()
            && self.changed.is_empty()
            && self.names.is_empty()
            && self.slots.is_empty()
    }

    /// Whether a port has to be looked at.
    pub(super) fn concerns(&self, member: &Member) -> bool {
        let ifindex = member.record.ifindex;
        self.all
            || self.slots.contains(&member.slot)
            || match ifindex {
                0 => self.names.contains(&member.ifname()),
                _ => self.gone.contains_key(&ifindex) || self.changed.contains(&ifindex),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::ledger::PortRecord;
    use vswitch_ebpf::abi::Port;

    fn member(slot: u16, ifname: &[u8], ifindex: u32) -> Member {
        let mut record: PortRecord = bytemuck::Zeroable::zeroed();
        record.ifname[..ifname.len()].copy_from_slice(ifname);
        record.ifindex = ifindex;
        Member { slot, record, port: Port { ifindex, ..Port::default() } }
    }

    #[test]
    fn a_name_concerns_a_missing_port_alone() {
        let news = News { names: BTreeSet::from(["web0".to_owned()]), ..News::default() };
        assert!(!news.is_empty());
        assert!(news.concerns(&member(1, b"web0", 0)));
        assert!(!news.concerns(&member(1, b"web0", 7)), "what has its interface is told by index");
        assert!(!news.concerns(&member(1, b"web1", 0)));
    }

    #[test]
    fn an_index_concerns_the_port_that_had_it() {
        let mut news = News::default();
        assert!(news.is_empty());
        news.add(LinkEvent::Gone { ifindex: 7, moved: true }, &FarEnds::default());
        assert!(news.concerns(&member(1, b"web0", 7)) && !news.concerns(&member(2, b"web1", 8)));
        let far_ends = FarEnds(BTreeMap::from([(8, FarEnd { at: (Some(3), 2), netns: None })]));
        news.add(LinkEvent::Elsewhere { netnsid: 4, ifindex: 2 }, &far_ends);
        assert!(!news.concerns(&member(2, b"web1", 8)), "another namespace has that index, too");
        news.add(LinkEvent::Elsewhere { netnsid: 3, ifindex: 2 }, &far_ends);
        assert!(news.concerns(&member(2, b"web1", 8)));
    }
}
