//! Step 1: which port did the frame enter by, and may it enter at all?

use bytemuck::NoUninit;

use crate::{
    abi::{HOST_SLOT, Port, Settings, port_flags, settings_flags},
    frame::{Frame, Header},
    tables::Tables,
    verdict::DropReason,
};

/// Where a program saw the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Received on this interface: from the wire, or from the far end of a veth or tap.
    Received(u32),
    /// Being sent by the host through this interface, an uplink.
    SentByHost(u32),
}

/// Who sent the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit)]
pub struct Ingress {
    /// The port's settings; for a frame of the host, the uplink's that it is leaving by.
    pub port: Port,
    /// That port.
    pub slot: u16,
    /// Whether the host is the sender, and not the port's far end.
    pub from_host: bool,
    /// Explicit padding, zero.
    pub reserved: u8,
}

impl Ingress {
    /// Whether it came in by an uplink.
    #[inline(always)]
    pub const fn from_wire(&self) -> bool {
        !self.from_host && self.port.flags & port_flags::UPLINK != 0
    }

    /// The slot whose receive counters count the frame.
    #[inline(always)]
    pub const fn counted(&self) -> u16 {
        if self.from_host { HOST_SLOT } else { self.slot }
    }
}

/// The sender of a frame; `None` if its interface is no member of the switch.
#[inline(always)]
pub fn sender(tables: &impl Tables, hook: Hook) -> Option<Ingress> {
    let (ifindex, from_host) = match hook {
        Hook::Received(ifindex) => (ifindex, false),
        Hook::SentByHost(ifindex) => (ifindex, true),
    };
    let slot = tables.slot_of(ifindex)?;
    let mut port = tables.port(slot)?;
    if port.flags & port_flags::DOWN != 0 && !from_host {
        // The controller, which sets the flag, may have ended before the interface came up.
        port.flags &= !port_flags::DOWN;
        tables.revive(slot);
    }
    Some(Ingress { port, slot, from_host, reserved: 0 })
}

/// The frame's header, if it may enter.
///
/// The host may send what it likes: its stack was there before the switch. macvlan does not look either.
#[inline(always)]
pub fn admit(frame: &impl Frame, settings: &Settings, ingress: &Ingress) -> Result<Header, DropReason> {
    let header = Header::read(frame).ok_or(DropReason::Malformed)?;
    if ingress.from_host || settings.flags & settings_flags::MACVLAN_COMPAT != 0 {
        return Ok(header);
    }
    if !header.source.is_station() {
        return Err(DropReason::InvalidSource);
    }
    if header.destination.link_local() == Some(1) {
        return Err(DropReason::Pause);
    }
    Ok(header)
}
