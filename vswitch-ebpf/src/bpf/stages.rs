//! The stages of a decision as functions that the verifier looks at one by one, with any packet: hence the pointers, and no
//! names of Rust's.

use vswitch_ebpf::{
    forward::{Inline, LookOnly, Stages},
    packet::Packet,
};

use super::maps::{Maps, XdpMaps};

/// In a tc program.
pub(crate) struct Tc;

impl Stages for Tc {
    #[inline(always)]
    fn revive(&self, slot: u16) -> bool {
        vswitch_revive(u32::from(slot)) != 0
    }

    #[inline(always)]
    fn source(&self, packet: &mut Packet) -> bool {
        vswitch_source(packet) != 0
    }

    #[inline(always)]
    fn destination(&self, packet: &mut Packet) {
        vswitch_destination(packet);
    }
}

/// In the XDP program.
pub(crate) struct Xdp;

impl Stages for Xdp {
    #[inline(always)]
    fn revive(&self, slot: u16) -> bool {
        LookOnly(&XdpMaps).revive(slot)
    }

    #[inline(always)]
    fn source(&self, packet: &mut Packet) -> bool {
        vswitch_xdp_source(packet) != 0
    }

    #[inline(always)]
    fn destination(&self, packet: &mut Packet) {
        vswitch_xdp_destination(packet);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vswitch_revive(slot: u32) -> i32 {
    i32::from(Inline(&Maps).revive(slot as u16))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vswitch_source(packet: *mut Packet) -> i32 {
    // SAFETY: the verifier sees that callers pass a whole one of theirs, or null.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return 0 };
    i32::from(Inline(&Maps).source(packet))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vswitch_destination(packet: *mut Packet) -> i32 {
    // SAFETY: as in `vswitch_source`.
    if let Some(packet) = unsafe { packet.as_mut() } {
        Inline(&Maps).destination(packet);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vswitch_xdp_source(packet: *mut Packet) -> i32 {
    // SAFETY: as in `vswitch_source`.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return 0 };
    i32::from(LookOnly(&XdpMaps).source(packet))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vswitch_xdp_destination(packet: *mut Packet) -> i32 {
    // SAFETY: as in `vswitch_source`.
    if let Some(packet) = unsafe { packet.as_mut() } {
        LookOnly(&XdpMaps).destination(packet);
    }
    0
}
