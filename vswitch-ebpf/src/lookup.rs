//! Step 3: where is the destination address?

use crate::{
    abi::{FdbKey, Port, Settings, Stamp, fdb_flags, port_flags, settings_flags},
    frame::{ETH_P_PAUSE, Header},
    ingress::Ingress,
    tables::Tables,
    verdict::FloodKind,
};

/// What the switch knows of a destination address. Flat, as [`crate::verdict::Verdict`] is, and for its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What kind of place it is.
    pub place: Place,
    /// With [`Place::Port`] and [`Place::Host`] the port's slot.
    pub slot: u16,
    /// With those, the port.
    pub port: Port,
    /// With [`Place::Many`] and [`Place::Pause`], why.
    pub kind: FloodKind,
}

/// Where a destination address is.
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

impl Destination {
    const NOWHERE: Self = Self {
        place: Place::Down,
        slot: 0,
        port: Port { ifindex: 0, mtu: 0, flags: 0, mode: 0, reserved: [0; 3] },
        kind: FloodKind::UnknownUnicast,
    };

    #[inline(always)]
    const fn many(kind: FloodKind) -> Self {
        Self { place: Place::Many, kind, ..Self::NOWHERE }
    }
}

/// Finds the destination. An entry past its ageing time is no entry, whether or not anybody has removed it.
#[inline(always)]
pub fn lookup(
    tables: &impl Tables,
    settings: &Settings,
    ingress: &Ingress,
    header: &Header,
    now: Stamp,
) -> Destination {
    let mac = header.destination;
    if mac.is_group() {
        let compat = settings.flags & settings_flags::MACVLAN_COMPAT != 0;
        let kind = if mac.is_broadcast() { FloodKind::Broadcast } else { FloodKind::Multicast };
        return if compat && header.ethertype == ETH_P_PAUSE {
            Destination { place: Place::Pause, kind, ..Destination::NOWHERE }
        } else if !compat && mac.link_local().is_some() {
            Destination { place: Place::LinkLocal, kind, ..Destination::NOWHERE }
        } else {
            Destination::many(kind)
        };
    }
    if settings.passthru != 0 && ingress.from_wire() {
        return behind(tables, settings.passthru, Place::Port);
    }
    let unknown = Destination::many(FloodKind::UnknownUnicast);
    let Some(entry) = tables.fdb(FdbKey { mac, vlan: 0 }) else {
        return unknown;
    };
    let ages = !entry.has(fdb_flags::STATIC);
    if ages && entry.expired(now, settings.ageing) {
        return unknown;
    }
    let place = if entry.has(fdb_flags::HOST) { Place::Host } else { Place::Port };
    let found = behind(tables, entry.slot(), place);
    // The bridge forgets what it has learned from a port that goes down, and keeps what it was told.
    if ages && matches!(found.place, Place::Down) { unknown } else { found }
}

#[inline(always)]
fn behind(tables: &impl Tables, slot: u16, place: Place) -> Destination {
    match tables.port(slot) {
        // The host is there, too, when its cable is not.
        Some(port) if port.flags & port_flags::DOWN == 0 || matches!(place, Place::Host) => {
            Destination { place, slot, port, ..Destination::NOWHERE }
        }
        Some(_) | None => Destination::NOWHERE,
    }
}
