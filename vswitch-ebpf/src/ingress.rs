//! Step 1: which port did the frame enter by, and may it enter at all?

use crate::{
    abi::Port,
    frame::{Addresses, Frame},
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The port; for a frame of the host, the uplink that it is leaving by.
    pub slot: u16,
    /// That port's settings.
    pub port: Port,
    /// Whether the host is the sender, and not the port's far end.
    pub from_host: bool,
}

/// The sender of a frame; `None` if its interface is no member of the switch.
#[inline(always)]
pub fn sender(tables: &impl Tables, hook: Hook) -> Option<Ingress> {
    let (ifindex, from_host) = match hook {
        Hook::Received(ifindex) => (ifindex, false),
        Hook::SentByHost(ifindex) => (ifindex, true),
    };
    let slot = tables.slot_of(ifindex)?;
    Some(Ingress { slot, port: tables.port(slot)?, from_host })
}

/// The frame's addresses, if it may enter. The host may send what it likes: its stack was there before the switch.
#[inline(always)]
pub fn admit(frame: &impl Frame, ingress: &Ingress) -> Result<Addresses, DropReason> {
    let addresses = Addresses::read(frame).ok_or(DropReason::Malformed)?;
    if ingress.from_host {
        return Ok(addresses);
    }
    if !addresses.source.is_station() {
        return Err(DropReason::InvalidSource);
    }
    if addresses.destination.link_local() == Some(1) {
        return Err(DropReason::Pause);
    }
    Ok(addresses)
}
