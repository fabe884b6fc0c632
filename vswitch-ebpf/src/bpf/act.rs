//! The last step: a verdict becomes what the kernel does with the frame, and is counted.

use aya_ebpf::{
    bindings::xdp_action,
    programs::{TcContext, XdpContext},
};
use vswitch_ebpf::{
    abi::{HOST_SLOT, port_flags},
    forward::Decision,
    frame::Frame as _,
    tables::Tables as _,
    verdict::{Action, DropReason},
};

use super::{
    count::{self, Received},
    deliver::{Delivery, is_gone},
    flood::vswitch_flood,
    maps::{DEVMAP, Maps},
    packet,
    tell::tell,
};

/// Let the next program, or the stack, have the frame (TCX_NEXT, TC_ACT_UNSPEC).
pub(crate) const TC_NEXT: i32 = -1;
/// Free the frame (TCX_DROP, TC_ACT_SHOT).
pub(crate) const TC_DROP: i32 = 2;
/// Let tc and the stack have the frame.
pub(crate) const XDP_PASS: u32 = xdp_action::XDP_PASS;

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

/// Acts on a decision in XDP. What XDP cannot finish it leaves, uncounted, to tc.
#[inline(always)]
pub(crate) fn xdp(ctx: &XdpContext, decision: &Decision) -> u32 {
    let received = received_by(decision, packet::Xdp(ctx).wire_len());
    let target = decision.verdict.target;
    match decision.verdict.action {
        Action::Forward if target.flags & port_flags::XDP != 0 => {
            // Also back out of the ingress port: what XDP_TX gives a veth, its far end is not told of unless it has an
            // XDP program itself; it would lie there until the next frame. The kernel empties an element when its
            // interface goes: then tc decides again.
            if DEVMAP.redirect(u32::from(target.slot), u64::from(XDP_PASS)) != Ok(xdp_action::XDP_REDIRECT) {
                return XDP_PASS;
            }
            received.count(|counters| counters.forwarded += 1);
            count::sent(target.slot, received.len);
            xdp_action::XDP_REDIRECT
        }
        Action::Drop => {
            received.count_drop(decision.verdict.reason);
            xdp_action::XDP_DROP
        }
        Action::Forward | Action::Flood | Action::Host | Action::HostHere => XDP_PASS,
    }
}

/// Acts on a decision at tc ingress.
#[inline(always)]
pub(crate) fn received(ctx: &TcContext, decision: &Decision) -> i32 {
    let received = received_by(decision, ctx.len());
    let target = decision.verdict.target;
    tell(ctx, decision);
    match decision.verdict.action {
        Action::Forward | Action::Host if is_unreachable(decision) => {
            received.count_drop(DropReason::PortDown);
            TC_DROP
        }
        Action::Forward => {
            received.count(|counters| counters.forwarded += 1);
            count::sent(target.slot, received.len);
            Delivery { target, to_stack: false }.hand_over_here(ctx)
        }
        Action::Flood => vswitch_flood(ctx.skb.skb, &decision.flood()),
        Action::Host => {
            received.count(|counters| counters.host += 1);
            count::sent(HOST_SLOT, received.len);
            if target.slot == decision.ingress().slot {
                return TC_NEXT;
            }
            Delivery { target, to_stack: true }.hand_over(ctx)
        }
        Action::HostHere => {
            received.count(|counters| counters.host += 1);
            count::sent(HOST_SLOT, received.len);
            TC_NEXT
        }
        Action::Drop => {
            received.count_drop(decision.verdict.reason);
            TC_DROP
        }
    }
}

/// Acts on a decision at an uplink's tc egress.
#[inline(always)]
pub(crate) fn sent_by_host(ctx: &TcContext, decision: &Decision) -> i32 {
    let received = received_by(decision, ctx.len());
    let target = decision.verdict.target;
    tell(ctx, decision);
    match decision.verdict.action {
        Action::Forward => {
            // As to a port that is down: out of the wire that the host has chosen.
            let own = decision.ingress().slot;
            let slot = if is_unreachable(decision) { own } else { target.slot };
            received.count(|counters| counters.forwarded += 1);
            count::sent(slot, received.len);
            if slot == own {
                return TC_NEXT;
            }
            Delivery { target, to_stack: false }.hand_over(ctx)
        }
        Action::Flood => vswitch_flood(ctx.skb.skb, &decision.flood()),
        Action::Drop => {
            received.count_drop(decision.verdict.reason);
            TC_DROP
        }
        // The host's frames for itself go out of the wire: `egress` says so by `Forward`.
        Action::Host | Action::HostHere => TC_NEXT,
    }
}

/// Whether the target's interface is gone. A frame for where it has just come from is not asked about.
#[inline(always)]
fn is_unreachable(decision: &Decision) -> bool {
    let slot = decision.verdict.target.slot;
    slot != decision.ingress().slot && is_gone(slot)
}

#[inline(always)]
fn received_by(decision: &Decision, len: u32) -> Received {
    Received { slot: decision.ingress().counted(), len, fdb_full: decision.fdb_full }
}
