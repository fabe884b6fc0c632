//! Bounded access to the bytes of a frame in XDP and tc programs.

use core::arch::asm;

use aya_ebpf::programs::{TcContext, XdpContext};
use vswitch_ebpf::{
    frame::{ETH_HLEN, Frame},
    packet::{CLEARED, Hook, Packet},
};

use super::maps::PACKETS;

/// A frame in an XDP program.
pub(crate) struct Xdp<'a>(pub(crate) &'a XdpContext);

/// A frame in a tc program.
pub(crate) struct Skb<'a>(pub(crate) &'a TcContext);

impl Frame for Xdp<'_> {
    #[inline(always)]
    fn words(&self) -> Option<[u64; 2]> {
        words(self.0.data(), self.0.data_end())
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        self.length()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // All of it: the kernel gives frames in fragments to no program that does not say that it takes them.
        (self.0.data_end() - self.0.data()) as u32
    }
}

impl Frame for Skb<'_> {
    #[inline(always)]
    fn words(&self) -> Option<[u64; 2]> {
        words(self.0.data(), self.0.data_end())
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        // SAFETY: the pointer is the program's context, in which the verifier allows this read.
        if unsafe { (*self.0.skb.skb).gso_size } != 0 { 0 } else { self.0.len() }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.len()
    }
}

/// Numbers of the XDP program's packet and of the others'.
pub(crate) const XDP: u32 = 0;

/// The number of the packet of a hook at tc.
#[inline(always)]
pub(crate) const fn number(hook: Hook) -> u32 {
    match hook {
        Hook::Received(_) => 1,
        Hook::SentByHost(_) => 2,
    }
}

/// Room for the frame that a program decides about: this CPU's, and this program's alone. No program meets itself on a CPU: with
/// softirqs off, what it sends to a port is queued before it is received; what it sends by an uplink meets the other hook.
#[inline(always)]
pub(crate) fn room(number: u32) -> Option<&'static mut Packet> {
    let packet = PACKETS.get_ptr_mut(number)?;
    for word in 0..CLEARED {
        // SAFETY: a word of an element of an array, which is never freed; zeroes are a packet. Volatile, as the compiler
        // would call a function that clears byte by byte.
        unsafe { packet.cast::<u64>().add(word).write_volatile(0) };
    }
    // SAFETY: nobody else has it while the program runs, see above.
    Some(unsafe { &mut *packet })
}

/// The interface that a tc program sees a frame on.
#[inline(always)]
pub(crate) fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the pointer is the program's context, in which the verifier allows this read.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Puts a number into the control block, the low half first.
#[inline(always)]
pub(crate) fn tell(ctx: &TcContext, number: u64) {
    // SAFETY: the pointer is the program's context, in which the verifier allows these writes.
    unsafe {
        (*ctx.skb.skb).cb[0] = number as u32;
        (*ctx.skb.skb).cb[1] = (number >> 32) as u32;
    }
}

/// What [`Frame::words`] tells of the frame at `data`.
#[inline(always)]
fn words(data: usize, data_end: usize) -> Option<[u64; 2]> {
    if data + ETH_HLEN as usize > data_end {
        return None;
    }
    let (destination, source);
    // SAFETY: both loads are within the Ethernet header, whose end lies before `data_end`: the comparison above shows it to
    // the verifier, too. BPF's loads need no alignment where the verifier takes them (it knows the machine's needs); Rust's
    // would, hence the assembly.
    unsafe {
        asm!("{} = *(u64 *)({} + 0)", out(reg) destination, in(reg) data, options(pure, readonly, nostack));
        asm!("{} = *(u64 *)({} + 6)", out(reg) source, in(reg) data, options(pure, readonly, nostack));
    }
    Some([u64::from_le(destination), u64::from_le(source)])
}
