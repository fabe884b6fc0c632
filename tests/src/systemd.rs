//! A machine that is run by systemd: this one's programs, in namespaces of its own, with no unit but those of the test.
//!
//! Its root is an overlay whose writes go to memory, its bpffs is empty, and of its interfaces it has those of the given
//! network namespace.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    hosts::{Killed, until},
    require::Need,
    topo::{Netns, expect_success},
    vswitch,
};

/// What the machine is made of.
pub const NEEDS: &[Need] = &[
    Need::Root,
    Need::Tool("unshare"),
    Need::Tool("setpriv"),
    Need::Tool("nsenter"),
    Need::Tool("systemctl"),
];

/// How long systemd may take to do what it was told, on a loaded machine.
pub const SOON: Duration = Duration::from_secs(20);

/// In the namespaces of mounts, processes and so on, before systemd. The parts of the machine's own that it hides are the
/// units, and what would write to this kernel's settings.
const BOOT: &str = r#"
set -eu
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# As systemd itself does on a machine that is no container.
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/netns
for name in $NAMES; do
    touch run/netns/$name
    mount --bind /run/netns/$name run/netns/$name
done
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -p dev/net dev/shm
for device in null zero full random urandom net/tun; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
for units in etc/systemd/system usr/lib/systemd/system usr/lib/systemd/system-generators; do
    mkdir -p $units
    mount -t tmpfs -o mode=755 tmpfs $units
done
for target in sysinit basic shutdown network multi-user; do
    printf '[Unit]\nDescription=%s\n' $target >usr/lib/systemd/system/$target.target
done
mkdir "$1/root/old"
pivot_root . old
umount -l old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target
"#;

/// Shut down, and gone, when dropped.
pub struct Machine {
    init: Killed,
    dir: PathBuf,
}

impl Machine {
    /// Boots it with the interfaces of `netns`; `named` are the namespaces that have a name in it.
    pub fn boot<'a>(netns: &Netns, named: impl IntoIterator<Item = &'a Netns>) -> Self {
        let name = format!("{}-systemd", vswitch::unique_name());
        let dir = PathBuf::from("/tmp").join(&name);
        fs::create_dir(&dir).expect("a directory for the machine's root");
        // The cgroup is entered before it becomes the root of those that the machine sees.
        let script = format!(
            "set -eu
            mount -t cgroup2 cgroup2 {dir}
            mkdir {dir}/{name}
            echo $$ >{dir}/{name}/cgroup.procs
            umount {dir}
            exec unshare --cgroup sh -c \"$0\" sh {dir}",
            dir = dir.display()
        );
        // It ends with the test, however that ends.
        let mut command = netns.command("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            &script,
            BOOT,
        ]);
        command.env("NAMES", named.into_iter().map(Netns::name).collect::<Vec<_>>().join(" "));
        let init = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let machine = Self { init: Killed(init.spawn().expect("start unshare")), dir };
        until("systemd is up", SOON, || {
            machine
                .enter("systemctl")
                .args(["is-active", "multi-user.target"])
                .output()
                .unwrap()
                .status
                .success()
        });
        machine
    }

    /// A command that will run in it.
    pub fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let init = self.pid().map_or_else(|| "0".to_owned(), |pid| pid.to_string());
        command.args(["--target", &init, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a script in it; panics if it fails. Returns what it printed.
    pub fn sh(&self, script: &str) -> String {
        expect_success(self.enter("sh").args(["-euc", script]), None)
    }

    /// Starts a script in it.
    pub fn start(&self, script: &str) -> Child {
        self.enter("sh").args(["-euc", script]).stdout(Stdio::piped()).spawn().expect("start sh")
    }

    /// Its systemd, as this machine numbers it.
    fn pid(&self) -> Option<u32> {
        let unshare = self.init.0.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Not unshare: it would end before them. With systemd ends every process of its namespace, and with the last of
        // them the mounts.
        if let Some(systemd) = self.pid() {
            let _gone = Command::new("kill").args(["-KILL", &systemd.to_string()]).status();
            let _ended = self.init.0.wait();
        }
        let dir = self.dir.display();
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let script =
            format!("mount -t cgroup2 cgroup2 {dir} && find {dir}/{name} -depth -type d -exec rmdir {{}} +");
        let _left = Command::new("unshare").args(["--mount", "sh", "-c", &script]).status();
        let _gone = fs::remove_dir(&self.dir);
    }
}
