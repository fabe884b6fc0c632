//! Which texts may name an interface, a namespace or a switch?

/// Bytes of an interface's name at most: IFNAMSIZ without the terminating zero.
pub const MAX_IFNAME: usize = libc::IFNAMSIZ - 1;

/// Bytes of a switch's name at most.
pub const MAX_SWITCH_NAME: usize = 32;

/// Bytes of a namespace's name or path at most: what a port's record in the kernel holds, zero-terminated.
pub const MAX_NETNS: usize = 63;

/// The kernel's `dev_valid_name`, and no `%`, which it replaces by a number. The error is cause and remedy.
pub fn check_ifname(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the interface's name is empty; give one".to_owned());
    }
    if name.len() > MAX_IFNAME {
        let len = name.len();
        return Err(format!(
            "{name:?} has {len} bytes, an interface's name {MAX_IFNAME} at most; shorten it"
        ));
    }
    if matches!(name, "." | "..") {
        return Err(format!("{name:?} cannot be an interface's name; choose another"));
    }
    // The kernel looks at bytes: 0xa0, the blank of Latin-1, is refused inside UTF-8 too.
    let blank = |c: char| {
        c.is_whitespace() || c.is_control() || c.encode_utf8(&mut [0; 4]).bytes().any(|b| b == 0xa0)
    };
    match name.chars().find(|&c| blank(c) || matches!(c, '/' | ':' | '%')) {
        Some(c) => Err(format!("{c:?} cannot be in an interface's name; choose another")),
        None => Ok(()),
    }
}

/// Names a directory under the pins and a lock file. The error is cause and remedy.
pub fn check_switch_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the switch's name is empty; give one or leave it out".to_owned());
    }
    if name.len() > MAX_SWITCH_NAME {
        let len = name.len();
        return Err(format!(
            "{name:?} has {len} bytes, a switch's name {MAX_SWITCH_NAME} at most; shorten it"
        ));
    }
    // The name is a directory's in bpffs, where the kernel keeps dots for itself.
    match name.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
        Some(c) => Err(format!("{c:?} cannot be in a switch's name; use letters, digits, '-' and '_'")),
        None => Ok(()),
    }
}

/// A name as `ip netns` takes it, or an absolute path. The error is cause and remedy.
pub fn check_netns(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the namespace's name is empty; give one that `ip netns` shows".to_owned());
    }
    if name.len() > MAX_NETNS {
        let len = name.len();
        return Err(format!(
            "{name:?} has {len} bytes, a namespace's name or path {MAX_NETNS} at most; shorten it"
        ));
    }
    if matches!(name, "." | "..") || (name.contains('/') && !name.starts_with('/')) {
        return Err(format!("{name:?} is not a namespace's name; write that or an absolute path"));
    }
    match name.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("{c:?} cannot be in a namespace's name; choose another")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(check: fn(&str) -> Result<(), String>, name: &str, what: &str) {
        assert_eq!(check(name), Err(what.to_owned()));
    }

    #[test]
    fn interfaces() {
        for good in ["eth0", "enp0s31f6", "a.5", "0123456789abcde", "…", "...", "-", "@x\""] {
            assert_eq!(check_ifname(good), Ok(()), "{good}");
        }
        refuses(check_ifname, "", "the interface's name is empty; give one");
        refuses(
            check_ifname,
            "0123456789abcdef",
            r#""0123456789abcdef" has 16 bytes, an interface's name 15 at most; shorten it"#,
        );
        refuses(check_ifname, "..", r#"".." cannot be an interface's name; choose another"#);
        refuses(check_ifname, "a/b", "'/' cannot be in an interface's name; choose another");
        refuses(check_ifname, "a:1", "':' cannot be in an interface's name; choose another");
        refuses(check_ifname, "a b", "' ' cannot be in an interface's name; choose another");
        refuses(check_ifname, "a\nb", r"'\n' cannot be in an interface's name; choose another");
        refuses(check_ifname, "web%d", "'%' cannot be in an interface's name; choose another");
        refuses(check_ifname, "à", "'à' cannot be in an interface's name; choose another");
    }

    #[test]
    fn switches() {
        for good in ["vs0", "my-switch_2b", &"a".repeat(32)] {
            assert_eq!(check_switch_name(good), Ok(()), "{good}");
        }
        refuses(check_switch_name, "", "the switch's name is empty; give one or leave it out");
        refuses(
            check_switch_name,
            &"a".repeat(33),
            r#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" has 33 bytes, a switch's name 32 at most; shorten it"#,
        );
        for (name, bad) in [("..", '.'), ("a.b", '.'), ("a/b", '/'), ("a b", ' ')] {
            let what = format!("{bad:?} cannot be in a switch's name; use letters, digits, '-' and '_'");
            refuses(check_switch_name, name, &what);
        }
        assert!(check_switch_name("é").is_err());
    }

    #[test]
    fn namespaces() {
        for good in ["web", "/run/netns/web", "/proc/1/ns/net", "a b"] {
            assert_eq!(check_netns(good), Ok(()), "{good}");
        }
        refuses(check_netns, "", "the namespace's name is empty; give one that `ip netns` shows");
        refuses(check_netns, "..", r#"".." is not a namespace's name; write that or an absolute path"#);
        refuses(check_netns, "a/b", r#""a/b" is not a namespace's name; write that or an absolute path"#);
        refuses(check_netns, "a\0b", r"'\0' cannot be in a namespace's name; choose another");
        let long = "n".repeat(64);
        let what = format!("{long:?} has 64 bytes, a namespace's name or path 63 at most; shorten it");
        refuses(check_netns, &long, &what);
    }
}
