//! The last step: a verdict becomes what the kernel does with the frame, and is counted.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, BPF_F_INGRESS, xdp_action},
    helpers::{bpf_clone_redirect, bpf_loop, bpf_redirect, bpf_redirect_peer, bpf_skb_change_type},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::debug;
use vswitch_ebpf::{
    abi::{Counters, DROP_REASONS, HOST_SLOT, SWITCHED_MARK, port_flags},
    egress::flooded,
    forward::Decision,
    frame::Frame as _,
    policy::{Flood, floods_to, floods_to_host},
    tables::Tables as _,
    verdict::{Action, DropReason, Target, Verdict},
};

use super::{
    maps::{COUNTERS, DEVMAP, Maps, PORTS, PRESENT},
    packet,
};

/// Let the next program, or the stack, have the frame (TCX_NEXT, TC_ACT_UNSPEC).
pub(crate) const TC_NEXT: i32 = -1;
const TC_DROP: i32 = 2;
/// `skb->pkt_type`, include/uapi/linux/if_packet.h.
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;
/// Let tc and the stack have the frame.
pub(crate) const XDP_PASS: u32 = xdp_action::XDP_PASS;

/// Set by the loader for `--log-packets`. Read-only data: the verifier removes the logging where it is 0.
#[unsafe(no_mangle)]
static LOG_PACKETS: Global<u8> = Global::new(0);

/// Set by the loader for kernels whose bpf_redirect_peer leaves a frame as its first port found it: for another host, which
/// the stack at the far end drops (before 6.15, which scrubs it: commit c43272299488).
#[unsafe(no_mangle)]
static PEER_KEEPS_TYPE: Global<u8> = Global::new(0);

/// The interface that an XDP program sees a frame on.
#[inline(always)]
pub(crate) fn xdp_ifindex(ctx: &XdpContext) -> u32 {
    ctx.ingress_ifindex() as u32
}

/// The interface that a tc program sees a frame on.
#[inline(always)]
pub(crate) fn tc_ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the pointer is the program's context, in which the verifier allows this read.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Puts the dataplane's time into the control block, the low half first.
#[inline(always)]
pub(crate) fn tell_time(ctx: &TcContext) -> i32 {
    let now = Maps.now();
    // SAFETY: the pointer is the program's context, in which the verifier allows these writes.
    unsafe {
        (*ctx.skb.skb).cb[0] = now as u32;
        (*ctx.skb.skb).cb[1] = (now >> 32) as u32;
    }
    TC_NEXT
}

/// Whether this frame was decided at another hook and is on its way to an uplink's wire or to the host. Clears the mark.
#[inline(always)]
pub(crate) fn already_switched(ctx: &TcContext) -> bool {
    let switched = mark(ctx) == SWITCHED_MARK;
    if switched {
        ctx.set_mark(0);
    }
    switched
}

/// Acts on a decision in XDP. What XDP cannot finish it leaves, uncounted, to tc.
#[inline(always)]
pub(crate) fn xdp(ctx: &XdpContext, decision: &Decision) -> u32 {
    let len = packet::Xdp(ctx).wire_len();
    let target = decision.verdict.target;
    match decision.verdict.action {
        Action::Forward if target.flags & port_flags::XDP != 0 => {
            // Also back out of the ingress port: what XDP_TX gives a veth, its far end is not told of unless it has an
            // XDP program itself; it would lie there until the next frame. The kernel empties an element when its
            // interface goes: then tc decides again.
            if DEVMAP.redirect(u32::from(target.slot), u64::from(XDP_PASS)) != Ok(xdp_action::XDP_REDIRECT) {
                return XDP_PASS;
            }
            count_received(decision, len, |counters| counters.forwarded += 1);
            count_sent(target.slot, len);
            xdp_action::XDP_REDIRECT
        }
        Action::Drop => {
            count_drop(decision, len, decision.verdict.reason);
            xdp_action::XDP_DROP
        }
        Action::Forward | Action::Flood | Action::Host | Action::HostHere => XDP_PASS,
    }
}

/// Acts on a decision at tc ingress.
#[inline(always)]
pub(crate) fn received(ctx: &TcContext, decision: &Decision) -> i32 {
    let len = ctx.len();
    let target = decision.verdict.target;
    log(ctx, decision);
    match decision.verdict.action {
        Action::Forward | Action::Host if is_gone(decision) => {
            count_drop(decision, len, DropReason::PortDown);
            TC_DROP
        }
        Action::Forward => {
            count_received(decision, len, |counters| counters.forwarded += 1);
            count_sent(target.slot, len);
            hand_over_here(ctx, &Delivery { target, to_stack: false })
        }
        Action::Flood => flood(ctx, decision, len, hand_over_here),
        Action::Host => {
            count_received(decision, len, |counters| counters.host += 1);
            count_sent(HOST_SLOT, len);
            if target.slot == decision.ingress().slot {
                return TC_NEXT;
            }
            hand_over(ctx, &Delivery { target, to_stack: true })
        }
        Action::HostHere => {
            count_received(decision, len, |counters| counters.host += 1);
            count_sent(HOST_SLOT, len);
            TC_NEXT
        }
        Action::Drop => {
            count_drop(decision, len, decision.verdict.reason);
            TC_DROP
        }
    }
}

/// Acts on a decision at an uplink's tc egress.
#[inline(always)]
pub(crate) fn sent_by_host(ctx: &TcContext, decision: &Decision) -> i32 {
    let len = ctx.len();
    let target = decision.verdict.target;
    log(ctx, decision);
    match decision.verdict.action {
        Action::Forward => {
            // As to a port that is down: out of the wire that the host has chosen.
            let own = decision.ingress().slot;
            let slot = if is_gone(decision) { own } else { target.slot };
            count_received(decision, len, |counters| counters.forwarded += 1);
            count_sent(slot, len);
            if slot == own {
                return TC_NEXT;
            }
            hand_over(ctx, &Delivery { target, to_stack: false })
        }
        Action::Flood => flood(ctx, decision, len, hand_over),
        Action::Drop => {
            count_drop(decision, len, decision.verdict.reason);
            TC_DROP
        }
        // The host's frames for itself go out of the wire: `egress` says so by `Forward`.
        Action::Host | Action::HostHere => TC_NEXT,
    }
}

/// Whether the target's interface is gone, and its index perhaps a stranger's by now: the controller has yet to hear of it,
/// or there is none. The kernel empties the element before it gives an index away (dev_map_notification,
/// kernel/bpf/devmap.c). A frame for where it has just come from is not asked about.
#[inline(always)]
fn is_gone(decision: &Decision) -> bool {
    let slot = decision.verdict.target.slot;
    slot != decision.ingress().slot && is_empty(slot)
}

#[inline(always)]
fn is_empty(slot: u16) -> bool {
    PRESENT.get_ifindex(u32::from(slot)).is_none()
}

/// Copies for all who may have the frame but one, and the frame itself for that one, by `hand_over`.
#[inline(always)]
fn flood(
    ctx: &TcContext,
    decision: &Decision,
    len: u32,
    hand_over: impl FnOnce(&TcContext, &Delivery) -> i32,
) -> i32 {
    let mark = mark(ctx);
    let offered = offer_to_all(ctx, decision, len);
    if let Err(reason) = flooded(decision.facts.origin.kind, offered.ports, offered.host) {
        count_drop(decision, len, reason);
        return TC_DROP;
    }
    let ports = u64::from(offered.ports != 0);
    count_received(decision, len, |counters| {
        counters.forwarded += ports;
        counters.host += 1 - ports;
    });
    if !offered.stays {
        // A copy for the host or an uplink was marked; the far end of a veth is to have it as it was.
        ctx.set_mark(mark);
        return hand_over(ctx, &offered.last);
    }
    clone(ctx.skb.skb, &offered.last);
    // It goes on where it is, to the stack or out of the host's wire, with the mark that it had.
    ctx.set_mark(mark);
    TC_NEXT
}

/// One receiver of a frame.
#[derive(Clone, Copy)]
struct Delivery {
    target: Target,
    /// Whether it is the host's stack behind the target, and not the target's far end.
    to_stack: bool,
}

impl Delivery {
    /// Through an uplink a frame meets this program's twin at the other hook, which must not decide again.
    #[inline(always)]
    fn mark(&self) -> u32 {
        if self.target.flags & port_flags::UPLINK != 0 { SWITCHED_MARK } else { 0 }
    }

    #[inline(always)]
    fn redirect_flags(&self) -> u64 {
        if self.to_stack { u64::from(BPF_F_INGRESS) } else { 0 }
    }
}

/// Gives the frame itself away.
#[inline(always)]
fn hand_over(ctx: &TcContext, delivery: &Delivery) -> i32 {
    ctx.set_mark(delivery.mark());
    // SAFETY: no memory is passed.
    unsafe { bpf_redirect(delivery.target.ifindex, delivery.redirect_flags()) as i32 }
}

/// Gives the frame itself away at tc ingress, where a veth's far end can have it at once.
#[inline(always)]
fn hand_over_here(ctx: &TcContext, delivery: &Delivery) -> i32 {
    if delivery.target.flags & port_flags::PEER == 0 || delivery.to_stack {
        return hand_over(ctx, delivery);
    }
    // SAFETY: the pointer is the program's context, in which the verifier allows this read and this change.
    unsafe {
        if PEER_KEEPS_TYPE.load() != 0 && (*ctx.skb.skb).pkt_type == PACKET_OTHERHOST {
            bpf_skb_change_type(ctx.skb.skb, PACKET_HOST);
        }
    }
    // SAFETY: no memory is passed.
    unsafe { bpf_redirect_peer(delivery.target.ifindex, 0) as i32 }
}

/// Gives a copy away; nothing for the interface 0.
#[inline(always)]
fn clone(skb: *mut __sk_buff, delivery: &Delivery) {
    if delivery.target.ifindex == 0 {
        return;
    }
    // SAFETY: `skb` is the program's context; the mark may be written, and packet pointers are not used after the call.
    let error = unsafe {
        (*skb).mark = delivery.mark();
        bpf_clone_redirect(skb, delivery.target.ifindex, delivery.redirect_flags())
    };
    if error != 0 {
        count(delivery.target.slot, |counters| {
            counters.tx_errors += 1;
        });
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
    flood: Flood,
    len: u32,
    offered: Offered,
}

/// Gives a copy to all who may have one but the last.
#[inline(always)]
fn offer_to_all(ctx: &TcContext, decision: &Decision, len: u32) -> Offered {
    // 0, since no frame has 2 GiB. Before 6.8 the verifier follows a loop's function once alone (commit ab5cfac139ab): if it saw
    // that there is nobody at first, it would remove the code by which those who come later have their copies.
    let nobody = len >> 31;
    let target = Target { slot: 0, ifindex: nobody, flags: 0 };
    let offered = Offered { ports: 0, host: false, stays: false, last: Delivery { target, to_stack: false } };
    let mut offer = Offer { skb: ctx.skb.skb, flood: decision.flood(), len, offered };
    let slots = u32::from(decision.settings().slots).saturating_sub(1);
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
    let here = slot == offer.flood.ingress.slot;
    if !here && is_empty(slot) {
        return 0;
    }
    if floods_to_host(&offer.flood, slot, port) {
        offer.offered.host = true;
        count_sent(HOST_SLOT, offer.len);
        deliver(offer, Delivery { target: Target::new(slot, port), to_stack: true }, here);
    }
    if floods_to(&Maps, &offer.flood, slot, port) {
        offer.offered.ports += 1;
        count_sent(slot, offer.len);
        let stays = here && offer.flood.ingress.from_host;
        deliver(offer, Delivery { target: Target::new(slot, port), to_stack: false }, stays);
    }
    0
}

/// Notes one more receiver, and gives the one before its copy. If the frame `stays` at this hook, that is the delivery.
#[inline(always)]
fn deliver(offer: &mut Offer, delivery: Delivery, stays: bool) {
    if stays {
        offer.offered.stays = true;
        return;
    }
    clone(offer.skb, &offer.offered.last);
    offer.offered.last = delivery;
}

#[inline(always)]
fn mark(ctx: &TcContext) -> u32 {
    // SAFETY: the pointer is the program's context, in which the verifier allows this read.
    unsafe { (*ctx.skb.skb).mark }
}

#[inline(always)]
fn count_received(decision: &Decision, len: u32, fate: impl FnOnce(&mut Counters)) {
    count(decision.counted(), |counters| {
        counters.rx_packets += 1;
        counters.rx_bytes += u64::from(len);
        counters.fdb_full += u64::from(decision.fdb_full);
        fate(counters);
    });
}

#[inline(always)]
fn count_drop(decision: &Decision, len: u32, reason: DropReason) {
    count_received(decision, len, |counters| {
        // The compiler knows the largest reason and would leave out the bound that the verifier needs to see.
        let index = usize::from(black_box(reason as u8)) % DROP_REASONS;
        if let Some(drops) = counters.drops.get_mut(index) {
            *drops += 1;
        }
    });
}

#[inline(always)]
fn count_sent(slot: u16, len: u32) {
    count(slot, |counters| {
        counters.tx_packets += 1;
        counters.tx_bytes += u64::from(len);
    });
}

#[inline(always)]
fn count(slot: u16, change: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(u32::from(slot)) {
        // SAFETY: this CPU's own element of an array, which is never freed; a program is not preempted by another one
        // that counts on the same CPU except by a hook nested in a clone, outside any such borrow.
        change(unsafe { &mut *counters });
    }
}

/// One line for aya-log, where the loader asked for it.
#[inline(always)]
fn log(ctx: &TcContext, decision: &Decision) {
    if LOG_PACKETS.load() == 0 {
        return;
    }
    let Verdict { action, target, reason, .. } = decision.verdict;
    let detail = match action {
        Action::Forward | Action::Host => u32::from(target.slot),
        Action::Drop => reason as u32,
        Action::Flood | Action::HostHere => 0,
    };
    vswitch_tell(ctx.skb.skb, u32::from(decision.counted()), action as u32, detail);
}

const FORWARD: u32 = Action::Forward as u32;
const FLOOD: u32 = Action::Flood as u32;
const HOST: u32 = Action::Host as u32;
const HOST_HERE: u32 = Action::HostHere as u32;

/// A global function to the verifier, which looks at it once, with any arguments, and not after each path that leads to it:
/// that was 600,000 instructions on 6.18, and more than are allowed on 6.1. Hence the plain types, and no name of Rust's.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_tell(skb: *mut __sk_buff, slot: u32, action: u32, detail: u32) -> i32 {
    if LOG_PACKETS.load() == 0 {
        return 0;
    }
    let ctx = TcContext::new(skb);
    let what = match action {
        FORWARD => "forward to slot",
        FLOOD => "flood",
        HOST => "host behind slot",
        HOST_HERE => "host on this link",
        _ => "drop for reason",
    };
    debug!(ctx, "from slot {}: {} {} ({} bytes)", slot, what, detail, ctx.len());
    0
}
