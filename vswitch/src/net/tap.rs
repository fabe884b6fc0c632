//! How is a persistent tap made, for a virtual machine to open later?

use std::{
    fs::OpenOptions,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use anyhow::{Result, bail};

use super::{Link, Netlink, Refused, check_name};

const DEVICE: &str = "/dev/net/tun";

impl Netlink {
    /// Creates a tap that outlives this process: one queue, no packet information, with virtio-net headers so that
    /// whoever opens it can take part in checksum and segmentation offload. Errors: the name is taken, no tun driver.
    pub async fn add_tap(&self, ifname: &str) -> Result<Link> {
        check_name(ifname)?;
        let what = format!(r#"create tap "{ifname}""#);
        if self.find(ifname).await?.is_some() {
            bail!(r#"{what}: an interface "{ifname}" exists already: delete it or choose another name"#);
        }
        // The device file belongs to the namespace of the thread that opens it.
        self.netns().run_in(|| create(ifname, &what))??;
        self.get(ifname).await
    }
}

fn create(ifname: &str, what: &str) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(DEVICE).map_err(
        |err| {
            Refused::from_io(format!("{what}: open {DEVICE}"), &err).remedy("modprobe tun, and run as root")
        },
    )?;
    let tun = OwnedFd::from(file);

    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from.cast_signed();
    }
    // IFF_TUN_EXCL: never attach to a tap that somebody else made meanwhile.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    // The field is 16 bits wide and IFF_TUN_EXCL is the highest of them.
    request.ifr_ifru.ifru_flags = (flags & 0xffff) as u16 as libc::c_short;

    // SAFETY: TUNSETIFF reads and writes one ifreq; `request` is one and outlives the call; `tun` is open.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) } < 0 {
        return Err(Refused::last(what).into());
    }
    // SAFETY: TUNSETPERSIST takes an integer, not a pointer; `tun` is open.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST as libc::Ioctl, 1) } < 0 {
        return Err(Refused::last(format!("{what}: make it persistent")).into());
    }
    Ok(())
}
