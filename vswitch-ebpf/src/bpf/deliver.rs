//! How does one receiver get a frame? The kernel's redirects, and the mark by which the next hook knows what is decided.

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::{bpf_clone_redirect, bpf_redirect, bpf_redirect_peer, bpf_skb_change_type},
    programs::TcContext,
};
use vswitch_ebpf::{
    abi::{SWITCHED_MARK, port_flags},
    policy::is_uplink,
    tables::Tables as _,
    verdict::Target,
};

use super::{
    count,
    maps::{Maps, PRESENT},
};

/// `skb->pkt_type`, include/uapi/linux/if_packet.h.
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;

/// Set by the loader for kernels whose bpf_redirect_peer leaves a frame as its first port found it: for another host, which
/// the stack at the far end drops (before 6.15, which scrubs it: commit c43272299488).
#[unsafe(no_mangle)]
static PEER_KEEPS_TYPE: Global<u8> = Global::new(0);

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
    pub(crate) fn hand_over(&self, ctx: &TcContext) -> i32 {
        ctx.set_mark(self.mark());
        // SAFETY: no memory is passed.
        unsafe { bpf_redirect(self.target.ifindex, self.redirect_flags()) as i32 }
    }

    /// Gives the frame itself away at tc ingress, where a veth's far end can have it at once.
    #[inline(always)]
    pub(crate) fn hand_over_here(&self, ctx: &TcContext) -> i32 {
        if self.target.flags & port_flags::PEER == 0 || self.to_stack {
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

/// Whether a port's interface is gone, and its index perhaps a stranger's by now: the controller has yet to hear of it, or
/// there is none. The kernel empties the element before it gives an index away (dev_map_notification,
/// kernel/bpf/devmap.c).
#[inline(always)]
pub(crate) fn is_gone(slot: u16) -> bool {
    PRESENT.get_ifindex(u32::from(slot)).is_none()
}

/// Whether this frame was decided at another hook and is on its way to an uplink's wire or to the host. Clears the mark. At
/// other ports it says nothing: the far end of a netkit or of a veth within one namespace can have put it there.
#[inline(always)]
pub(crate) fn already_switched(ctx: &TcContext, ifindex: u32) -> bool {
    let switched = mark(ctx) == SWITCHED_MARK
        && Maps.slot_of(ifindex).and_then(|slot| Maps.port(slot)).is_some_and(|port| is_uplink(&port));
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
