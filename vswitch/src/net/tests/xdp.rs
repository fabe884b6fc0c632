//! What does a native XDP program on a veth change on this kernel? The facts behind the rules of `ready`.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::{Fresh, Netlink, Readiness, XdpMode, readiness, veth};
use crate::{
    config::{Datapath, Role},
    net::ready::VETH_XDP_MTU,
    skip::skipped,
};

const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const LINK_DETACH: libc::c_int = 34;
const TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const DRIVER_MODE: u32 = 4;

fn bpf<const N: usize>(command: libc::c_int, attr: &mut [u64; N]) -> io::Result<OwnedFd> {
    // SAFETY: bpf() reads `attr` for the length given, and what it points to outlives the call at both places of use.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands used here return a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from_ne_bytes([low.to_ne_bytes(), high.to_ne_bytes()].concat().try_into().unwrap())
}

/// A program that passes every frame, without frags, attached natively until the link is dropped.
fn attach(ifindex: u32) -> io::Result<OwnedFd> {
    // r0 = XDP_PASS; exit
    let code: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let licence = c"GPL";
    let load = &mut [
        pair(TYPE_XDP, 2),
        code.as_ptr() as u64,
        licence.as_ptr() as u64,
        0,
        0,
        0,
        0,
        0,
        pair(0, ATTACH_XDP),
    ];
    let prog = bpf(PROG_LOAD, load)?;
    bpf(LINK_CREATE, &mut [pair(prog.as_raw_fd() as u32, ifindex), pair(ATTACH_XDP, DRIVER_MODE), 0, 0])
}

/// Closing is not enough: a child that another test has just forked may hold the descriptor until it execs.
fn detach(link: OwnedFd) {
    let attr = [pair(link.as_raw_fd() as u32, 0)];
    // SAFETY: bpf() reads the eight bytes of `attr`.
    let done = unsafe { libc::syscall(libc::SYS_bpf, LINK_DETACH, attr.as_ptr(), size_of_val(&attr)) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_program_is_seen_limits_the_peer_and_ends_its_segmentation() {
    if skipped("a_program_is_seen_limits_the_peer_and_ends_its_segmentation") {
        return;
    }
    let (here, there) = (Fresh::new(), Fresh::new());
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let link = netlink.add_veth(&veth(&there)).await.unwrap();
        let attached = attach(link.ifindex).unwrap();

        let (facts, _) = netlink.facts("web0", None).await.unwrap();
        let program = facts.link.xdp.unwrap();
        assert_eq!(program.mode, XdpMode::Native);
        assert_ne!(program.id, 0);
        let refusal = readiness(&facts, Datapath::Auto, Role::Downlink, &[]).unwrap_err();
        assert!(refusal.reason.contains(&format!("another XDP program is attached (id {})", program.id)));
        let Readiness { actions, .. } =
            readiness(&facts, Datapath::Xdp, Role::Downlink, &[program.id]).unwrap();
        assert!(!actions.is_empty());

        let peer = facts.peer.unwrap();
        assert!(!peer.features.tso && peer.features.tx_csum && peer.features.tx_vlan);

        detach(attached);
        let (facts, _) = netlink.facts("web0", None).await.unwrap();
        assert_eq!(facts.link.xdp, None);
        assert!(facts.peer.unwrap().features.tso);
    });
}

#[test]
fn the_peers_mtu_is_the_limit() {
    if skipped("the_peers_mtu_is_the_limit") {
        return;
    }
    let (here, there) = (Fresh::new(), Fresh::new());
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let link = netlink.add_veth(&veth(&there)).await.unwrap();
        here.run("ip", &["link", "set", "web0", "mtu", "9000"]);
        let set_mtu = |mtu: u32| there.run("ip", &["link", "set", "eth0", "mtu", &mtu.to_string()]);
        set_mtu(VETH_XDP_MTU);
        detach(attach(link.ifindex).unwrap());
        set_mtu(VETH_XDP_MTU + 1);
        assert_eq!(attach(link.ifindex).unwrap_err().raw_os_error(), Some(libc::ERANGE));
        let (facts, _) = netlink.facts("web0", None).await.unwrap();
        readiness(&facts, Datapath::Xdp, Role::Downlink, &[]).unwrap_err();
    });
}
