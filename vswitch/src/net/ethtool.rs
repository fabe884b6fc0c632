//! Which offloads has an interface, who drives it, and how are offloads switched? Through the SIOCETHTOOL ioctl.

use std::{
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::{Result, bail};

use super::{Refused, errno};

/// An offload, by what `ethtool -K` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// `gro`, generic-receive-offload. On a veth it also starts NAPI, without which XDP redirects into the other end vanish.
    Gro,
    /// `tso`, tcp-segmentation-offload.
    Tso,
    /// `tx`, tx-checksumming, SCTP's included. Off also takes away `tso` and UDP segmentation, which depend on it.
    TxCsum,
    /// `lro`, large-receive-offload.
    Lro,
    /// `rxvlan`: received tags are taken out of the frame.
    RxVlan,
    /// `txvlan`: tags are put into sent frames by the device.
    TxVlan,
}

/// The offloads that are on. One that the driver lacks counts as off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    pub gro: bool,
    pub tso: bool,
    pub tx_csum: bool,
    pub lro: bool,
    pub rx_vlan: bool,
    pub tx_vlan: bool,
}

/// The ethtool interface of the namespace that the opening thread was in.
#[derive(Clone, Debug)]
pub struct Ethtool(Arc<OwnedFd>);

// include/uapi/linux/ethtool.h
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const FLAG_TX_VLAN: u32 = 1 << 7;
const FLAG_RX_VLAN: u32 = 1 << 8;
const FLAG_LRO: u32 = 1 << 15;

/// struct ethtool_value
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// struct ethtool_drvinfo
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// How a feature is reached: by a command of its own, or as a bit of the common flags.
enum Access {
    Own { get: u32, set: u32 },
    Flag(u32),
}

impl Feature {
    fn access(self) -> Access {
        match self {
            Self::TxCsum => Access::Own { get: 0x16, set: 0x17 },
            Self::Tso => Access::Own { get: 0x1e, set: 0x1f },
            Self::Gro => Access::Own { get: 0x2b, set: 0x2c },
            Self::TxVlan => Access::Flag(FLAG_TX_VLAN),
            Self::RxVlan => Access::Flag(FLAG_RX_VLAN),
            Self::Lro => Access::Flag(FLAG_LRO),
        }
    }

    /// The short name that `ethtool -K` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gro => "gro",
            Self::Tso => "tso",
            Self::TxCsum => "tx",
            Self::Lro => "lro",
            Self::RxVlan => "rxvlan",
            Self::TxVlan => "txvlan",
        }
    }
}

impl Ethtool {
    /// Opens it in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        // Any socket takes these requests (sock_ioctl, net/socket.c): one that cannot reach a network needs no permission to.
        // SAFETY: socket() takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(Refused::last("open a socket for ethtool").into());
        }
        // SAFETY: the call above has just returned this descriptor, and nothing else owns it.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// The driver's name, `None` for an interface that tells none or is gone.
    pub fn driver(&self, ifname: &str) -> Option<String> {
        let mut info = DriverInfo { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
        self.call(ifname, &mut info).ok()?;
        let name = info.driver.split(|&byte| byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
    }

    /// The name of the interface with that index.
    pub fn name_of(&self, ifindex: u32) -> Result<String> {
        // SAFETY: ifreq is plain data, for which all zeroes is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = ifindex.cast_signed();
        // SAFETY: SIOCGIFNAME reads and writes one ifreq; `request` is one and outlives the call.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFNAME as libc::Ioctl, &raw mut request) } < 0
        {
            return Err(Refused::last(format!("look up interface {ifindex}")).into());
        }
        let bytes = request.ifr_name.iter().map(|&c| c.cast_unsigned()).take_while(|&byte| byte != 0);
        Ok(String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned())
    }

    /// Is the offload on?
    pub fn get(&self, ifname: &str, feature: Feature) -> Result<bool> {
        let what = || format!(r#"read {} of "{ifname}""#, feature.as_str());
        let (command, mask) = match feature.access() {
            Access::Own { get, .. } => (get, u32::MAX),
            Access::Flag(flag) => (GET_FLAGS, flag),
        };
        match self.value(ifname, command, 0) {
            Ok(value) => Ok(value & mask != 0),
            Err(libc::EOPNOTSUPP) => Ok(false),
            Err(errno) => Err(Refused::new(what(), errno).into()),
        }
    }

    /// All of them.
    pub fn features(&self, ifname: &str) -> Result<Features> {
        Ok(Features {
            gro: self.get(ifname, Feature::Gro)?,
            tso: self.get(ifname, Feature::Tso)?,
            tx_csum: self.get(ifname, Feature::TxCsum)?,
            lro: self.get(ifname, Feature::Lro)?,
            rx_vlan: self.get(ifname, Feature::RxVlan)?,
            tx_vlan: self.get(ifname, Feature::TxVlan)?,
        })
    }

    /// Switches an offload and reads it back: the kernel takes some wishes without fulfilling them. Errors: the driver
    /// has it fixed, or it did not change.
    pub fn set(&self, ifname: &str, feature: Feature, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let what = format!(r#"ethtool -K "{ifname}" {} {state}"#, feature.as_str());
        let refused = |errno| Refused::new(what.as_str(), errno);
        if self.get(ifname, feature)? == on {
            return Ok(());
        }
        let (command, data) = match feature.access() {
            Access::Own { set, .. } => (set, u32::from(on)),
            Access::Flag(flag) => {
                let now = self.value(ifname, GET_FLAGS, 0).map_err(refused)?;
                (SET_FLAGS, if on { now | flag } else { now & !flag })
            }
        };
        self.value(ifname, command, data).map_err(refused)?;
        if self.get(ifname, feature)? != on {
            bail!(
                "{what}: accepted, yet unchanged: the driver or another offload holds it (`ethtool -k` shows it)"
            );
        }
        Ok(())
    }

    fn value(&self, ifname: &str, command: u32, data: u32) -> Result<u32, i32> {
        let mut value = Value { command, data };
        self.call(ifname, &mut value)?;
        Ok(value.data)
    }

    /// Errors: a positive errno.
    fn call<T: Command>(&self, ifname: &str, command: &mut T) -> Result<(), i32> {
        if ifname.len() >= libc::IFNAMSIZ {
            return Err(libc::ENODEV);
        }
        // SAFETY: ifreq is plain data, for which all zeroes is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut *command).cast();
        const SIOCETHTOOL: libc::Ioctl = 0x8946;
        // SAFETY: SIOCETHTOOL reads one ifreq and, through ifr_data, reads and writes the structure that the command in
        // its first word stands for. `Command` is implemented for those alone; both outlive the call.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
            return Err(errno::last());
        }
        Ok(())
    }
}

/// # Safety
/// The type begins with a command word of linux/ethtool.h and is at least as long as what the kernel writes for every
/// command that this file puts there.
unsafe trait Command {}
// SAFETY: struct ethtool_value, used with the commands that take one.
unsafe impl Command for Value {}
// SAFETY: 196 bytes, struct ethtool_drvinfo, used with ETHTOOL_GDRVINFO.
unsafe impl Command for DriverInfo {}
const _: () = assert!(size_of::<DriverInfo>() == 196);
