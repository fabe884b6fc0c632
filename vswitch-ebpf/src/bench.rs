//! What does `vswitch bench` measure with? A generator, receivers, and the bare redirects that are the floors.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use core::ptr;

    use aya_ebpf::{
        Global,
        bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
        helpers::{bpf_redirect, bpf_redirect_peer},
        macros::{classifier, map, xdp},
        maps::{Array, DevMap},
        programs::{TcContext, XdpContext},
    };
    use vswitch_ebpf::stream::{ADDRESSES_LEN, ENTRANCES, Stream, station};

    /// By entrance: the far ends that the generator sends from.
    #[map]
    static ENTRANCE: DevMap = DevMap::with_max_entries(ENTRANCES, 0);

    /// What the generator sends; one stream at a time.
    #[map]
    static STREAM: Array<Stream> = Array::with_max_entries(1, 0);

    /// The interface of a floor. Read-only data: nothing has to be looked up.
    #[unsafe(no_mangle)]
    static TARGET: Global<u32> = Global::new(0);

    /// Sends the frame as it is.
    #[xdp]
    pub(crate) fn send_same(_ctx: XdpContext) -> u32 {
        let Some(stream) = STREAM.get(0) else { return XDP_ABORTED };
        ENTRANCE.redirect(stream.entrance, u64::from(XDP_ABORTED)).unwrap_or(XDP_ABORTED)
    }

    /// Sends the frame from and to other addresses each time.
    #[xdp]
    pub(crate) fn send_changing(ctx: XdpContext) -> u32 {
        let Some(stream) = STREAM.get_ptr_mut(0) else { return XDP_ABORTED };
        // SAFETY: an element of an array is never freed; one generator runs at a time.
        let stream = unsafe { &mut *stream };
        let frame = ctx.data();
        if frame + ADDRESSES_LEN > ctx.data_end() {
            return XDP_ABORTED;
        }
        let to = station(stream.destination_side, stream.destination);
        let from = station(stream.source_side, stream.source);
        // SAFETY: within the frame, as has just been compared; byte arrays have no alignment.
        unsafe { ptr::write(frame as *mut [[u8; 6]; 2], [to, from]) };
        stream.source = next(stream.source, stream.sources);
        stream.destination = next(stream.destination, stream.destinations);
        ENTRANCE.redirect(stream.entrance, u64::from(XDP_ABORTED)).unwrap_or(XDP_ABORTED)
    }

    #[inline(always)]
    fn next(number: u32, of: u32) -> u32 {
        if number + 1 < of { number + 1 } else { 0 }
    }

    /// A receiver: the interface counts.
    #[xdp]
    pub(crate) fn receive(_ctx: XdpContext) -> u32 {
        XDP_DROP
    }

    /// Floor: out of a fixed interface.
    #[classifier]
    pub(crate) fn floor_tc(_ctx: TcContext) -> i32 {
        // SAFETY: no memory is passed.
        unsafe { bpf_redirect(TARGET.load(), 0) as i32 }
    }

    /// Floor: to the far end of a fixed interface.
    #[classifier]
    pub(crate) fn floor_tc_peer(_ctx: TcContext) -> i32 {
        // SAFETY: no memory is passed.
        unsafe { bpf_redirect_peer(TARGET.load(), 0) as i32 }
    }

    /// Floor: out of a fixed interface, before there is an skb.
    #[xdp]
    pub(crate) fn floor_xdp(_ctx: XdpContext) -> u32 {
        // SAFETY: no memory is passed.
        unsafe { bpf_redirect(TARGET.load(), 0) as u32 }
    }

    /// Floor: back to where it came from.
    #[xdp]
    pub(crate) fn floor_reflect(_ctx: XdpContext) -> u32 {
        XDP_TX
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
