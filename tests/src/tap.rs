//! The guest's side of a tap: frames with their virtio-net headers, as a virtual machine monitor reads and writes them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    mem,
    os::fd::AsRawFd as _,
    os::unix::fs::OpenOptionsExt as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{patience::patience, require::kernel, topo::Netns};

/// `struct virtio_net_hdr`, of the length that a tap has unless asked otherwise.
pub const VNET_LEN: usize = 10;
/// In its first byte: the checksum is still to be made, over what begins at bytes 6..8, to where bytes 8..10 say.
pub const NEEDS_CSUM: u8 = 1;

/// Frames whose checksum is still to be made (TUN_F_CSUM).
pub const CSUM: libc::c_uint = 1;
/// Super-frames of TCP and of UDP (TUN_F_TSO4, TUN_F_TSO6, and [`UDP_SEGMENTS`]).
pub const SEGMENTS: libc::c_uint = 0x02 | 0x04 | UDP_SEGMENTS;
/// TUN_F_USO4 and TUN_F_USO6, of which a tap before Linux 6.2 knows nothing.
const UDP_SEGMENTS: libc::c_uint = 0x20 | 0x40;

const LARGEST: usize = 1 << 16;

/// An open tap.
pub struct Tap {
    file: File,
    done: AtomicBool,
}

impl Tap {
    /// Makes it if it is not there; such a one goes when it is closed.
    pub fn open(netns: &Netns, ifname: &str) -> Self {
        let file = netns
            .run(|| attach(ifname))
            .unwrap_or_else(|err| panic!("open the tap {ifname} in {}: {err}", netns.name()));
        Self { file, done: AtomicBool::new(false) }
    }

    /// What whoever has the tap open takes: 0, [`CSUM`], or with it [`SEGMENTS`].
    pub fn offload(&self, flags: libc::c_uint) {
        let set = |flags| {
            let flags = libc::c_ulong::from(flags);
            // SAFETY: TUNSETOFFLOAD takes an integer, not a pointer; the file is open.
            unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD as libc::Ioctl, flags) }
        };
        let mut result = set(flags);
        if result != 0 && flags & UDP_SEGMENTS != 0 && kernel() < (6, 2) {
            result = set(flags & !UDP_SEGMENTS);
        }
        assert_eq!(result, 0, "TUNSETOFFLOAD: {}", io::Error::last_os_error());
    }

    pub fn send(&self, header: &[u8; VNET_LEN], frame: &[u8]) {
        let bytes = [header.as_slice(), frame].concat();
        assert_eq!((&self.file).write(&bytes).expect("write to the tap"), bytes.len());
    }

    /// The next frame that is `wanted`, with its header.
    pub fn receive(&self, within: Duration, wanted: impl Fn(&[u8]) -> bool) -> ([u8; VNET_LEN], Vec<u8>) {
        let within = patience(within);
        let deadline = Instant::now() + within;
        loop {
            if let Some((header, frame)) = self.read()
                && wanted(&frame)
            {
                return (header, frame);
            }
            assert!(Instant::now() < deadline, "the tap has no such frame within {within:?}");
        }
    }

    /// Answers frames until [`Tap::stop`], or until a test that fails has had its time.
    pub fn serve(&self, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        let deadline = Instant::now() + patience(Duration::from_secs(30));
        while !self.done.load(Ordering::Relaxed) && Instant::now() < deadline {
            if let Some(reply) = self.read().and_then(|(_, frame)| answer(&frame)) {
                self.send(&[0; VNET_LEN], &reply);
            }
        }
    }

    /// Hands on all that comes, headers and all, until [`Tap::stop`].
    pub fn pump(&self, to: &Self) {
        let mut bytes = vec![0; LARGEST + VNET_LEN];
        let mut ready = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        while !self.done.load(Ordering::Relaxed) {
            match (&self.file).read(&mut bytes) {
                // A station whose interface is down takes nothing; nor does a wire wait.
                Ok(len) => drop((&to.file).write(&bytes[..len])),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    // SAFETY: one live pollfd.
                    unsafe { libc::poll(&raw mut ready, 1, 50) };
                }
                Err(err) => panic!("read from the tap: {err}"),
            }
        }
    }

    pub fn stop(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// Without waiting for long.
    fn read(&self) -> Option<([u8; VNET_LEN], Vec<u8>)> {
        let mut bytes = vec![0; LARGEST];
        match (&self.file).read(&mut bytes) {
            Ok(len) => {
                bytes.truncate(len);
                let frame = bytes.split_off(VNET_LEN);
                Some((bytes.try_into().expect("the header's length"), frame))
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
                None
            }
            Err(err) => panic!("read from the tap: {err}"),
        }
    }
}

fn attach(ifname: &str) -> io::Result<File> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun")?;
    // SAFETY: a plain C struct, for which all zeroes is a valid value.
    let mut request = unsafe { mem::zeroed::<libc::ifreq>() };
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq; `request` is one and outlives the call; the file is open.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
