//! The whole decision for one frame: the steps in sequence.

use crate::{
    abi::FdbKey,
    egress::{Facts, egress},
    frame::{Frame, MacAddr},
    ingress::{Hook, Ingress, admit, sender},
    learn::{Origin, learn},
    lookup::lookup,
    policy::Flood,
    tables::Tables,
    verdict::Verdict,
};

/// What was decided, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// What it follows from.
    pub facts: Facts,
    /// Whether the source address found no room in the FDB.
    pub fdb_full: bool,
    /// Where the frame goes.
    pub verdict: Verdict,
}

impl Decision {
    /// Who sent the frame.
    #[inline(always)]
    pub const fn ingress(&self) -> &Ingress {
        &self.facts.ingress
    }

    /// The question that each port is asked if the frame is for many.
    #[inline(always)]
    pub const fn flood(&self) -> Flood {
        let Facts { settings, ingress, origin, sender, wire_len } = self.facts;
        let Verdict { kind, target, .. } = self.verdict;
        let (target, slots, settings) = (target.slot, settings.slots, settings.flags);
        Flood { ingress, settings, wire_len, origin, sender, target, slots, kind, fdb_full: self.fdb_full }
    }
}

/// Decides what happens to one frame; `None` if its interface is no member of the switch.
#[inline(always)]
pub fn decide(frame: &impl Frame, tables: &impl Tables, hook: Hook) -> Option<Decision> {
    let ingress = sender(tables, hook)?;
    let settings = tables.settings();
    let origin = Origin::FRESH;
    let mut facts = Facts { settings, ingress, origin, sender: MacAddr([0; 6]), wire_len: frame.wire_len() };
    let header = match admit(frame, &settings, &ingress) {
        Ok(header) => header,
        Err(reason) => return Some(Decision { facts, fdb_full: false, verdict: Verdict::drop(reason) }),
    };
    facts.sender = header.source;
    let source = FdbKey { mac: header.source, vlan: 0 };

    tables.fdb_ahead(FdbKey { mac: header.destination, vlan: 0 });
    let now = tables.now();
    let learned = learn(tables, &settings, &ingress, source, now);
    facts.origin = learned.origin;
    let destination = lookup(tables, &settings, &ingress, &header, now);
    let verdict = egress(tables, &facts, destination);
    Some(Decision { facts, fdb_full: learned.fdb_full, verdict })
}
