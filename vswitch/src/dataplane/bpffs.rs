//! Where is the BPF file system? Where everybody expects it, and mounted if it is not.

use std::{ffi::CString, io};

use anyhow::{Result, bail};

use crate::privileges::with_reserve;

/// Where the BPF file system is expected, and mounted if it is not.
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// Mounts bpffs where it is expected, unless it is there.
pub(super) fn mount() -> Result<()> {
    const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;
    let path = CString::new(BPFFS)?;
    // SAFETY: all-zero bytes are a valid statfs: it consists of integers.
    let mut statfs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is zero-terminated and `statfs` is writable; both outlive the call.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut statfs) } == 0 && statfs.f_type == BPF_FS_MAGIC {
        return Ok(());
    }
    let done = with_reserve(|| {
        // SAFETY: all strings are zero-terminated and outlive the call; bpf takes no further data.
        unsafe { libc::mount(c"bpf".as_ptr(), path.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) }
    });
    if done != 0 {
        bail!("{}", cannot_mount(&io::Error::last_os_error()));
    }
    Ok(())
}

fn cannot_mount(err: &io::Error) -> String {
    let (cause, remedy) = match err.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            ("may not be mounted by this process".to_owned(), format!("as root: mount -t bpf bpf {BPFFS}"))
        }
        Some(libc::ENOENT) => {
            (format!("{BPFFS} does not exist"), "mount -t sysfs sysfs /sys, in a kernel with BPF".to_owned())
        }
        Some(libc::ENODEV) => {
            ("the kernel has none".to_owned(), "boot one with CONFIG_BPF_SYSCALL".to_owned())
        }
        Some(_) | None => (format!("mounting failed ({err})"), format!("mount -t bpf bpf {BPFFS}")),
    };
    format!("{BPFFS}: the BPF file system is not mounted, and {cause}: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_without_a_bpf_file_system() {
        let says = |errno| cannot_mount(&io::Error::from_raw_os_error(errno));
        assert_eq!(
            says(libc::EPERM),
            "/sys/fs/bpf: the BPF file system is not mounted, and may not be mounted by this process: as root: mount -t bpf bpf /sys/fs/bpf"
        );
        assert_eq!(
            says(libc::ENODEV),
            "/sys/fs/bpf: the BPF file system is not mounted, and the kernel has none: boot one with CONFIG_BPF_SYSCALL"
        );
        assert!(says(libc::ENOENT).contains("/sys/fs/bpf does not exist: mount -t sysfs"));
    }
}
