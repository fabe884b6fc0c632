//! A frame for many: a copy for all who may have it but one, and the frame itself for that one.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_loop, programs::TcContext};
use vswitch_ebpf::{
    abi::HOST_SLOT,
    egress::flooded,
    policy::{Flood, floods_to, floods_to_host},
    verdict::Target,
};

use super::{
    act::{TC_DROP, TC_NEXT},
    count::{self, Received},
    deliver::{Delivery, is_gone, mark},
    maps::{Maps, PORTS},
};

/// Floods a frame. A global function to the verifier, which looks at it once, with any arguments, and not after each path
/// that leads to it: that was four fifths of `vswitch_in` and is a tenth. Hence the pointers, and no name of Rust's.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_flood(skb: *mut __sk_buff, flood: *const Flood) -> i32 {
    // SAFETY: the verifier sees that callers pass a whole one of theirs, or null.
    let Some(flood) = (unsafe { flood.as_ref() }) else { return TC_DROP };
    let ctx = TcContext::new(skb);
    let ingress = &flood.ingress;
    let received = Received { slot: ingress.counted(), len: ctx.len(), fdb_full: flood.fdb_full };
    let mark = mark(&ctx);
    let offered = offer_to_all(skb, flood, received.len);
    if let Err(reason) = flooded(flood.origin.kind, offered.ports, offered.host) {
        received.count_drop(reason);
        return TC_DROP;
    }
    let ports = u64::from(offered.ports != 0);
    received.count(|counters| {
        counters.forwarded += ports;
        counters.host += 1 - ports;
    });
    if offered.stays {
        offered.last.copy(skb);
    }
    // A copy for the host or an uplink was marked. The frame goes on as it was: where it is, to the stack or out of the host's
    // wire, or to the far end of a veth.
    ctx.set_mark(mark);
    if offered.stays {
        TC_NEXT
    } else if ingress.from_host {
        offered.last.hand_over(&ctx)
    } else {
        offered.last.hand_over_here(&ctx)
    }
}

/// What is known after all had been offered a flooded frame.
#[derive(Clone, Copy)]
struct Offered {
    /// How many ports may have it, the host's own wire included.
    ports: u32,
    /// Whether the host may have it.
    host: bool,
    /// Whether the frame itself goes on at this hook.
    stays: bool,
    /// Who has not been given a copy yet: the frame itself may do.
    last: Delivery,
}

struct Offer {
    skb: *mut __sk_buff,
    flood: *const Flood,
    len: u32,
    offered: Offered,
}

/// Gives a copy to all who may have one but the last.
#[inline(always)]
fn offer_to_all(skb: *mut __sk_buff, flood: &Flood, len: u32) -> Offered {
    // 0, since no frame has 2 GiB. Before 6.8 the verifier follows a loop's function once alone (commit ab5cfac139ab): if it saw
    // that there is nobody at first, it would remove the code by which those who come later have their copies.
    let nobody = len >> 31;
    let target = Target { slot: 0, ifindex: nobody, flags: 0 };
    let offered = Offered { ports: 0, host: false, stays: false, last: Delivery { target, to_stack: false } };
    let mut offer = Offer { skb, flood, len, offered };
    let slots = u32::from(flood.slots).saturating_sub(1);
    let state: *mut Offer = &mut offer;
    // SAFETY: `offer_one` has the signature that bpf_loop calls, and `state` outlives the call.
    unsafe { bpf_loop(slots, offer_one as *mut c_void, state.cast(), 0) };
    offer.offered
}

extern "C" fn offer_one(index: u32, state: *mut c_void) -> i64 {
    // SAFETY: bpf_loop passes the pointer that `offer_to_all` gave it, and calls once at a time.
    let offer = unsafe { &mut *state.cast::<Offer>() };
    let slot = (index + 1) as u16;
    let Some(port) = PORTS.get(u32::from(slot)) else {
        return 1;
    };
    let target = Target::new(slot, port);
    let receivers = vswitch_receivers(offer.flood, u32::from(slot));
    if receivers & THE_HOST != 0 {
        offer.offered.host = true;
        count::sent(HOST_SLOT, offer.len);
        deliver(offer, Delivery { target, to_stack: true }, receivers & THE_HOST_HERE != 0);
    }
    if receivers & THE_PORT != 0 {
        offer.offered.ports += 1;
        count::sent(slot, offer.len);
        deliver(offer, Delivery { target, to_stack: false }, receivers & THE_PORT_HERE != 0);
    }
    0
}

/// Bits of [`vswitch_receivers`]' answer: who has the frame, and whether by its going on where it is.
const THE_PORT: u32 = 1 << 0;
const THE_PORT_HERE: u32 = 1 << 1;
const THE_HOST: u32 = 1 << 2;
const THE_HOST_HERE: u32 = 1 << 3;

/// Who may have a flooded frame: the port in `slot`, the host behind it? A global function, as `vswitch_flood`: to each of
/// its many answers the verifier would look at the rest of the loop.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vswitch_receivers(flood: *const Flood, slot: u32) -> u32 {
    // SAFETY: as in `vswitch_flood`.
    let Some(flood) = (unsafe { flood.as_ref() }) else { return 0 };
    let Some(port) = PORTS.get(slot) else { return 0 };
    let slot = slot as u16;
    let here = slot == flood.ingress.slot;
    if !here && is_gone(slot) {
        return 0;
    }
    let host = if floods_to_host(flood, slot, port) { THE_HOST } else { 0 };
    let ports = if floods_to(&Maps, flood, slot, port) { THE_PORT } else { 0 };
    let stays = match flood.ingress.from_host {
        _ if !here => 0,
        true => THE_PORT_HERE,
        false => THE_HOST_HERE,
    };
    host | ports | stays
}

/// Notes one more receiver, and gives the one before its copy. If the frame `stays` at this hook, that is the delivery.
#[inline(always)]
fn deliver(offer: &mut Offer, delivery: Delivery, stays: bool) {
    if stays {
        offer.offered.stays = true;
        return;
    }
    offer.offered.last.copy(offer.skb);
    offer.offered.last = delivery;
}
