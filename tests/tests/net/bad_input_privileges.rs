//! Users who may not, and machines that lack something.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use vswitch_tests::{require, require::Need, vswitch};

use crate::bad_input::{Bench, NEEDS, same};

const UNPRIVILEGED: &[Need] =
    &[Need::Root, Need::Tool("ip"), Need::Tool("nsenter"), Need::Tool("ethtool"), Need::Tool("setpriv")];
const MOUNTS: &[Need] = &[
    Need::Root,
    Need::Tool("ip"),
    Need::Tool("nsenter"),
    Need::Tool("ethtool"),
    Need::Tool("unshare"),
    Need::Tool("setpriv"),
];

/// The binary where everybody may run it: the tree may be root's alone.
struct Public(PathBuf);

impl Public {
    fn new() -> Self {
        let path = PathBuf::from(format!("/tmp/{}-vswitch", vswitch::unique_name()));
        fs::copy(vswitch::binary(), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    /// As nobody, without any capability, in the bench's namespace.
    fn as_nobody(&self, bench: &Bench, args: &str) -> Command {
        let mut command = bench.machine.command("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"])
            .arg(&self.0);
        command.args(["-s", &bench.name]).args(args.split_whitespace());
        command
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

const CHANGES: [&str; 8] = [
    "up h4",
    "down",
    "port add h4",
    "port set h2 --flood off",
    "port del h2",
    "fdb add 02:00:00:00:00:09 h2",
    "fdb flush",
    "run",
];
const READS: [&str; 5] = ["stats", "fdb show", "port show", "show", "export"];

#[test]
fn nobody_changes_nothing_and_reads_what_the_modes_allow() {
    require!(UNPRIVILEGED);
    let (bench, public) = (Bench::up(), Public::new());
    let refused = "change a switch: not permitted without CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run as root (sudo vswitch ...)";
    let unreadable = format!(
        r#"switch "{}": this user may not read its pins: run as root, or join the group vswitch (if it existed when the switch was made)"#,
        bench.name
    );
    for args in CHANGES {
        bench.refuses_command(public.as_nobody(&bench, args), 1, &[refused]);
    }
    // Other tests may have opened the common directories: the switch's own decide here.
    for args in READS {
        bench.refuses_command(public.as_nobody(&bench, args), 1, &[&unreadable]);
    }
    let line = format!(
        r#"enter namespace "{}": not permitted: run as root, or with CAP_SYS_ADMIN"#,
        bench.far.name()
    );
    let command = public.as_nobody(&bench, &format!("-n {} stats", bench.far.name()));
    bench.refuses_command(command, 1, &[line]);

    let pins = bench.pins();
    let open = |path: &Path, bits: u32| {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode(mode | bits)).unwrap();
    };
    for dir in [pins.parent().unwrap().parent().unwrap(), pins.parent().unwrap(), &pins, &pins.join("maps")] {
        open(dir, 0o005);
    }
    for map in [
        "COUNTERS",
        "FDB",
        "FILTERS",
        "IDENTITY",
        "INTENT",
        "INTERFACES",
        "PORTS",
        "PRESENT",
        "RECORDS",
        "SETTINGS",
        "SOURCES",
    ] {
        open(&pins.join("maps").join(map), 0o004);
    }
    for args in READS {
        let output = public.as_nobody(&bench, args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args}: {stderr}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("h2") || args == "show" || args == "fdb show"
        );
    }
    for args in CHANGES {
        bench.refuses_command(public.as_nobody(&bench, args), 1, &[refused]);
    }
}

/// Runs a script in a mount namespace of its own; `V` is the command with its switch. Returns what it printed.
fn in_mounts(bench: &Bench, script: &str) -> String {
    let v = format!("{} -s {}", vswitch::binary().display(), bench.name);
    let mut command = bench.machine.command("unshare");
    command.args(["--mount", "sh", "-c", &format!("V='{v}'\n{script}")]);
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn without_bpffs_it_is_mounted_or_says_how() {
    require!(MOUNTS);
    let bench = Bench::new();
    let name = &bench.name;
    let before = bench.state();
    let said = in_mounts(
        &bench,
        "umount /sys/fs/bpf
         $V up h1 h2; echo $?; stat -f -c %T /sys/fs/bpf; $V -j show | wc -l; $V down; echo $?",
    );
    assert_eq!(said, "0\nbpf_fs\n1\n0\n");
    let said = in_mounts(
        &bench,
        "umount /sys/fs/bpf
         setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin $V up h1 2>&1; echo $?",
    );
    assert_eq!(
        said,
        format!(
            "vswitch: switch \"{name}\": /sys/fs/bpf: the BPF file system is not mounted, and may not be mounted by this process: as root: mount -t bpf bpf /sys/fs/bpf\n1\n"
        )
    );
    let said = in_mounts(&bench, "mount -t tmpfs none /sys/fs; $V up h1 2>&1; echo $?");
    assert_eq!(
        said,
        format!(
            "vswitch: switch \"{name}\": /sys/fs/bpf: the BPF file system is not mounted, and /sys/fs/bpf does not exist: mount -t sysfs sysfs /sys, in a kernel with BPF\n1\n"
        )
    );
    same(&before, &bench.state(), "all of this");
    bench.assert_gone();
}

/// The programs ask the kernel for no types: a kernel built without BTF loads them.
#[test]
fn without_the_kernels_btf_it_works() {
    require!(MOUNTS);
    let bench = Bench::new();
    let hide = "test -d /sys/kernel/btf && mount -t tmpfs none /sys/kernel/btf; ls /sys/kernel/btf 2>/dev/null | wc -l";
    let said = in_mounts(
        &bench,
        &format!("{hide}; $V up h1 h2 2>&1; echo $?; $V port add h3 --datapath xdp 2>&1; echo $?"),
    );
    assert_eq!(said, "0\n0\n0\n");
    bench.run("down");
    bench.assert_gone();
}

/// CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are enough for interfaces that are there, once bpffs is mounted.
#[test]
fn without_cap_sys_admin_it_works_at_tc() {
    require!(UNPRIVILEGED);
    require!(NEEDS);
    let bench = Bench::new();
    let mut command = bench.machine.command("setpriv");
    command.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]).arg(vswitch::binary());
    command.args(["-s", &bench.name, "up", "h1", "h2"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bench.run("down");
    bench.assert_gone();
}
