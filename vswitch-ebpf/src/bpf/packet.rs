//! Bounded access to the bytes of a frame in XDP and tc programs.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_xdp_get_buff_len,
    programs::{TcContext, XdpContext},
};
use vswitch_ebpf::frame::Frame;

/// A frame in an XDP program.
pub(crate) struct Xdp<'a>(pub(crate) &'a XdpContext);

/// A frame in a tc program.
pub(crate) struct Skb<'a>(pub(crate) &'a TcContext);

impl Frame for Xdp<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        load(self.0.data(), self.0.data_end(), offset)
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_get_buff_len(self.0.as_ptr().cast()) as u32 }
    }
}

impl Frame for Skb<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        load(self.0.data(), self.0.data_end(), offset)
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        // SAFETY: the pointer is the program's context, in which the verifier allows this read.
        if unsafe { (*self.0.skb.skb).gso_size } != 0 { 0 } else { self.0.len() }
    }
}

#[inline(always)]
fn load<const N: usize>(data: usize, data_end: usize, offset: usize) -> Option<[u8; N]> {
    let start = data + offset;
    if start + N > data_end {
        return None;
    }
    // SAFETY: `start..start + N` lies between the bounds, as the comparison above has shown to the verifier too.
    // Byte arrays have no alignment.
    Some(unsafe { *(start as *const [u8; N]) })
}
