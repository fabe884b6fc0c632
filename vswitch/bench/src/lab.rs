//! Where does a contestant run? Three namespaces of the bench's own: a sender's, the switch's, the receivers'.

use std::{
    fs,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoVeth},
};

use vswitch_ebpf::stream::{RECEIVING, SENDING, station};

use super::nic::{Lent, Pair, carrier};
use vswitch::net::{Ethtool, Feature, Netns, Refused};

pub(super) const NAMESPACES: &str = "/run/netns";
/// What every namespace and switch of a bench is called by, before the number of its process.
pub(super) const PREFIX: &str = "vsb";

/// A namespace with a name, deleted on drop.
pub(super) struct Room {
    path: PathBuf,
    pub(super) netns: Netns,
}

/// Cables between the rooms of one contestant.
pub(super) struct Lab {
    /// The user's interfaces, if cable 0 is theirs; given back before the rooms go.
    lent: Option<Lent>,
    /// The sender: far end 0.
    pub(super) sender: Room,
    /// The switch: the near ends, `p0`, `p1`, ...
    pub(super) switch: Room,
    /// The receivers: far ends 1 and up.
    pub(super) receiver: Room,
    /// Names the rooms, and the switch if it is ours.
    pub(super) name: String,
}

/// The switch's end of a cable.
pub(super) fn port(number: u32) -> String {
    format!("p{number}")
}

/// The other end.
pub(super) fn far(number: u32) -> String {
    format!("f{number}")
}

/// Index of the switch's end of a cable; those of the far ends are the kernel's choice and small. Where both happen to be
/// the same, the kernel is slow to notice the carrier.
pub(super) fn ifindex(number: u32) -> u32 {
    10_000 + number
}

/// The IP address of a station.
pub(super) fn address(number: u32) -> Ipv4Addr {
    let [_, _, high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(10, 199, high, low)
}

/// Its Ethernet address.
pub(super) fn mac(number: u32) -> [u8; 6] {
    if number == 0 { station(SENDING, 0) } else { station(RECEIVING, number - 1) }
}

impl Room {
    pub(super) fn new(name: &str) -> Result<Self> {
        fs::create_dir_all(NAMESPACES).with_context(|| format!("create {NAMESPACES}"))?;
        let path = Path::new(NAMESPACES).join(name);
        fs::write(&path, "").with_context(|| format!("create {}", path.display()))?;
        let made = thread::scope(|scope| scope.spawn(|| mount_new(&path)).join());
        match made {
            Ok(made) => made?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        let room = Self { netns: Netns::open(name)?, path };
        room.netns.run_in(|| {
            // What an interface says by itself when it comes up is nobody's frame.
            for which in ["all", "default"] {
                let _absent = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
            }
        })?;
        Ok(room)
    }

    /// Runs requests for interfaces inside.
    pub(super) fn links<T: Send, F>(&self, work: impl FnOnce(Handle) -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.netns.run_async_in(|| async {
            let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
            tokio::spawn(connection);
            work(handle).await
        })?
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Takes a namespace's name away; with its last user it is gone.
pub(super) fn remove(path: &Path) {
    if let Ok(text) = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()) {
        // SAFETY: a terminated string that outlives the call.
        unsafe { libc::umount2(text.as_ptr(), libc::MNT_DETACH) };
    }
    let _gone = fs::remove_file(path);
}

/// Makes a namespace for this thread, which ends then, and mounts it at `path`.
fn mount_new(path: &Path) -> Result<()> {
    let target = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).context("a path without NUL")?;
    // SAFETY: takes no pointers; moves this thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(Refused::last("make a network namespace").remedy("run as root").into());
    }
    let source = c"/proc/thread-self/ns/net";
    // SAFETY: terminated strings that outlive the call; a bind mount reads no other arguments.
    let mounted = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null())
    };
    if mounted < 0 {
        return Err(Refused::last(format!("mount a network namespace at {}", path.display())).into());
    }
    Ok(())
}

impl Lab {
    /// Rooms, without cables.
    pub(super) fn new(name: &str) -> Result<Self> {
        let room = |label: &str| Room::new(&format!("{name}-{label}"));
        let (sender, switch, receiver) = (room("a")?, room("s")?, room("b")?);
        Ok(Self { lent: None, sender, switch, receiver, name: name.to_owned() })
    }

    /// Makes the user's interfaces cable 0, and adds cable 1.
    pub(super) fn lend(&mut self, pair: &Pair) -> Result<()> {
        self.lent = Some(Lent::take(pair, &self.sender, &self.switch)?);
        self.sender.links(|handle| async move {
            set_up(&handle, 0).await?;
            carrier(&handle, &far(0)).await
        })?;
        self.switch.links(|handle| async move { carrier(&handle, &port(0)).await })?;
        self.cable(1..2)
    }

    /// The room of a far end.
    pub(super) fn room(&self, number: u32) -> &Room {
        if number == 0 { &self.sender } else { &self.receiver }
    }

    /// Cables, up, with GRO on at every end: NAPI, without which XDP redirects into a veth vanish.
    pub(super) fn cable(&self, numbers: Range<u32>) -> Result<()> {
        let wanted = numbers.clone();
        self.switch.links(|handle| async move {
            for number in wanted {
                let peer = LinkUnspec::new_with_name(&far(number))
                    .address(mac(number).to_vec())
                    .setns_by_fd(self.room(number).netns.as_fd().as_raw_fd())
                    .build();
                let near = LinkVeth::new(&port(number), &far(number))
                    .index(ifindex(number))
                    .address(vec![0x02, 0x50, 0, 0, (number >> 8) as u8, number as u8])
                    .up()
                    .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
                handle.link().add(near.build()).execute().await.with_context(|| port(number))?;
            }
            Ok(())
        })?;
        let (first, rest) = (numbers.start..numbers.end.min(1), numbers.start.max(1)..numbers.end);
        for far_ends in [first, rest].into_iter().filter(|range| !range.is_empty()) {
            let room = self.room(far_ends.start);
            let wanted = far_ends.clone();
            room.links(|handle| async move {
                for number in wanted {
                    set_up(&handle, number).await?;
                }
                Ok(())
            })?;
            room.netns.run_in(|| gro_on(far_ends.map(far)))??;
        }
        self.switch.netns.run_in(|| gro_on(numbers.map(port)))?
    }
}

/// Sets a far end up; the first two are hosts.
pub(super) async fn set_up(handle: &Handle, number: u32) -> Result<()> {
    let name = far(number);
    let up = LinkUnspec::new_with_name(&name).up().build();
    handle.link().set(up).execute().await.with_context(|| format!("set up {name}"))?;
    if number < 2 {
        let index = index_of(handle, &name).await?;
        let address = IpAddr::V4(address(number));
        handle.address().add(index, address, 24).execute().await.context("add an address")?;
    }
    Ok(())
}

/// The index of an interface in the namespace of `handle`.
pub(super) async fn index_of(handle: &Handle, name: &str) -> Result<u32> {
    use futures_util::StreamExt as _;
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.next().await.with_context(|| format!(r#"interface "{name}": not found"#))?;
    Ok(link.with_context(|| format!(r#"look up "{name}""#))?.header.index)
}

pub(super) fn gro_on(names: impl Iterator<Item = String>) -> Result<()> {
    let ethtool = Ethtool::open()?;
    for name in names {
        ethtool.set(&name, Feature::Gro, true)?;
    }
    Ok(())
}
