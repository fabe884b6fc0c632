//! Where does a test run? Network namespaces and veth pairs that vanish with the test, also when it panics.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use crate::frame::{Mac, colons};

const DIR: &str = "/run/netns";
const PREFIX: &str = "vst-";

/// A network namespace with an entry under `/run/netns`, deleted on drop. IPv6 is off, so that an interface
/// coming up sends nothing and a test may assert every frame.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Named `vst-<pid>-<n>-<label>`: the pid tells the sweep whose it was, the label tells the reader.
    pub fn new(label: &str) -> Self {
        static SWEEP: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);

        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}-{label}", std::process::id());
        expect_success(Command::new("ip").args(["netns", "add", &name]), None);
        let netns = Self { name };
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        netns.ip("link set lo up");
        netns
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        Path::new(DIR).join(&self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace. A socket it returns stays in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(&self.path()).unwrap_or_else(|err| panic!("enter namespace {}: {err}", self.name));
                    work()
                })
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A command that will run inside. Not `ip netns exec`: that hides the bpffs where the switch is pinned.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// `ip <args>` inside; returns what it printed, panics with its stderr if it fails.
    pub fn ip(&self, args: &str) -> String {
        expect_success(self.command("ip").args(args.split_whitespace()), None)
    }

    /// Several `ip` commands in one process: a lab needs dozens, and a fork each is what would make it slow.
    pub fn ip_all<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) {
        let script = lines.into_iter().map(|line| format!("{}\n", line.as_ref())).collect::<String>();
        expect_success(self.command("ip").args(["-batch", "-"]), Some(&script));
    }

    /// Gives an interface another name. It is down meanwhile: before Linux 6.2 none that is up can be renamed.
    pub fn rename(&self, ifname: &str, to: &str) {
        self.ip_all([
            format!("link set {ifname} down"),
            format!("link set {ifname} name {to}"),
            format!("link set {to} up"),
        ]);
    }

    /// `bridge <args>` inside.
    pub fn bridge(&self, args: &str) -> String {
        expect_success(self.command("bridge").args(args.split_whitespace()), None)
    }

    pub fn sysctl(&self, path: &str, value: &str) {
        let file = Path::new("/proc/sys").join(path);
        self.run(|| std::fs::write(&file, value))
            .unwrap_or_else(|err| panic!("write {value} to {} in {}: {err}", file.display(), self.name));
    }

    /// The index of an interface, which sockets and BPF use instead of the name.
    pub fn ifindex(&self, ifname: &str) -> u32 {
        self.find_ifindex(ifname).unwrap_or_else(|| panic!("no interface {ifname} in {}", self.name))
    }

    pub fn find_ifindex(&self, ifname: &str) -> Option<u32> {
        let c_name = CString::new(ifname).unwrap();
        // SAFETY: c_name is a NUL-terminated string that outlives the call, which only reads it.
        let index = self.run(|| unsafe { libc::if_nametoindex(c_name.as_ptr()) });
        (index != 0).then_some(index)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    pub netns: &'a Netns,
    pub ifname: &'a str,
    pub mac: Mac,
}

/// Joins two namespaces by a veth pair and brings both ends up.
pub fn veth(a: End<'_>, b: End<'_>) {
    // Where both ends happen to have the same index, the kernel takes a veth for a plain device, and takes up to a
    // second instead of a moment to notice that its carrier is there.
    static INDEX: AtomicU32 = AtomicU32::new(1000);
    let index = INDEX.fetch_add(1, Ordering::Relaxed);
    let ([a_mac, b_mac], b_netns) = ([a.mac, b.mac].map(colons), b.netns.name());
    let (a_if, b_if) = (a.ifname, b.ifname);
    a.netns.ip_all([
        format!("link add {a_if} index {index} address {a_mac} type veth peer name {b_if} address {b_mac} netns {b_netns}"),
        format!("link set {a_if} up"),
    ]);
    b.netns.ip(&format!("link set {b_if} up"));
}

/// A bridge that does nothing of its own accord: no STP, no snooping, no queries. Its MAC does not change with its ports.
pub fn bridge(netns: &Netns, ifname: &str, mac: Mac, ports: &[&str]) {
    let mut lines = vec![
        format!("link add {ifname} address {} type bridge stp_state 0 mcast_snooping 0", colons(mac)),
        format!("link set {ifname} up"),
    ];
    lines.extend(ports.iter().map(|port| format!("link set {port} master {ifname}")));
    netns.ip_all(lines);
}

/// Deletes the namespaces of test processes that were killed before they could.
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir(DIR) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            delete(&name);
        }
    }
}

/// Complains but never panics: it runs while a failed test unwinds.
fn delete(name: &str) {
    match Command::new("ip").args(["netns", "del", name]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => eprintln!("ip netns del {name}: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(err) => eprintln!("ip netns del {name}: {err}"),
    }
}

fn enter(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: setns takes a descriptor, valid while `file` lives, and changes nothing but the calling thread.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs to the end and returns stdout; a failure shows the command and everything it said.
pub fn expect_success(command: &mut Command, input: Option<&str>) -> String {
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|err| panic!("cannot start {command:?}: {err}"));
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).unwrap_or_else(|err| panic!("write to {command:?}: {err}"));
    }
    let output = child.wait_with_output().unwrap_or_else(|err| panic!("wait for {command:?}: {err}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed ({}): {}\n{}",
        output.status,
        stderr.trim(),
        input.unwrap_or_default()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
