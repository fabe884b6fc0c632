//! How is a program attached to an interface, replaced and detached? Pinned links; below kernel 6.6 a clsact filter for tc.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    programs::{
        LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
        xdp::XdpLink,
    },
    sys::SyscallError,
    util::KernelVersion,
};
use aya_obj::programs::XdpAttachType;

use super::{
    pins::{Pins, gone},
    sys,
};
use crate::net::words;

/// A place where one of the switch's programs sees a port's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// What arrives, in the driver.
    Xdp,
    /// What arrives, as generic XDP.
    XdpGeneric,
    /// What arrives, at tc.
    In,
    /// What the host sends.
    Out,
}

/// Where our clsact filters are found again: before those that are given no priority.
pub(crate) const CLSACT_PRIORITY: u16 = 1;
pub(crate) const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0x5653);

impl Hook {
    /// The name of its program in the object, and of the program's pin.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Xdp | Self::XdpGeneric => "vswitch_xdp",
            Self::In => "vswitch_in",
            Self::Out => "vswitch_out",
        }
    }

    /// In the name of a link's pin, after the slot.
    const fn word(self) -> &'static str {
        match self {
            Self::Xdp | Self::XdpGeneric => "xdp",
            Self::In => "in",
            Self::Out => "out",
        }
    }

    pub(super) fn pin(self, pins: &Pins, slot: u16) -> PathBuf {
        pins.links().join(format!("{slot}-{}", self.word()))
    }

    fn tc(self) -> Option<TcAttachType> {
        match self {
            Self::Xdp | Self::XdpGeneric => None,
            Self::In => Some(TcAttachType::Ingress),
            Self::Out => Some(TcAttachType::Egress),
        }
    }
}

/// Attaches the hook's pinned program to an interface of the calling thread's namespace, and pins the link.
pub(crate) fn attach(pins: &Pins, slot: u16, ifname: &str, hook: Hook) -> Result<()> {
    let program = pins.program(hook.program());
    let attached = match hook.tc() {
        Some(direction) => attach_tc(&program, ifname, direction),
        None => attach_xdp(&program, ifname, hook).map(Some),
    };
    let Some(link) = attached? else { return Ok(()) };
    let pin = hook.pin(pins, slot);
    // A crash may have left a link of the slot's last owner.
    remove(&pin)?;
    link.pin(&pin).with_context(|| format!(r#""{ifname}": pin the link at {}"#, pin.display()))?;
    Ok(())
}

/// Detaches a hook from a slot; that it is not attached is no error. `ifname` is needed below kernel 6.6 alone.
pub(crate) fn detach(pins: &Pins, slot: u16, ifname: Option<&str>, hook: Hook) -> Result<()> {
    if let (Some(ifname), false) = (ifname, tcx()) {
        unfilter(ifname, hook)?;
    }
    remove(&hook.pin(pins, slot))
}

/// Removes the clsact filter of a hook; that there is none is no error.
pub(crate) fn unfilter(ifname: &str, hook: Hook) -> Result<()> {
    let Some(filter) = hook.tc().and_then(|direction| filter(ifname, direction)) else { return Ok(()) };
    match aya::programs::links::Link::detach(filter) {
        Err(err) if errno(&err).is_some_and(|errno| NO_FILTER.contains(&errno)) => Ok(()),
        done => done.with_context(|| format!(r#""{ifname}": detach tc"#)),
    }
}

/// Where a hook's clsact filter is, if there is one; `None` if there is no interface of that name.
fn filter(ifname: &str, direction: TcAttachType) -> Option<SchedClassifierLink> {
    SchedClassifierLink::attached(ifname, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None).ok()
}

/// How the kernel says that there is no such filter, no clsact, no interface.
const NO_FILTER: [i32; 3] = [libc::ENOENT, libc::EINVAL, libc::ENODEV];

/// Whether the pin of a hook's link is there.
pub(crate) fn is_attached(pins: &Pins, slot: u16, hook: Hook) -> bool {
    hook.pin(pins, slot).exists()
}

/// The interface that a hook's link is attached to by its pin; 0: none, or there is no pin. `None`: this process may not
/// know.
pub(crate) fn attached_to(pins: &Pins, slot: u16, hook: Hook) -> Option<u32> {
    match sys::open_pin(&hook.pin(pins, slot)).and_then(sys::attached_to) {
        Ok(ifindex) => Some(ifindex),
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => None,
        Err(_) => Some(0),
    }
}

/// The number of the hook's pinned program. `None`: this process may not know, or there is none.
pub(crate) fn program_id(pins: &Pins, hook: Hook) -> Option<u32> {
    ProgramInfo::from_pin(pins.program(hook.program())).ok().map(|program| program.id())
}

/// Whether tc programs are attached as links (tcx, kernel 6.6).
pub(crate) fn tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn remove(pin: &PathBuf) -> Result<()> {
    // A link whose interface is gone cannot be detached and need not be.
    let _gone = sys::detach_link(pin);
    gone(fs::remove_file(pin), pin)
}

/// Puts the hook's pinned program in the place of the one that a slot runs, without a frame passing in between; returns
/// whether it was another. `ifname`, without which there is none to replace, is needed below kernel 6.6 alone.
pub(crate) fn follow(pins: &Pins, slot: u16, ifname: Option<&str>, hook: Hook) -> Result<bool> {
    let program = pins.program(hook.program());
    let pin = hook.pin(pins, slot);
    if !pin.exists() {
        let (Some(direction), Some(ifname), false) = (hook.tc(), ifname, tcx()) else { return Ok(false) };
        let Some(filter) = filter(ifname, direction) else { return Ok(false) };
        let mut program = SchedClassifier::from_pin(&program).context("open the tc program")?;
        // The kernel replaces a filter of the same priority and handle in one step.
        let id = match program.attach_to_link(filter) {
            Err(err) if errno(&err).is_some_and(|errno| NO_FILTER.contains(&errno)) => return Ok(false),
            done => done.map_err(|err| refused(ifname, "tc", &err))?,
        };
        // It belongs to the interface, as at first.
        std::mem::forget(program.take_link(id)?);
        return Ok(true);
    }
    let link = FdLink::from(PinnedLink::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?);
    let runs = link.info().with_context(|| format!("look at {}", pin.display()))?.program_id();
    if runs == ProgramInfo::from_pin(&program).context("look at the pinned program")?.id() {
        return Ok(false);
    }
    update(link, &program, hook).with_context(|| format!("replace the program at {}", pin.display()))
}

/// Lets all pinned links run the pinned programs.
pub(super) fn follow_all(pins: &Pins) -> Result<()> {
    for (slot, hook, _) in pinned(pins) {
        follow(pins, slot, None, hook)?;
    }
    Ok(())
}

/// Pins the links of one set of pins in another too.
pub(super) fn share(from: &Pins, to: &Pins) -> Result<()> {
    for (slot, hook, pin) in pinned(from) {
        let link =
            FdLink::from(PinnedLink::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?);
        let pin = hook.pin(to, slot);
        link.pin(&pin).with_context(|| format!("pin the link at {}", pin.display()))?;
    }
    Ok(())
}

/// The kernel's numbers of the pinned links.
pub(super) fn ids(pins: &Pins) -> Result<BTreeSet<u32>> {
    let id = |pin: &Path| {
        let link =
            FdLink::from(PinnedLink::from_pin(pin).with_context(|| format!("open {}", pin.display()))?);
        Ok(link.info().with_context(|| format!("look at {}", pin.display()))?.id())
    };
    pinned(pins).iter().map(|(_, _, pin)| id(pin)).collect()
}

/// The pinned links: slot, hook, path.
fn pinned(pins: &Pins) -> Vec<(u16, Hook, PathBuf)> {
    let Ok(entries) = fs::read_dir(pins.links()) else { return Vec::new() };
    let links = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let (slot, hook) = name.to_str()?.split_once('-')?;
        let slot = slot.parse().ok()?;
        let hook = [Hook::Xdp, Hook::In, Hook::Out].into_iter().find(|known| known.word() == hook)?;
        Some((slot, hook, entry.path()))
    });
    links.collect()
}

/// Makes a link run a pinned program. Returns whether its interface is still there.
fn update(link: FdLink, program: &Path, hook: Hook) -> Result<bool> {
    // The returned links are closed when the programs are dropped; the pins keep them.
    let updated = if hook.tc().is_some() {
        let mut program = SchedClassifier::from_pin(program).context("open the tc program")?;
        program.attach_to_link(link.try_into()?).map(|_id| ())
    } else {
        let mut program = Xdp::from_pin(program, XdpAttachType::Interface).context("open the XDP program")?;
        program.attach_to_link(link.try_into()?).map(|_id| ())
    };
    match updated {
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(libc::ENOLINK) =>
        {
            Ok(false)
        }
        done => done.map(|()| true).map_err(Into::into),
    }
}

fn attach_xdp(program: &PathBuf, ifname: &str, hook: Hook) -> Result<FdLink> {
    let mode = if hook == Hook::XdpGeneric { XdpMode::Skb } else { XdpMode::Driver };
    let mut program = Xdp::from_pin(program, XdpAttachType::Interface).context("open the XDP program")?;
    let id = program.attach(ifname, mode).map_err(|err| refused(ifname, "XDP", &err))?;
    let link: XdpLink = program.take_link(id)?;
    // aya falls back to netlink where no link can be made. There would be nothing to pin: dropping it detaches.
    FdLink::try_from(link).map_err(|_no_link| {
        anyhow!(r#""{ifname}": this kernel makes no XDP links (5.9 and later do): use --datapath tc"#)
    })
}

/// `None` if the program stays attached without a link.
fn attach_tc(program: &PathBuf, ifname: &str, direction: TcAttachType) -> Result<Option<FdLink>> {
    let mut program = SchedClassifier::from_pin(program).context("open the tc program")?;
    let options = if tcx() {
        TcAttachOptions::TcxOrder(LinkOrder::first())
    } else {
        add_clsact(ifname)?;
        TcAttachOptions::Netlink(NlOptions {
            priority: CLSACT_PRIORITY,
            handle: CLSACT_HANDLE,
            classid: None,
        })
    };
    let id =
        program.attach_with_options(ifname, direction, options).map_err(|err| refused(ifname, "tc", &err))?;
    let link = program.take_link(id)?;
    if tcx() {
        return Ok(Some(FdLink::try_from(link)?));
    }
    // The filter belongs to the interface from now on; `detach` finds it by priority and handle.
    std::mem::forget(link);
    Ok(None)
}

/// Makes room for clsact filters; that there is some is no error.
fn add_clsact(ifname: &str) -> Result<()> {
    match qdisc_add_clsact(ifname) {
        Err(TcError::NetlinkError(err)) if err.raw_os_error() != Some(libc::EEXIST) => bail!(
            r#""{ifname}": add the clsact qdisc: {err}: unload other qdiscs at ingress first (tc qdisc show dev {ifname})"#
        ),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What the kernel's refusal means for the user.
fn refused(ifname: &str, what: &str, err: &ProgramError) -> anyhow::Error {
    anyhow!(
        r#""{ifname}": attach {what}: {}"#,
        meaning(ifname, what, errno(err)).unwrap_or_else(|| err.to_string())
    )
}

fn errno(err: &ProgramError) -> Option<i32> {
    if let ProgramError::SyscallError(SyscallError { io_error, .. }) = err {
        io_error.raw_os_error()
    } else if let ProgramError::TcError(TcError::NetlinkError(err)) | ProgramError::NetlinkError(err) = err {
        err.raw_os_error()
    } else {
        None
    }
}

fn meaning(ifname: &str, what: &str, errno: Option<i32>) -> Option<String> {
    let xdp = what == "XDP";
    Some(match errno? {
        libc::EBUSY | libc::EEXIST => {
            format!("another program is attached there: see `bpftool net show dev {ifname}`")
        }
        libc::EOPNOTSUPP if xdp => "its driver has no native XDP: use --datapath tc".to_owned(),
        libc::ERANGE | libc::EINVAL if xdp => {
            "its driver refuses (often for its MTU or number of queues): see `dmesg`, or use --datapath tc"
                .to_owned()
        }
        libc::ENODEV => "the interface is gone: see `ip link`".to_owned(),
        libc::EPERM => "not permitted: needs CAP_NET_ADMIN and CAP_BPF: run as root".to_owned(),
        libc::ENOMEM => "the kernel is out of memory: free some and try again".to_owned(),
        errno => format!("the kernel refuses ({}): see `dmesg`", words(errno)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_words() {
        let says = |what, errno| meaning("web0", what, Some(errno)).unwrap();
        assert_eq!(says("XDP", libc::EOPNOTSUPP), "its driver has no native XDP: use --datapath tc");
        assert_eq!(
            says("tc", libc::EINVAL),
            "the kernel refuses (the kernel rejects this value): see `dmesg`"
        );
        assert!(says("tc", libc::EBUSY).ends_with("see `bpftool net show dev web0`"));
        assert!(!says("tc", libc::EOPNOTSUPP).contains("--datapath"), "there is no other way left");
    }
}
