//! Which modes hear what of which? As the kernel's macvlan (`drivers/net/macvlan.c`) has it.

/// macvlan's words for what a port exchanges with its siblings. Uplinks have none; theirs reads as `Bridge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Bridge,
    Vepa,
    Private,
    Passthru,
    Source,
}

use Mode::{Bridge, Passthru, Private, Source, Vepa};

/// `macvlan_queue_xmit`: in every other mode a frame takes the wire, whatever its address.
pub const fn meet_directly(from: Mode, to: Mode) -> bool {
    matches!((from, to), (Bridge, Bridge))
}

/// `macvlan_multicast_rx`: who hears a group frame that came in by the wire.
pub struct Row {
    /// Other children than the one that sent it.
    pub children: &'static [Mode],
    /// The child that sent it.
    pub itself: bool,
    pub host: bool,
}

/// By the mode of the child whose address the frame comes from; `None`: from outside, or from the host.
pub const fn heard_from_the_wire(sender: Option<Mode>) -> Row {
    match sender {
        None => Row { children: &[Private, Vepa, Bridge, Passthru], itself: false, host: true },
        Some(Vepa) => Row { children: &[Vepa, Bridge], itself: false, host: true },
        // Those in bridge mode had it when it was sent.
        Some(Bridge) => Row { children: &[Vepa], itself: false, host: true },
        Some(Private | Passthru | Source) => Row { children: &[], itself: true, host: false },
    }
}
