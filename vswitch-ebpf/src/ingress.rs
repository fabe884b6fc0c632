//! Stage 1: which port did the frame enter by, and may it enter at all?

use crate::{
    abi::{Settings, settings_flags},
    frame::{Frame, Header},
    packet::{Hook, Packet},
    tables::Look,
    verdict::DropReason,
};

/// Notes who sends the frame, in a packet of zeroes. False: its interface is no member of the switch.
#[inline(always)]
pub fn enter(
    packet: &mut Packet,
    frame: &impl Frame,
    tables: &impl Look,
    settings: &Settings,
    hook: Hook,
) -> bool {
    let Some(slot) = tables.slot_of(hook.ifindex()) else { return false };
    let Some(port) = tables.port(slot) else { return false };
    (packet.slot, packet.flags, packet.mode) = (slot, port.flags, port.mode);
    packet.from_host = matches!(hook, Hook::SentByHost(_));
    packet.settings = settings.flags;
    (packet.wire_len, packet.len) = (frame.wire_len(), frame.length());
    true
}

/// Reads the frame's header, if it may enter.
///
/// The host may send what it likes: its stack was there before the switch. macvlan does not look either.
#[inline(always)]
pub fn admit(packet: &mut Packet, frame: &impl Frame) -> Result<(), DropReason> {
    let header = Header::read(frame).ok_or(DropReason::Malformed)?;
    packet.read(&header);
    if packet.from_host || packet.settings & settings_flags::MACVLAN_COMPAT != 0 {
        return Ok(());
    }
    if !header.source.is_station() {
        return Err(DropReason::InvalidSource);
    }
    if header.destination.link_local() == Some(1) {
        return Err(DropReason::Pause);
    }
    Ok(())
}
