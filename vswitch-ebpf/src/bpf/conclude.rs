//! The last stage: a decision is counted, and becomes what the kernel does with the frame. The one exit of every frame.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_action},
    programs::TcContext,
};
use vswitch_ebpf::{
    abi::{HOST_SLOT, port_flags},
    packet::Packet,
    policy::reached,
    verdict::{Action, Decision, Members},
};

use super::{
    count::{self, Arrival},
    deliver::{self, TC_DROP},
    flood::offer,
    maps::DEVMAP,
    tell::tell,
};

/// Let tc and the stack have the frame.
pub(crate) const XDP_PASS: u32 = xdp_action::XDP_PASS;

/// In XDP. What XDP cannot finish it leaves, uncounted, to tc.
#[inline(always)]
pub(crate) fn xdp(decision: &Decision, len: u32) -> u32 {
    let arrival = Arrival::of(decision, len);
    let target = decision.verdict.target;
    match decision.verdict.action {
        Action::Forward
            if target.flags & port_flags::XDP != 0 && matches!(decision.verdict.list, Members::Nobody) =>
        {
            // Also back out of the ingress port: what XDP_TX gives a veth, its far end is not told of unless it has an
            // XDP program itself; it would lie there until the next frame. The kernel empties an element when its
            // interface goes: then tc decides again.
            if DEVMAP.redirect(u32::from(target.slot), u64::from(XDP_PASS)) != Ok(xdp_action::XDP_REDIRECT) {
                return XDP_PASS;
            }
            arrival.count(|counters| counters.forwarded += 1);
            count::sent(target.slot, len);
            xdp_action::XDP_REDIRECT
        }
        Action::Drop => {
            arrival.count_drop(decision.verdict.reason);
            xdp_action::XDP_DROP
        }
        Action::Forward | Action::Flood | Action::Host | Action::HostHere => XDP_PASS,
    }
}

/// At tc, where the frame is for one receiver or none.
#[inline(always)]
pub(crate) fn tc(ctx: &TcContext, decision: &Decision, len: u32) -> i32 {
    let arrival = Arrival::of(decision, len);
    tell(ctx, decision);
    match decision.verdict.action {
        Action::Forward => {
            arrival.count(|counters| counters.forwarded += 1);
            count::sent(decision.verdict.target.slot, len);
        }
        Action::Host | Action::HostHere => {
            arrival.count(|counters| counters.host += 1);
            count::sent(HOST_SLOT, len);
        }
        Action::Drop => arrival.count_drop(decision.verdict.reason),
        // For many: `vswitch_conclude_many` counts.
        Action::Flood => {}
    }
    deliver::one(ctx, decision)
}

/// At tc, where the frame is for many. A global function to the verifier, which looks at it once, with any arguments, and not
/// after each path that leads to it: that was four fifths of `vswitch_in` and is a tenth. Hence the pointers, and no name of
/// Rust's.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_conclude_many(skb: *mut __sk_buff, packet: *mut Packet) -> i32 {
    // SAFETY: the verifier sees that callers pass a whole one of theirs, or null.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return TC_DROP };
    let ctx = TcContext::new(skb);
    let decision = packet.decision();
    tell(&ctx, &decision);
    let arrival = Arrival::of(&decision, packet.len);
    let mark = deliver::mark(&ctx);
    let offered = offer(skb, packet);
    if let Err(reason) = reached(packet, offered.port || offered.host) {
        arrival.count_drop(reason);
        return TC_DROP;
    }
    let ports = u64::from(offered.port);
    arrival.count(|counters| {
        counters.forwarded += ports;
        counters.host += 1 - ports;
    });
    deliver::rest(&ctx, packet.from_host, mark, &offered)
}
