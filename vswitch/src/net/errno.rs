//! How is a refusal of the kernel put into words: what failed, on which object, why, and what to do?

use std::{fmt, io};

/// The kernel said no. Displays as one line; `errno` lets a caller tell the cases apart (`err.downcast_ref::<Refused>()`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    what: String,
    errno: i32,
    kernel: Option<String>,
    remedy: Option<String>,
}

impl Refused {
    /// `what` says the action and its object, as in `set MTU of "eth0" to 9000`; `errno` is positive.
    pub fn new(what: impl Into<String>, errno: i32) -> Self {
        Self { what: what.into(), errno, kernel: None, remedy: None }
    }

    /// As [`Refused::new`], from the calling thread's `errno`.
    pub fn last(what: impl Into<String>) -> Self {
        Self::from_io(what, &io::Error::last_os_error())
    }

    /// As [`Refused::new`]; an error that is none of the kernel's counts as EIO.
    pub fn from_io(what: impl Into<String>, err: &io::Error) -> Self {
        Self::new(what, err.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Adds the kernel's own explanation (the extended acknowledgement of netlink).
    pub(crate) fn kernel(mut self, text: Option<String>) -> Self {
        self.kernel = text.filter(|text| !text.is_empty());
        self
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }

    /// The positive error number.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The process may not do it.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno, libc::EPERM | libc::EACCES)
    }

    /// The object does not exist (any more): for undoing and following, this is often no failure.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno, libc::ENODEV | libc::ENOENT | libc::ENXIO)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, words(self.errno))?;
        if let Some(kernel) = &self.kernel {
            write!(f, " (kernel: {kernel})")?;
        }
        match self.remedy.as_deref().or_else(|| remedy(self.errno)) {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

/// The calling thread's positive `errno`.
pub(super) fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The error number in words, without object and remedy.
pub(crate) fn words(errno: i32) -> String {
    match errno {
        libc::ENODEV | libc::ENXIO => "no such interface".into(),
        libc::ENOENT => "no such entry".into(),
        libc::EPERM | libc::EACCES => "not permitted".into(),
        libc::EEXIST => "exists already".into(),
        libc::EBUSY => "in use by something else".into(),
        libc::EOPNOTSUPP => "not supported by the driver or this kernel".into(),
        libc::EINVAL => "the kernel rejects this value".into(),
        libc::ERANGE => "out of the range that the driver accepts".into(),
        libc::EADDRNOTAVAIL => "not an address that an interface can have".into(),
        libc::ENOMEM | libc::ENOBUFS => "the kernel is out of memory or buffers".into(),
        libc::ETIMEDOUT => "no answer from the kernel".into(),
        // The library's text for the rest, without its " (os error 7)".
        other => {
            let text = io::Error::from_raw_os_error(other).to_string();
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    }
}

fn remedy(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EPERM | libc::EACCES => Some("run as root, or with CAP_NET_ADMIN"),
        libc::ENODEV => Some("`ip link` shows those of this network namespace"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_with_object_cause_and_remedy() {
        let plain = Refused::new(r#"set MTU of "x" to 9000"#, libc::EPERM);
        assert_eq!(
            plain.to_string(),
            r#"set MTU of "x" to 9000: not permitted: run as root, or with CAP_NET_ADMIN"#
        );
        let full = Refused::new("set", libc::EINVAL).kernel(Some("too big".into())).remedy("lower it");
        assert_eq!(full.to_string(), "set: the kernel rejects this value (kernel: too big): lower it");
    }

    #[test]
    fn no_error_number_shows_where_there_is_a_word() {
        for errno in [libc::ENODEV, libc::EPERM, libc::EEXIST, libc::EBUSY, libc::EOPNOTSUPP, libc::ENOSPC] {
            let text = Refused::new("x", errno).to_string();
            assert!(!text.contains("os error") && !text.contains(&errno.to_string()), "{errno}: {text}");
        }
    }
}
