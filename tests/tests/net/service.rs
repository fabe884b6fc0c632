//! Is `vswitch@.service` a good service: does it start, stop, reload and restart as it says, and the switch forward
//! through all of it? Under systemd, with the files that the package installs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use vswitch_tests::{
    hosts::{Hosts, finish_ping, until},
    lab::{HOST, Lab, OUTSIDE, Outside, UPLINK},
    require,
    require::{NAMESPACES, Need},
    systemd::{self, Machine, SOON},
    vswitch::{self, Vswitch},
};

const NEEDS: &[Need] = &[Need::Tool("ping"), Need::Tool("systemd-analyze")];

/// Of `systemd-analyze security`, from 0 to 10.
const EXPOSURE: f32 = 3.0;

/// What is installed, and where.
fn files() -> [(PathBuf, &'static str); 4] {
    let dist = |name: &str| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vswitch/dist")).join(name);
    [
        (vswitch::binary(), "/usr/bin/vswitch"),
        (dist("vswitch@.service"), "/usr/lib/systemd/system/vswitch@.service"),
        (dist("tmpfiles.conf"), "/usr/lib/tmpfiles.d/vswitch.conf"),
        (dist("vs0.toml"), "/etc/vswitch/vs0.toml"),
    ]
}

/// A lab whose switch is under systemd, with vswitch installed as its package does it.
struct Served {
    // Before the lab: what runs in a namespace goes first.
    machine: Machine,
    hosts: Hosts<Vswitch>,
}

impl Served {
    fn new() -> Self {
        let served = Self::bare();
        served.install_files();
        served.adapt();
        served.configure(&["a"]);
        served
    }

    /// Without vswitch.
    fn bare() -> Self {
        let lab = Lab::new(Outside::Station, &["a", "b"]);
        let hosts = Hosts { switch: Vswitch::new(), lab };
        let machine = Machine::boot(&hosts.lab.switch, hosts.lab.members.iter().map(|member| &member.netns));
        Self { machine, hosts }
    }

    /// As the package and its postinst do it.
    fn install_files(&self) {
        for (from, to) in files() {
            self.copy(&from, to);
        }
        self.machine.sh("getent group vswitch >/dev/null || groupadd --system vswitch
            systemd-tmpfiles --create vswitch.conf
            systemctl daemon-reload");
    }

    /// Into the machine, from where it may not look.
    fn copy(&self, from: &Path, to: &str) {
        let mut copy = self.machine.enter("sh");
        copy.args(["-euc", &format!("mkdir -p $(dirname {to}); cat >{to}; chmod 755 {to}")]);
        let copied = copy.stdin(fs::File::open(from).unwrap()).status().unwrap();
        assert!(copied.success(), "{}", from.display());
    }

    /// What the controllers say goes to a file: there is no journal here. And the test is not to wait.
    fn adapt(&self) {
        let log = "append:/run/vswitch.log";
        self.drop_in("test", &format!("StandardOutput={log}\nStandardError={log}\nRestartSec=0.1"));
    }

    fn drop_in(&self, name: &str, lines: &str) {
        let dir = "/run/systemd/system/vswitch@.service.d";
        self.machine.sh(&format!(
            "mkdir -p {dir}; printf '[Service]\n{lines}\n' >{dir}/{name}.conf; systemctl daemon-reload"
        ));
    }

    /// The uplink, and a port for each of these stations.
    fn configure(&self, stations: &[&str]) {
        let mut file =
            format!("[switch]\nname = \"vs0\"\n[[port]]\nname = \"{UPLINK}\"\nrole = \"uplink\"\n");
        for station in stations {
            let member = self.hosts.lab.member(station);
            let (port, netns) = (&member.port, member.netns.name());
            file += &format!("[[port]]\nname = \"{port}\"\nnetns = \"{netns}\"\n");
        }
        self.machine.sh(&format!("cat >/etc/vswitch/vs0.toml <<'END'\n{file}END"));
    }

    /// `systemctl VERB vswitch@vs0`, which must succeed.
    fn service(&self, verb: &str) {
        let mut command = self.machine.enter("systemctl");
        let output = command.args(verb.split_whitespace()).arg("vswitch@vs0").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "systemctl {verb}: {stderr}{}", self.log());
    }

    fn property(&self, name: &str) -> String {
        self.machine.sh(&format!("systemctl show -P {name} vswitch@vs0")).trim().to_owned()
    }

    fn log(&self) -> String {
        self.machine.sh("cat /run/vswitch.log 2>/dev/null || true")
    }

    fn address(&self, name: &str, ifname: &str) {
        let address = self.hosts.address(name);
        self.hosts.netns(name).ip(&format!("address add {address}/24 dev {ifname}"));
    }

    /// What no stop, start or restart may touch: each link as the kernel numbers its pin.
    fn links(&self) -> String {
        self.machine.sh("cd /sys/fs/bpf/vswitch/v*/vs0/links; stat -c '%n %i' *")
    }
}

#[test]
fn the_switch_forwards_through_all_that_may_become_of_its_service() {
    require!(NAMESPACES);
    require!(systemd::NEEDS);
    require!(NEEDS);
    let served = Served::new();
    served.service("enable --now --quiet");
    assert_eq!(served.property("StatusText"), "switch vs0: every port is followed");
    for (name, ifname) in [("a", "eth0"), (OUTSIDE, "eth0"), (HOST, UPLINK)] {
        served.address(name, ifname);
    }
    served.hosts.await_ping("a", OUTSIDE);
    let before = served.links();

    let outside = served.hosts.address(OUTSIDE);
    let pings = served.hosts.start_ping("a", &outside, "-i 0.01 -c 10000 -W 1");
    served.service("stop");
    assert_eq!(served.property("StatusText"), "switch vs0: forwards without a controller");
    assert_eq!(served.links(), before);
    // What was changed by hand stays as well: a start is not a reload.
    served.machine.sh("vswitch port add hand0 --tap");
    served.service("start");
    served.service("restart");
    let with_hand = served.links();
    served.service("kill --signal=KILL");
    until("systemd has started it again", SOON, || {
        served.property("NRestarts") == "1" && served.property("ActiveState") == "active"
    });
    // A controller that makes no progress is as good as none.
    served.drop_in("watchdog", "WatchdogSec=6");
    served.service("restart");
    thread::sleep(Duration::from_secs(7));
    assert_eq!(served.property("NRestarts"), "0", "one that works is left alone: {}", served.log());
    served.machine.sh("kill -STOP $(systemctl show -P MainPID vswitch@vs0)");
    until("the watchdog has seen it", SOON, || {
        served.property("NRestarts") == "1" && served.property("ActiveState") == "active"
    });
    assert_eq!(served.links(), with_hand);
    finish_ping(pings).assert_all("pings meanwhile");

    // The file is for reloads, which say what is wrong with it and then change nothing.
    served.configure(&["a", "b"]);
    served.service("reload");
    served.address("b", "eth0");
    served.hosts.await_ping("b", "a");
    served.hosts.await_ping("b", HOST);
    served.machine.sh("echo nonsense >>/etc/vswitch/vs0.toml; ! systemctl reload vswitch@vs0");
    assert!(served.log().contains("/etc/vswitch/vs0.toml:"), "{}", served.log());
    assert_eq!(served.property("ActiveState"), "active");
    served.hosts.ping("b", "a", "-c 10 -i 0.01 -W 1").assert_all("pings after a bad reload");

    // The controller has nothing left to control.
    served.machine.sh("vswitch down");
    until("the service ends", SOON, || served.property("ActiveState") == "inactive");
    assert_eq!(served.property("Result"), "success");
    served.machine.sh("test ! -e /sys/fs/bpf/vswitch; ! ip link show h0");
    // 2: wrong configuration, which another try does not make right.
    served.machine.sh("! systemctl start vswitch@vs0");
    assert_eq!((served.property("ActiveState"), served.property("NRestarts")), ("failed".into(), "0".into()));
}

#[test]
fn the_unit_is_sound_and_its_controller_has_little_to_lose() {
    require!(NAMESPACES);
    require!(systemd::NEEDS);
    require!(NEEDS);
    let served = Served::new();
    served.machine.sh("systemd-analyze verify --man=no vswitch@vs0.service");
    let analysis = served.machine.sh("systemd-analyze security --no-pager --offline=true \
        /usr/lib/systemd/system/vswitch@.service");
    let (_, exposure) = analysis.split_once("Overall exposure level for ").expect("a level");
    let exposure = exposure.split_whitespace().nth(1).unwrap().parse::<f32>().unwrap();
    assert!(exposure <= EXPOSURE, "{analysis}");

    served.service("start");
    let status = served.machine.sh("cat /proc/$(systemctl show -P MainPID vswitch@vs0)/status");
    let has = |line: &str| assert!(status.lines().any(|l| l == line), "no {line:?} in {status}");
    has("CapEff:\t0000008000001000"); // CAP_BPF and CAP_NET_ADMIN
    has("CapPrm:\t000000c000201000"); // and CAP_PERFMON and CAP_SYS_ADMIN
    has("CapBnd:\t000000c000201800"); // and CAP_NET_BROADCAST, until it listens
    has("NoNewPrivs:\t1");

    // Who is in the group reads, and is told who may change.
    served.machine.sh("useradd --no-create-home --no-user-group --groups vswitch reader");
    let as_reader = |args: &str| {
        let mut command = served.machine.enter("setpriv");
        command.args(["--reuid=reader", "--regid=nogroup", "--init-groups", "--inh-caps=-all", "vswitch"]);
        command.args(args.split_whitespace()).stderr(Stdio::piped()).output().unwrap()
    };
    for args in ["show", "stats", "fdb show", "port show", "export"] {
        let output = as_reader(args);
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        assert_ne!(output.stdout, b"", "{args}");
    }
    let refused = as_reader("port add h1");
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr),
        "vswitch: change a switch: not permitted without CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run as root (sudo vswitch ...)\n"
    );
    assert_eq!(refused.status.code(), Some(1));
}

/// Of what `cargo xtask dist` has built.
#[test]
#[ignore = "needs a built package: cargo xtask dist --check"]
fn the_package_comes_and_goes() {
    require!(NAMESPACES);
    require!(systemd::NEEDS);
    require!(NEEDS);
    require!(&[Need::FileIn("VSWITCH_DEB"), Need::Tool("dpkg"), Need::Tool("man")]);
    let served = Served::bare();
    let sh = |script: &str| served.machine.sh(script);
    served.copy(Path::new(&std::env::var_os("VSWITCH_DEB").unwrap()), "/root/vswitch.deb");
    // Of a minimal system: an image of a container may leave out what nobody there reads.
    sh("rm -f /etc/dpkg/dpkg.cfg.d/*");
    sh("dpkg -i /root/vswitch.deb");
    sh("vswitch check /etc/vswitch/vs0.toml; getent group vswitch; test $(stat -c %a /sys/fs/bpf) = 711");
    sh(
        "man -w vswitch vswitch-port-add; bash -c '. /usr/share/bash-completion/completions/vswitch; complete -p vswitch'",
    );
    sh("test $(find /sys/fs/bpf -mindepth 1 -type d | wc -l) = 0; ! systemctl is-enabled vswitch@vs0");
    assert_eq!(sh("systemctl list-units --plain --no-legend 'vswitch@*'"), "", "nothing is started");

    served.adapt();
    served.configure(&["a"]);
    served.service("enable --now --quiet");
    served.address("a", "eth0");
    served.address(OUTSIDE, "eth0");
    served.hosts.await_ping("a", OUTSIDE);
    let (links, controller) = (served.links(), served.property("MainPID"));
    let outside = served.hosts.address(OUTSIDE);
    let pings = served.hosts.start_ping("a", &outside, "-i 0.01 -c 10000 -W 1");
    // With the file that the administrator has changed.
    sh("dpkg -i --force-confold /root/vswitch.deb");
    assert_ne!(served.property("MainPID"), controller, "an upgrade's controller is the new one");
    assert_eq!(served.property("ActiveState"), "active");
    assert_eq!(served.links(), links);
    let said = sh("dpkg -r vswitch");
    assert!(said.contains("vswitch: switch vs0 goes on forwarding until a reboot, or: "), "{said}");
    assert_eq!(served.links(), links);
    finish_ping(pings).assert_all("pings through an upgrade and the removal");
    sh("test ! -e /usr/bin/vswitch; test -e /etc/vswitch/vs0.toml");

    sh("dpkg -i /root/vswitch.deb; vswitch down; dpkg -P vswitch");
    let left = sh(
        "find /etc /run /usr/bin /usr/lib/systemd /usr/lib/tmpfiles.d /usr/share /var/lib/dpkg /sys/fs/bpf \
        -name '*vswitch*' -not -path '/run/vswitch.log' -not -path '/run/systemd/system/*'; ! getent group vswitch",
    );
    assert_eq!(left, "", "left behind");
}
