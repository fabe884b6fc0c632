//! The XDP and tc programs: a verdict becomes an action in one exhaustive match each.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// For loads of words from any address (`bpf/packet.rs`).
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod bpf;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::{__sk_buff, xdp_md},
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use vswitch_ebpf::{
        forward::decide,
        frame::Frame as _,
        packet::{Hook, Packet},
        tables::Look as _,
        verdict::Members,
    };

    use crate::bpf::{
        conclude::{self, XDP_PASS, vswitch_conclude_many},
        deliver::{self, TC_NEXT},
        maps::{Maps, XdpMaps},
        memory, packet, stages,
    };

    /// XDP on a port: frames between XDP ports, and drops. All else goes on to `vswitch_in`, which decides again.
    #[xdp]
    pub(crate) fn vswitch_xdp(ctx: XdpContext) -> u32 {
        let frame = packet::Xdp(&ctx);
        let hook = Hook::Received(ctx.ingress_ifindex() as u32);
        match memory::recall(&frame, hook) {
            Some(record) => conclude::xdp(&record.decision(hook), frame.length()),
            None => vswitch_xdp_decide(ctx.ctx),
        }
    }

    /// A frame that is not remembered. Like its siblings below, a global function to the verifier, which looks at it by itself,
    /// and none of what it has on its stack is on that of a frame that is.
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn vswitch_xdp_decide(ctx: *mut xdp_md) -> u32 {
        let ctx = XdpContext::new(ctx);
        let frame = packet::Xdp(&ctx);
        let hook = Hook::Received(ctx.ingress_ifindex() as u32);
        let (asked, generation) = (memory::question(&frame, hook), memory::generation());
        let mut packet = Packet::UNREAD;
        if !decide(&mut packet, &frame, &XdpMaps, &stages::Xdp, hook) {
            return XDP_PASS;
        }
        memory::keep(&packet, &asked, generation);
        conclude::xdp(&packet.decision(), packet.len)
    }

    /// tc ingress on a port: what its far end sent.
    #[classifier]
    pub(crate) fn vswitch_in(ctx: TcContext) -> i32 {
        let ifindex = packet::ifindex(&ctx);
        if deliver::already_switched(&ctx, ifindex) {
            return TC_NEXT;
        }
        match recall(&ctx, Hook::Received(ifindex)) {
            Some(code) => code,
            None => vswitch_in_decide(ctx.skb.skb),
        }
    }

    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn vswitch_in_decide(skb: *mut __sk_buff) -> i32 {
        let ctx = TcContext::new(skb);
        let hook = Hook::Received(packet::ifindex(&ctx));
        switch(&ctx, hook)
    }

    /// tc egress on an uplink: what the host sends, before the wire has it.
    #[classifier]
    pub(crate) fn vswitch_out(ctx: TcContext) -> i32 {
        let ifindex = packet::ifindex(&ctx);
        if deliver::already_switched(&ctx, ifindex) {
            return TC_NEXT;
        }
        match recall(&ctx, Hook::SentByHost(ifindex)) {
            Some(code) => code,
            None => vswitch_out_decide(ctx.skb.skb),
        }
    }

    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn vswitch_out_decide(skb: *mut __sk_buff) -> i32 {
        let ctx = TcContext::new(skb);
        let hook = Hook::SentByHost(packet::ifindex(&ctx));
        switch(&ctx, hook)
    }

    /// Does with a frame what was done with one like it.
    #[inline(always)]
    fn recall(ctx: &TcContext, hook: Hook) -> Option<i32> {
        let record = memory::recall_present(&packet::Skb(ctx), hook)?;
        Some(conclude::tc(ctx, &record.decision(hook), ctx.len()))
    }

    /// Decides about a frame, and does it.
    #[inline(always)]
    fn switch(ctx: &TcContext, hook: Hook) -> i32 {
        let frame = packet::Skb(ctx);
        let (asked, generation) = (memory::question(&frame, hook), memory::generation());
        let mut packet = Packet::UNREAD;
        if !decide(&mut packet, &frame, &Maps, &stages::Tc, hook) {
            return TC_NEXT;
        }
        if !matches!(packet.verdict.list, Members::Nobody) {
            return vswitch_conclude_many(ctx.skb.skb, &packet);
        }
        memory::keep(&packet, &asked, generation);
        conclude::tc(ctx, &packet.decision(), packet.len)
    }

    /// Tells userspace the dataplane's time when that makes a test run of it. It is never attached.
    #[classifier]
    pub(crate) fn vswitch_clock(ctx: TcContext) -> i32 {
        packet::tell(&ctx, Maps.now());
        TC_NEXT
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
