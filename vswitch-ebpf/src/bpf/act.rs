//! The last step: a verdict becomes what the kernel does with the frame, and is counted.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, BPF_F_INGRESS, xdp_action},
    helpers::{bpf_clone_redirect, bpf_loop, bpf_redirect, bpf_redirect_peer},
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
    maps::{COUNTERS, DEVMAP, Maps, PORTS},
    packet,
};

/// Let the next program, or the stack, have the frame (TCX_NEXT, TC_ACT_UNSPEC).
pub(crate) const TC_NEXT: i32 = -1;
const TC_DROP: i32 = 2;
/// Let tc and the stack have the frame.
pub(crate) const XDP_PASS: u32 = xdp_action::XDP_PASS;

/// Set by the loader for `--log-packets`. Read-only data: the verifier removes the logging where it is 0.
#[unsafe(no_mangle)]
static LOG_PACKETS: Global<u8> = Global::new(0);

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
            count_received(decision, len, |counters| counters.forwarded += 1);
            count_sent(target.slot, len);
            // Also back out of the ingress port: what XDP_TX gives a veth, its far end is not told of unless it has an
            // XDP program itself; it would lie there until the next frame.
            match DEVMAP.redirect(u32::from(target.slot), 0) {
                Ok(action) | Err(action) => action,
            }
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
        Action::Forward => {
            count_received(decision, len, |counters| counters.forwarded += 1);
            count_sent(target.slot, len);
            if target.flags & port_flags::PEER != 0 {
                // SAFETY: no memory is passed.
                return unsafe { bpf_redirect_peer(target.ifindex, 0) } as i32;
            }
            send(ctx, &target)
        }
        Action::Flood => flood(ctx, decision, len),
        Action::Host => {
            count_received(decision, len, |counters| counters.host += 1);
            count_sent(HOST_SLOT, len);
            to_host(ctx, decision, &target)
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
            count_received(decision, len, |counters| counters.forwarded += 1);
            count_sent(target.slot, len);
            if target.slot == decision.ingress.slot { TC_NEXT } else { send(ctx, &target) }
        }
        Action::Flood => {
            let mark = mark(ctx);
            let offered = offer_to_all(ctx, decision, len);
            clone(ctx.skb.skb, &offered.last);
            count_received(decision, len, |counters| counters.forwarded += 1);
            // The frame itself leaves by the wire, with the mark that the host gave it.
            ctx.set_mark(mark);
            TC_NEXT
        }
        Action::Drop => {
            count_drop(decision, len, decision.verdict.reason);
            TC_DROP
        }
        // The host's frames for itself go out of the wire: `egress` says so by `Forward`.
        Action::Host | Action::HostHere => TC_NEXT,
    }
}

/// Copies for the ports, and the frame itself for the host or else for the last port.
#[inline(always)]
fn flood(ctx: &TcContext, decision: &Decision, len: u32) -> i32 {
    let uplink = decision.settings.host_uplink;
    let host = floods_to_host(&decision.flood(), uplink);
    let offered = offer_to_all(ctx, decision, len);
    if let Err(reason) = flooded(offered.ports, host) {
        count_drop(decision, len, reason);
        return TC_DROP;
    }
    let ports = u64::from(offered.ports != 0);
    count_received(decision, len, |counters| {
        counters.forwarded += ports;
        counters.host += 1 - ports;
    });
    if !host {
        return send(ctx, &offered.last);
    }
    clone(ctx.skb.skb, &offered.last);
    ctx.set_mark(0);
    count_sent(HOST_SLOT, len);
    match Maps.port(uplink) {
        Some(port) => to_host(ctx, decision, &Target::new(uplink, &port)),
        None => TC_DROP,
    }
}

/// Sends the frame itself out of a port's interface. Through an uplink it will meet `vswitch_out`.
#[inline(always)]
fn send(ctx: &TcContext, target: &Target) -> i32 {
    ctx.set_mark(mark_for(target));
    // SAFETY: no memory is passed.
    unsafe { bpf_redirect(target.ifindex, 0) as i32 }
}

/// Hands the frame itself to the stack behind an uplink. If it entered elsewhere it will meet `vswitch_in` there.
#[inline(always)]
fn to_host(ctx: &TcContext, decision: &Decision, uplink: &Target) -> i32 {
    if uplink.slot == decision.ingress.slot {
        return TC_NEXT;
    }
    ctx.set_mark(SWITCHED_MARK);
    // SAFETY: no memory is passed.
    unsafe { bpf_redirect(uplink.ifindex, u64::from(BPF_F_INGRESS)) as i32 }
}

/// What is known after all ports had been offered a flooded frame.
#[derive(Clone, Copy)]
struct Offered {
    /// How many ports may have it, the host's own wire included.
    ports: u32,
    /// The last of them, which has not been sent its copy yet: it can have the frame itself. Interface 0 if none.
    last: Target,
}

struct Offer {
    skb: *mut __sk_buff,
    flood: Flood,
    len: u32,
    offered: Offered,
}

/// Sends a copy to every port that may have it but the last.
#[inline(always)]
fn offer_to_all(ctx: &TcContext, decision: &Decision, len: u32) -> Offered {
    let last = Target { slot: 0, ifindex: 0, flags: 0 };
    let mut offer =
        Offer { skb: ctx.skb.skb, flood: decision.flood(), len, offered: Offered { ports: 0, last } };
    let slots = u32::from(decision.settings.slots).saturating_sub(1);
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
    if !floods_to(&offer.flood, slot, port) {
        return 0;
    }
    offer.offered.ports += 1;
    count_sent(slot, offer.len);
    if slot == offer.flood.ingress.slot && offer.flood.ingress.from_host {
        return 0;
    }
    clone(offer.skb, &offer.offered.last);
    offer.offered.last = Target::new(slot, port);
    0
}

/// Sends a copy out of a port's interface.
#[inline(always)]
fn clone(skb: *mut __sk_buff, target: &Target) {
    if target.ifindex == 0 {
        return;
    }
    // SAFETY: `skb` is the program's context; the mark may be written, and packet pointers are not used after the call.
    let error = unsafe {
        (*skb).mark = mark_for(target);
        bpf_clone_redirect(skb, target.ifindex, 0)
    };
    if error != 0 {
        count(target.slot, |counters| {
            counters.tx_errors += 1;
        });
    }
}

#[inline(always)]
fn mark_for(target: &Target) -> u32 {
    if target.flags & port_flags::UPLINK != 0 { SWITCHED_MARK } else { 0 }
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
    let (what, detail) = match action {
        Action::Forward => ("forward to slot", u32::from(target.slot)),
        Action::Flood => ("flood", 0),
        Action::Host => ("host behind slot", u32::from(target.slot)),
        Action::HostHere => ("host on this link", 0),
        Action::Drop => ("drop for reason", reason as u32),
    };
    debug!(ctx, "from slot {}: {} {} ({} bytes)", decision.counted(), what, detail, ctx.len());
}
