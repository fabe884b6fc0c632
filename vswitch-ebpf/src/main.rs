//! The XDP and tc programs: a verdict becomes an action in one exhaustive match each.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// For loads of words from any address (`bpf/packet.rs`).
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod bpf;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use vswitch_ebpf::{forward::decide, ingress::Hook};

    use crate::bpf::{act, deliver, maps::Maps, packet};

    /// XDP on a port: frames between XDP ports, and drops. All else goes on to `vswitch_in`, which decides again.
    #[xdp]
    pub(crate) fn vswitch_xdp(ctx: XdpContext) -> u32 {
        let ifindex = act::xdp_ifindex(&ctx);
        match decide(&packet::Xdp(&ctx), &Maps, Hook::Received(ifindex)) {
            Some(decision) => act::xdp(&ctx, &decision),
            None => act::XDP_PASS,
        }
    }

    /// tc ingress on a port: what its far end sent.
    #[classifier]
    pub(crate) fn vswitch_in(ctx: TcContext) -> i32 {
        let ifindex = act::tc_ifindex(&ctx);
        if deliver::already_switched(&ctx, ifindex) {
            return act::TC_NEXT;
        }
        match decide(&packet::Skb(&ctx), &Maps, Hook::Received(ifindex)) {
            Some(decision) => act::received(&ctx, &decision),
            None => act::TC_NEXT,
        }
    }

    /// tc egress on an uplink: what the host sends, before the wire has it.
    #[classifier]
    pub(crate) fn vswitch_out(ctx: TcContext) -> i32 {
        let ifindex = act::tc_ifindex(&ctx);
        if deliver::already_switched(&ctx, ifindex) {
            return act::TC_NEXT;
        }
        match decide(&packet::Skb(&ctx), &Maps, Hook::SentByHost(ifindex)) {
            Some(decision) => act::sent_by_host(&ctx, &decision),
            None => act::TC_NEXT,
        }
    }

    /// Tells userspace the dataplane's time when that makes a test run of it. It is never attached.
    #[classifier]
    pub(crate) fn vswitch_clock(ctx: TcContext) -> i32 {
        act::tell_time(&ctx)
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    // The kernel gives GPL-only helpers to programs that say this.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
