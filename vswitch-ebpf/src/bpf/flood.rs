//! A frame for many: a copy for all members of a list who may have it but one, and the frame itself for that one.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_loop};
use vswitch_ebpf::{
    abi::{HOST_SLOT, List, Port, lists},
    packet::Packet,
    policy::{host_receives, listeners, receives},
    tables::Look as _,
    verdict::{Action, Members, Target},
};

use super::{
    count,
    deliver::Delivery,
    maps::{LISTS, MEMBERS, Maps, PORTS},
};

/// What is known after all had been offered a frame for many.
#[derive(Clone, Copy)]
pub(crate) struct Offered {
    /// Whether any port may have it, the host's own wire included. Not how many: the verifier would follow the count.
    pub(crate) port: bool,
    /// Whether the host may have it.
    pub(crate) host: bool,
    /// Whether the frame itself goes on at this hook.
    pub(crate) stays: bool,
    /// Who has not been given a copy yet: the frame itself may do.
    pub(crate) last: Delivery,
}

struct Offer {
    skb: *mut __sk_buff,
    packet: *mut Packet,
    len: u32,
    first: u32,
    offered: Offered,
}

/// Gives a copy to all who may have one but the last.
#[inline(always)]
pub(crate) fn offer(skb: *mut __sk_buff, packet: &mut Packet) -> Offered {
    // 0, since no frame has 2 GiB. Before 6.8 the verifier follows a loop's function once alone (commit ab5cfac139ab): if it saw
    // that there is nobody at first, it would remove the code by which those who come later have their copies.
    let nobody = packet.len >> 31;
    let target = Target {
        ifindex: nobody,
        flags: nobody,
        longest: nobody,
        slot: nobody as u16,
        reserved: nobody as u16,
    };
    let offered =
        Offered { port: false, host: false, stays: false, last: Delivery { target, to_stack: false } };
    let list = list(packet);
    let mut offer = Offer { skb, packet, len: packet.len, first: list.first(), offered };
    let state: *mut Offer = &mut offer;
    // SAFETY: `offer_one` has the signature that bpf_loop calls, and `state` outlives the call.
    unsafe { bpf_loop(list.len(), offer_one as *mut c_void, state.cast(), 0) };
    // Whom it is for in any case comes last, and has the frame itself.
    let target = packet.verdict.target;
    match packet.verdict.action {
        Action::Forward => to_port(&mut offer, target, false),
        Action::Host => to_host(&mut offer, target, target.slot == packet.slot),
        Action::Flood | Action::HostHere | Action::Drop => {}
    }
    offer.offered
}

/// Whom to ask.
#[inline(always)]
fn list(packet: &Packet) -> List {
    let which = match packet.verdict.list {
        Members::Nobody => return List(0),
        Members::Listeners => return listeners(&Maps, packet),
        Members::Uplinks => lists::UPLINKS,
        Members::Domain => lists::DOMAIN,
    };
    LISTS.get(which).copied().unwrap_or_default()
}

extern "C" fn offer_one(index: u32, state: *mut c_void) -> i64 {
    // SAFETY: bpf_loop passes the pointer that `offer` gave it, and calls once at a time.
    let offer = unsafe { &mut *state.cast::<Offer>() };
    let Some(slot) = MEMBERS.get(offer.first.wrapping_add(index)).copied() else {
        return 1;
    };
    let Some(port) = PORTS.get(slot) else {
        return 1;
    };
    let slot = slot as u16;
    // SAFETY: as in `offer`.
    let answer = asked(unsafe { &mut *offer.packet }, slot, port);
    let target = Target::new(slot, port);
    if answer & THE_HOST != 0 {
        to_host(offer, target, answer & THE_HOST_HERE != 0);
    }
    if answer & THE_PORT != 0 {
        to_port(offer, target, answer & THE_PORT_HERE != 0);
    }
    0
}

/// Bits of [`Packet::answer`]: who has the frame, and whether by its going on where it is.
const THE_PORT: u32 = 1 << 0;
const THE_PORT_HERE: u32 = 1 << 1;
const THE_HOST: u32 = 1 << 2;
const THE_HOST_HERE: u32 = 1 << 3;

/// Who may have a frame for many: the port in `slot`, the host behind it? The answer goes through memory: to each way that leads
/// to it the verifier would look at all that follows.
#[inline(always)]
fn asked(packet: &mut Packet, slot: u16, port: &Port) -> u32 {
    let here = slot == packet.slot;
    let mut answer = 0;
    if here || !Maps.is_gone(slot) {
        answer |= if host_receives(packet, slot, port) { THE_HOST } else { 0 };
        answer |= if receives(&Maps, packet, slot, port) { THE_PORT } else { 0 };
        answer |= match packet.from_host {
            _ if !here => 0,
            true => THE_PORT_HERE,
            false => THE_HOST_HERE,
        };
    }
    let place = &raw mut packet.answer;
    // SAFETY: a word of the packet, which is ours.
    unsafe {
        place.write_volatile(answer);
        place.read_volatile()
    }
}

#[inline(always)]
fn to_host(offer: &mut Offer, target: Target, stays: bool) {
    offer.offered.host = true;
    count::sent(HOST_SLOT, offer.len);
    deliver(offer, Delivery { target, to_stack: true }, stays);
}

#[inline(always)]
fn to_port(offer: &mut Offer, target: Target, stays: bool) {
    offer.offered.port = true;
    count::sent(target.slot, offer.len);
    deliver(offer, Delivery { target, to_stack: false }, stays);
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
