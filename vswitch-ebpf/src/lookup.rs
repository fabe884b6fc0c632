//! Stage 3: where is the destination address?

use crate::{
    abi::{Port, Settings, fdb_flags, settings_flags},
    packet::{Class, Packet},
    tables::Look,
};

/// Where a destination address is.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// What kind of place it is.
    pub place: Place,
    /// With [`Place::Port`] and [`Place::Host`] the port's slot.
    pub slot: u16,
    /// With those, the port.
    pub port: Option<&'a Port>,
}

/// A kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// Behind a port.
    Port,
    /// The host's stack, behind an uplink.
    Host,
    /// For many, or nobody knows.
    Many,
    /// Behind a port that is down or missing.
    Down,
    /// A reserved group address that stays on its link.
    LinkLocal,
    /// A pause frame where macvlan's rules hold: it has no siblings, but a wire and a host.
    Pause,
}

impl Destination<'_> {
    #[inline(always)]
    const fn at(place: Place) -> Self {
        Self { place, slot: 0, port: None }
    }
}

/// Finds the destination. An entry past its ageing time is no entry, whether or not anybody has removed it.
#[inline(always)]
pub fn lookup<'a>(packet: &mut Packet, tables: &'a impl Look, settings: &Settings) -> Destination<'a> {
    if !matches!(packet.class, Class::Unicast) {
        let compat = packet.settings & settings_flags::MACVLAN_COMPAT != 0;
        return Destination::at(if compat && packet.pause {
            Place::Pause
        } else if !compat && packet.destination().mac.link_local().is_some() {
            Place::LinkLocal
        } else {
            Place::Many
        });
    }
    if settings.passthru != 0 && packet.from_wire() {
        return behind(tables, settings.passthru, Place::Port);
    }
    let Some(entry) = packet.look_up(tables, packet.destination(), settings.ageing) else {
        return Destination::at(Place::Many);
    };
    let ages = !entry.has(fdb_flags::STATIC);
    if ages && entry.expired(packet.now, settings.ageing) {
        return Destination::at(Place::Many);
    }
    let place = if entry.has(fdb_flags::HOST) { Place::Host } else { Place::Port };
    let found = behind(tables, entry.slot(), place);
    // The bridge forgets what it has learned from a port that goes down, and keeps what it was told.
    if ages && matches!(found.place, Place::Down) { Destination::at(Place::Many) } else { found }
}

#[inline(always)]
fn behind(tables: &impl Look, slot: u16, place: Place) -> Destination<'_> {
    match tables.port(slot) {
        // The host is there, too, when its cable is not.
        Some(port) if matches!(place, Place::Host) || !tables.is_down(slot) => {
            Destination { place, slot, port: Some(port) }
        }
        Some(_) | None => Destination::at(Place::Down),
    }
}
