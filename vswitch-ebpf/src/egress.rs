//! Step 5: from a destination that is allowed to a verdict.

use crate::{
    abi::Settings,
    ingress::Ingress,
    lookup::Destination,
    policy,
    verdict::{DropReason, Target, Verdict},
};

/// The verdict for a frame of `wire_len` bytes from `ingress` to `destination`.
#[inline(always)]
pub fn egress(settings: &Settings, ingress: &Ingress, destination: Destination, wire_len: u32) -> Verdict {
    let out_of_the_wire = Verdict::forward(Target::new(ingress.slot, &ingress.port));
    match destination {
        Destination::Port(_, port) if ingress.from_host && !policy::reaches_host(&port, settings) => {
            out_of_the_wire
        }
        // The host talking to an address of its own: where it would have gone without the switch.
        Destination::Host(..) | Destination::LinkLocal if ingress.from_host => out_of_the_wire,
        Destination::Host(uplink, port) if policy::reaches_host(&ingress.port, settings) => {
            Verdict::host(Target::new(uplink, &port))
        }
        // Without host access a port's frames for the host leave by the uplink, as macvlan's do.
        Destination::Port(slot, port) | Destination::Host(slot, port) => {
            match policy::may_reach(ingress, slot, &port, wire_len) {
                Ok(()) => Verdict::forward(Target::new(slot, &port)),
                Err(reason) => Verdict::drop(reason),
            }
        }
        Destination::LinkLocal => Verdict::host_here(),
        Destination::Many(kind) => Verdict::flood(kind),
    }
}

/// What becomes of a flood that reached this many ports: dropped if nobody, not even the host, had it.
#[inline(always)]
pub fn flooded(ports: u32, to_host: bool) -> Result<(), DropReason> {
    if ports == 0 && !to_host { Err(DropReason::NoReceiver) } else { Ok(()) }
}
