//! Which netlink messages wake the controller? A socket filter: without it every ARP entry of the machine would.

use std::{io, os::fd::RawFd};

// include/uapi/linux/rtnetlink.h
const RTM_NEWLINK: u32 = 16;
const RTM_DELLINK: u32 = 17;
const RTM_DELNEIGH: u32 = 29;
const RTM_DELQDISC: u32 = 37;
const RTM_NEWTFILTER: u32 = 44;
const RTM_DELTFILTER: u32 = 45;

/// Where the low byte of `nlmsg_type` is.
const TYPE: u32 = if cfg!(target_endian = "little") { 4 } else { 5 };
/// `ndm_family` and `ndm_flags`, behind the 16 bytes of struct nlmsghdr.
const FAMILY: u32 = 16;
const FLAGS: u32 = 16 + 10;

const AF_BRIDGE: u32 = libc::AF_BRIDGE.cast_unsigned();
/// An entry of the interface's own filter.
const NTF_SELF: u32 = 0x02;

const LOAD: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const HAS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

const fn step(code: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: yes, jf: no, k }
}

/// Jumps count the steps that are left out.
const STEPS: [libc::sock_filter; 13] = [
    step(LOAD, TYPE, 0, 0),
    step(EQUALS, RTM_NEWLINK, 9, 0),
    step(EQUALS, RTM_DELLINK, 8, 0),
    step(EQUALS, RTM_DELQDISC, 7, 0),
    step(EQUALS, RTM_NEWTFILTER, 6, 0),
    step(EQUALS, RTM_DELTFILTER, 5, 0),
    step(EQUALS, RTM_DELNEIGH, 0, 5),
    step(LOAD, FAMILY, 0, 0),
    step(EQUALS, AF_BRIDGE, 0, 3),
    step(LOAD, FLAGS, 0, 0),
    step(HAS, NTF_SELF, 0, 1),
    step(RETURN, u32::MAX, 0, 0),
    step(RETURN, 0, 0, 0),
];

pub(super) fn attach(socket: RawFd) -> io::Result<()> {
    // The kernel reads the steps only; its struct has no const pointer.
    let steps = STEPS.as_ptr().cast_mut();
    let program = libc::sock_fprog { len: STEPS.len() as u16, filter: steps };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: `program` is a sock_fprog whose pointer and length are those of STEPS; both outlive the call, which copies.
    let done = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
