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
    use vswitch_ebpf::{
        forward::{Learned, Left, decide},
        frame::Frame as _,
        packet::Hook,
        tables::Look as _,
        verdict::Members,
    };

    use crate::bpf::{
        conclude::{self, XDP_PASS, vswitch_conclude_many},
        deliver::{self, TC_NEXT},
        maps::{Maps, XdpMaps},
        memory, packet,
    };

    /// XDP on a port: frames between XDP ports, and drops. All else goes on to `vswitch_in`, which decides again.
    #[xdp]
    pub(crate) fn vswitch_xdp(ctx: XdpContext) -> u32 {
        let frame = packet::Xdp(&ctx);
        let hook = Hook::Received(ctx.ingress_ifindex() as u32);
        let asked = memory::question(&frame, hook);
        if let Some(record) = memory::recall(&asked, &frame) {
            return conclude::xdp(&record.decision(hook), frame.length());
        }
        let generation = memory::generation();
        let Some(packet) = packet::room(packet::XDP) else { return XDP_PASS };
        if !decide(packet, &frame, &XdpMaps, &Left, hook) {
            return XDP_PASS;
        }
        memory::keep(packet, &asked, generation);
        conclude::xdp(&packet.decision(), packet.len)
    }

    /// tc ingress on a port: what its far end sent.
    #[classifier]
    pub(crate) fn vswitch_in(ctx: TcContext) -> i32 {
        switch(&ctx, Hook::Received(packet::ifindex(&ctx)))
    }

    /// tc egress on an uplink: what the host sends, before the wire has it.
    #[classifier]
    pub(crate) fn vswitch_out(ctx: TcContext) -> i32 {
        switch(&ctx, Hook::SentByHost(packet::ifindex(&ctx)))
    }

    /// What becomes of a frame at tc: what became of one like it, or what is decided.
    #[inline(always)]
    fn switch(ctx: &TcContext, hook: Hook) -> i32 {
        if deliver::already_switched(ctx, hook.ifindex()) {
            return TC_NEXT;
        }
        let frame = packet::Skb(ctx);
        let asked = memory::question(&frame, hook);
        if let Some(record) = memory::recall_present(&asked, &frame) {
            return conclude::tc(ctx, &record.decision(hook), frame.length());
        }
        let generation = memory::generation();
        let Some(packet) = packet::room(packet::number(hook)) else { return TC_NEXT };
        if !decide(packet, &frame, &Maps, &Learned(&Maps), hook) {
            return TC_NEXT;
        }
        if !matches!(packet.verdict.list, Members::Nobody) {
            return vswitch_conclude_many(ctx.skb.skb, packet);
        }
        memory::keep(packet, &asked, generation);
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
