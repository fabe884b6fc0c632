//! How does a receiver get a frame? The kernel's redirects, and the mark by which the next hook knows what is decided.

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::{bpf_clone_redirect, bpf_redirect, bpf_redirect_peer, bpf_skb_change_type},
    programs::TcContext,
};
use vswitch_ebpf::{
    abi::{SWITCHED_MARK, port_flags},
    policy::is_uplink,
    tables::Look as _,
    verdict::{Action, Decision, Target},
};

use super::{count, flood::Offered, maps::Maps};

/// Let the next program, or the stack, have the frame (TCX_NEXT, TC_ACT_UNSPEC).
pub(crate) const TC_NEXT: i32 = -1;
/// Free the frame (TCX_DROP, TC_ACT_SHOT).
pub(crate) const TC_DROP: i32 = 2;

/// `skb->pkt_type`, include/uapi/linux/if_packet.h.
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;

/// Set by the loader for kernels whose bpf_redirect_peer leaves a frame as its first port found it: for another host, which
/// the stack at the far end drops (before 6.15, which scrubs it: commit c43272299488).
#[unsafe(no_mangle)]
static PEER_KEEPS_TYPE: Global<u8> = Global::new(0);

/// Gives a frame to its one receiver, if it has one.
#[inline(always)]
pub(crate) fn one(ctx: &TcContext, decision: &Decision) -> i32 {
    let target = decision.verdict.target;
    match decision.verdict.action {
        // Out of the host's own wire, or to the stack behind the port that it came in by: where it is going.
        Action::Forward if decision.from_host && decision.stays() => TC_NEXT,
        Action::Host if decision.stays() => TC_NEXT,
        Action::HostHere => TC_NEXT,
        Action::Forward => hand_over(ctx, &Delivery { target, to_stack: false }, decision.from_host),
        Action::Host => hand_over(ctx, &Delivery { target, to_stack: true }, decision.from_host),
        Action::Flood | Action::Drop => TC_DROP,
    }
}

/// Gives a frame to the last of many, after their copies.
#[inline(always)]
pub(crate) fn rest(ctx: &TcContext, from_host: bool, mark: u32, offered: &Offered) -> i32 {
    if offered.stays {
        offered.last.copy(ctx.skb.skb);
    }
    // A copy for the host or an uplink was marked. The frame goes on as it was: where it is, to the stack or out of the host's
    // wire, or to the far end of a veth.
    ctx.set_mark(mark);
    if offered.stays { TC_NEXT } else { hand_over(ctx, &offered.last, from_host) }
}

/// At tc ingress a veth's far end can have a frame at once; what the host sends passes the near end.
#[inline(always)]
fn hand_over(ctx: &TcContext, delivery: &Delivery, from_host: bool) -> i32 {
    if from_host { delivery.hand_over(ctx) } else { delivery.hand_over_here(ctx) }
}

/// One receiver of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) target: Target,
    /// Whether it is the host's stack behind the target, and not the target's far end.
    pub(crate) to_stack: bool,
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

    /// Gives the frame itself away.
    #[inline(always)]
    fn hand_over(&self, ctx: &TcContext) -> i32 {
        ctx.set_mark(self.mark());
        // SAFETY: no memory is passed.
        unsafe { bpf_redirect(self.target.ifindex, self.redirect_flags()) as i32 }
    }

    /// Gives the frame itself away at tc ingress, where a veth's far end can have it at once.
    #[inline(always)]
    fn hand_over_here(&self, ctx: &TcContext) -> i32 {
        // What goes past a veth's far end goes past its XDP program, too, if it has one.
        if self.target.flags & (port_flags::PEER | port_flags::XDP) != port_flags::PEER || self.to_stack {
            return self.hand_over(ctx);
        }
        // SAFETY: the pointer is the program's context, in which the verifier allows this read and this change.
        unsafe {
            if PEER_KEEPS_TYPE.load() != 0 && (*ctx.skb.skb).pkt_type == PACKET_OTHERHOST {
                bpf_skb_change_type(ctx.skb.skb, PACKET_HOST);
            }
        }
        // SAFETY: no memory is passed.
        unsafe { bpf_redirect_peer(self.target.ifindex, 0) as i32 }
    }

    /// Gives a copy away; nothing for the interface 0.
    #[inline(always)]
    pub(crate) fn copy(&self, skb: *mut __sk_buff) {
        if self.target.ifindex == 0 {
            return;
        }
        // SAFETY: `skb` is the program's context; the mark may be written, and packet pointers are not used after the call.
        let error = unsafe {
            (*skb).mark = self.mark();
            bpf_clone_redirect(skb, self.target.ifindex, self.redirect_flags())
        };
        if error != 0 {
            count::tx_error(self.target.slot);
        }
    }
}

/// Whether this frame was decided at another hook and is on its way to an uplink's wire or to the host. Clears the mark. At
/// other ports it says nothing: the far end of a netkit or of a veth within one namespace can have put it there.
#[inline(always)]
pub(crate) fn already_switched(ctx: &TcContext, ifindex: u32) -> bool {
    let switched = mark(ctx) == SWITCHED_MARK
        && Maps.slot_of(ifindex).and_then(|slot| Maps.port(slot)).is_some_and(is_uplink);
    if switched {
        ctx.set_mark(0);
    }
    switched
}

/// The mark that the frame has.
#[inline(always)]
pub(crate) fn mark(ctx: &TcContext) -> u32 {
    // SAFETY: the pointer is the program's context, in which the verifier allows this read.
    unsafe { (*ctx.skb.skb).mark }
}
