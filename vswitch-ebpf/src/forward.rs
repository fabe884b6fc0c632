//! The whole decision for one frame: the stages in sequence.

use crate::{
    abi::FdbKey,
    egress::egress,
    frame::Frame,
    ingress::{admit, enter},
    learn::{LessonKind, consider, learn},
    lookup::lookup,
    packet::{Hook, Packet},
    tables::{Change, Look},
    verdict::Verdict,
};

/// The stages behind the entry, as a program runs them. Each is a function of its own to the verifier, which looks at it once
/// and not after each way through those before it, and only one at a time has room on the stack.
pub trait Stages {
    /// A port that is said to be down has just sent a frame. False: leave the frame.
    fn revive(&self, slot: u16) -> bool;

    /// [`source`]. False: leave the frame.
    fn source(&self, packet: &mut Packet) -> bool;

    /// [`destination`].
    fn destination(&self, packet: &mut Packet);
}

/// Decides what happens to one frame. False: its interface is no member of the switch, or a stage leaves it.
#[inline(always)]
pub fn decide(
    packet: &mut Packet,
    frame: &impl Frame,
    tables: &impl Look,
    stages: &impl Stages,
    hook: Hook,
) -> bool {
    if !enter(packet, frame, tables, hook) {
        return false;
    }
    if !packet.from_host && tables.is_down(packet.slot) && !stages.revive(packet.slot) {
        return false;
    }
    if let Err(reason) = admit(packet, frame) {
        packet.verdict = Verdict::drop(reason);
        return true;
    }
    tables.fdb_ahead(FdbKey { mac: packet.destination, vlan: 0 });
    packet.begin(tables.now());
    if !stages.source(packet) {
        return false;
    }
    stages.destination(packet);
    true
}

/// Where does the frame come from, and what does that teach?
#[inline(always)]
pub fn source(packet: &mut Packet, tables: &impl Change) {
    let settings = tables.settings();
    let lesson = consider(packet, tables, &settings);
    learn(packet, tables, lesson);
}

/// As [`source`], where that teaches nothing. Returns whether it does not.
#[inline(always)]
pub fn known_source(packet: &mut Packet, tables: &impl Look) -> bool {
    let settings = tables.settings();
    matches!(consider(packet, tables, &settings).kind, LessonKind::Nothing)
}

/// Where does it go?
#[inline(always)]
pub fn destination(packet: &mut Packet, tables: &impl Look) {
    let settings = tables.settings();
    let destination = lookup(packet, tables, &settings);
    packet.verdict = egress(packet, tables, &settings, destination);
}

/// All stages, in a row.
pub struct Inline<'a, T>(pub &'a T);

impl<T: Change> Stages for Inline<'_, T> {
    fn revive(&self, slot: u16) -> bool {
        self.0.revive(slot);
        self.0.forget();
        true
    }

    fn source(&self, packet: &mut Packet) -> bool {
        source(packet, self.0);
        true
    }

    fn destination(&self, packet: &mut Packet) {
        destination(packet, self.0);
    }
}

/// As [`Inline`], and none may change anything.
pub struct LookOnly<'a, T>(pub &'a T);

impl<T: Look> Stages for LookOnly<'_, T> {
    fn revive(&self, _slot: u16) -> bool {
        false
    }

    fn source(&self, packet: &mut Packet) -> bool {
        known_source(packet, self.0)
    }

    fn destination(&self, packet: &mut Packet) {
        destination(packet, self.0);
    }
}
