//! Which capabilities does a command need, and which does it give up once it has had what they are for?
//!
//! Capabilities are a thread's: what is given up here is given up for the calling thread and those that it starts.

use anyhow::{Context as _, Result, bail};
use aya::util::KernelVersion;
use caps::{CapSet, Capability, CapsHashSet};

/// What changing a switch takes. Without CAP_PERFMON the verifier adds speculation barriers, for which the programs have
/// no room.
const CHANGE: [Capability; 3] = [Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON, Capability::CAP_BPF];

/// What a controller has in force: to attach ports whose interface is back, and to read and write maps.
const STAY: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF];

/// What it keeps in reserve: to find the namespace of such a port's far end by the processes in it, and to enter it; to
/// load programs, if a command that did was killed; to mount a bpffs that somebody has unmounted.
const RESERVE: [Capability; 3] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE, Capability::CAP_PERFMON];

/// What finding and entering a far end's namespace takes.
const LOOK: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];

/// Up to here the sysctl unprivileged_bpf_disabled forbids reading pinned maps too (c8644cd0efe7, Linux 5.19).
const READING_IS_FREE: KernelVersion = KernelVersion::new(5, 19, 0);

/// Fails early and in plain words where the kernel would say EPERM somewhere on the way.
pub fn may_change() -> Result<()> {
    let effective = caps::read(None, CapSet::Effective).context("read this process's capabilities")?;
    if CHANGE.iter().all(|cap| effective.contains(cap)) {
        return Ok(());
    }
    bail!(
        "change a switch: not permitted without CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run as root (sudo vswitch ...)"
    )
}

/// For a command that only reads, once its switch is open: it gives up everything.
pub(crate) fn only_read() -> Result<()> {
    give_up_all_but(&reading(), &CapsHashSet::new())
}

/// For a command that reads, and looks at what is outside the maps too: at far ends, and in which namespaces they are.
pub(crate) fn only_look() -> Result<()> {
    give_up_all_but(&reading(), &LOOK.into_iter().collect())
}

fn reading() -> CapsHashSet {
    let free = KernelVersion::current().is_ok_and(|version| version >= READING_IS_FREE);
    let kept = if free { None } else { Some(Capability::CAP_BPF) };
    kept.into_iter().collect()
}

/// For a controller, once its switch is as it shall be.
pub(crate) fn only_follow() -> Result<()> {
    give_up_all_but(&STAY.into_iter().collect(), &RESERVE.into_iter().collect())
}

/// Does what takes more than the thread has in force, with what it has in reserve.
pub(crate) fn with_reserve<T>(work: impl FnOnce() -> T) -> T {
    let raise = |cap: &&Capability| {
        caps::has_cap(None, CapSet::Permitted, **cap).unwrap_or(false)
            && !caps::has_cap(None, CapSet::Effective, **cap).unwrap_or(true)
            && caps::raise(None, CapSet::Effective, **cap).is_ok()
    };
    let raised: Vec<_> = RESERVE.iter().filter(raise).collect();
    let done = work();
    for cap in raised {
        // Lowering what is there cannot fail.
        let _lowered = caps::drop(None, CapSet::Effective, *cap);
    }
    done
}

/// Leaves, of what the thread has, `effective` in force and `reserve` permitted. No program that it starts gets more.
fn give_up_all_but(effective: &CapsHashSet, reserve: &CapsHashSet) -> Result<()> {
    let keep = || -> Result<(), caps::errors::CapsError> {
        let had = caps::read(None, CapSet::Permitted)?;
        let permitted: CapsHashSet = had.intersection(&(effective | reserve)).copied().collect();
        caps::set(None, CapSet::Effective, &permitted.intersection(effective).copied().collect())?;
        caps::set(None, CapSet::Permitted, &permitted)
    };
    keep().context("give up capabilities")?;
    // SAFETY: this prctl takes no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error()).context("give up new privileges");
    }
    Ok(())
}
