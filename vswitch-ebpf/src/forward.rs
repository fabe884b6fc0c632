//! The whole decision for one frame: the steps in sequence.

use crate::{
    abi::{FdbKey, HOST_SLOT, Settings},
    egress::egress,
    frame::Frame,
    ingress::{Hook, Ingress, admit, sender},
    learn::learn,
    lookup::lookup,
    policy::Flood,
    tables::Tables,
    verdict::Verdict,
};

/// What was decided, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who sent the frame.
    pub ingress: Ingress,
    /// What held for the switch when it was decided.
    pub settings: Settings,
    /// Whether the source address found no room in the FDB.
    pub fdb_full: bool,
    /// [`Frame::wire_len`].
    pub wire_len: u32,
    /// Where the frame goes.
    pub verdict: Verdict,
}

impl Decision {
    /// The slot whose receive counters count the frame.
    #[inline(always)]
    pub const fn counted(&self) -> u16 {
        if self.ingress.from_host { HOST_SLOT } else { self.ingress.slot }
    }

    /// The question that each port is asked if the frame is for many.
    #[inline(always)]
    pub const fn flood(&self) -> Flood {
        Flood {
            kind: self.verdict.kind,
            ingress: self.ingress,
            settings: self.settings.flags,
            wire_len: self.wire_len,
        }
    }
}

/// Decides what happens to one frame; `None` if its interface is no member of the switch.
#[inline(always)]
pub fn decide(frame: &impl Frame, tables: &impl Tables, hook: Hook) -> Option<Decision> {
    let ingress = sender(tables, hook)?;
    let settings = tables.settings();
    let wire_len = frame.wire_len();
    let mut fdb_full = false;
    let verdict = match admit(frame, &ingress) {
        Ok(addresses) => {
            let source = FdbKey { mac: addresses.source, vlan: 0 };
            let destination = FdbKey { mac: addresses.destination, vlan: 0 };
            fdb_full = !learn(tables, &settings, &ingress, source);
            let destination = lookup(tables, &settings, destination);
            egress(&settings, &ingress, destination, wire_len)
        }
        Err(reason) => Verdict::drop(reason),
    };
    Some(Decision { ingress, settings, fdb_full, wire_len, verdict })
}
