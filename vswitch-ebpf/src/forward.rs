//! The whole decision for one frame: the stages in sequence.

use crate::{
    egress::egress,
    frame::Frame,
    ingress::{admit, enter},
    learn::{Lesson, LessonKind, consider, learn},
    lookup::lookup,
    packet::{Hook, Packet},
    tables::{Change, Look},
};

/// What a program may do about what a frame changes. False: nothing; it leaves the frame to one that may.
pub trait Lessons {
    /// A port that is said to be down has just sent a frame.
    fn revive(&self, slot: u16) -> bool;

    /// A source address teaches something, or nothing.
    fn learn(&self, packet: &mut Packet, lesson: Lesson) -> bool;
}

/// Decides what happens to one frame. The packet begins as zeroes. False: its interface is no member of the switch, or the
/// frame is left.
#[inline(always)]
pub fn decide(
    packet: &mut Packet,
    frame: &impl Frame,
    tables: &impl Look,
    lessons: &impl Lessons,
    hook: Hook,
) -> bool {
    let settings = tables.settings();
    if !enter(packet, frame, tables, &settings, hook) {
        return false;
    }
    if !packet.from_host && tables.is_down(packet.slot) && !lessons.revive(packet.slot) {
        return false;
    }
    if let Err(reason) = admit(packet, frame) {
        packet.drop(reason);
        return true;
    }
    tables.fdb_ahead(packet.destination());
    packet.begin(tables.now());
    let lesson = consider(packet, tables, &settings);
    if !lessons.learn(packet, lesson) {
        return false;
    }
    let destination = lookup(packet, tables, &settings);
    egress(packet, tables, &settings, destination);
    true
}

/// All is learned.
pub struct Learned<'a, T>(pub &'a T);

impl<T: Change> Lessons for Learned<'_, T> {
    #[inline(always)]
    fn revive(&self, slot: u16) -> bool {
        self.0.revive(slot);
        self.0.forget();
        true
    }

    #[inline(always)]
    fn learn(&self, packet: &mut Packet, lesson: Lesson) -> bool {
        learn(packet, self.0, lesson);
        true
    }
}

/// Nothing is: what would be is left.
pub struct Left;

impl Lessons for Left {
    #[inline(always)]
    fn revive(&self, _slot: u16) -> bool {
        false
    }

    #[inline(always)]
    fn learn(&self, _packet: &mut Packet, lesson: Lesson) -> bool {
        matches!(lesson.kind, LessonKind::Nothing)
    }
}
