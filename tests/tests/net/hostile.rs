//! Does the controller notice what somebody does to its programs, links and pins, and put it right or say so?

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    hosts::{Hosts, Killed, finish_ping, until},
    lab::{HOST, Lab, OUTSIDE, Outside, UPLINK},
    require,
    require::{NAMESPACES, Need, kernel_has_tcx},
    topo::expect_success,
    vswitch::{self, Vswitch},
};

pub(crate) const NEEDS: &[Need] = &[Need::Tool("bpftool"), Need::Tool("ethtool"), Need::Tool("ping")];
pub(crate) const PINGS: &str = "-c 10 -i 0.01 -W 1";

/// Hosts a, b and c; b's port is XDP's.
pub(crate) fn hosts() -> (Hosts<Vswitch>, Controller) {
    let switch = Vswitch::new().datapath("b", "xdp");
    let hosts = Hosts::new(switch, Lab::new(Outside::Station, &["a", "b", "c"]));
    let controller = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    (hosts, controller)
}

pub(crate) fn port(hosts: &Hosts<Vswitch>, ifname: &str, key: &str) -> Value {
    hosts.json(&format!("port show {ifname}"))[0][key].clone()
}

/// Everybody reaches everybody.
pub(crate) fn all_reach_all(hosts: &Hosts<Vswitch>) {
    for (from, to) in [("a", "b"), ("b", "c"), ("c", OUTSIDE), (OUTSIDE, "a"), ("b", HOST), (HOST, "a")] {
        hosts.await_ping(from, to);
        hosts.ping(from, to, PINGS).assert_all("pings after a repair");
    }
    let show = &hosts.json("show")[0];
    assert_eq!((&show["ports"]["forwarding"], &show["ports"]["degraded"]), (&json!(4), &json!(0)), "{show}");
    assert_eq!(show["faults"], json!([]));
}

fn pins(hosts: &Hosts<Vswitch>) -> PathBuf {
    vswitch::pins(&hosts.switch.name)
}

/// What takes a program from a port: its link, by the link's pin, or below Linux 6.6 its filter.
fn detaching(hosts: &Hosts<Vswitch>, link: &str, ifname: &str) -> Command {
    let pin = pins(hosts).join("links").join(link);
    let direction = if link.ends_with("-out") { "egress" } else { "ingress" };
    if link.ends_with("-xdp") || kernel_has_tcx() {
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["link", "detach", "pinned"]).arg(pin);
        return bpftool;
    }
    let mut tc = hosts.lab.switch.command("tc");
    tc.args(["filter", "del", "dev", ifname, direction, "prio", "1", "handle", "0x5653", "bpf"]);
    tc
}

#[test]
fn a_detached_link_is_attached_again() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let cases = [
        ("2-in", "h0", "vswitch_in"),
        ("3-in", "h1", "vswitch_in"),
        ("3-xdp", "h1", "vswitch_xdp"),
        ("1-in", UPLINK, "vswitch_in"),
        ("1-out", UPLINK, "vswitch_out"),
    ];
    for (link, ifname, program) in cases {
        let line = format!("\"{ifname}\": its program {program} is not attached: put right");
        let took =
            controller.notices(&line, || drop(expect_success(&mut detaching(&hosts, link, ifname), None)));
        println!("{link} detached: put right after {took:?}");
        all_reach_all(&hosts);
    }
}

#[test]
fn without_a_controller_show_tells_of_a_detached_link() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    drop(controller);
    expect_success(&mut detaching(&hosts, "2-in", "h0"), None);
    let fault = "its program vswitch_in is not attached";
    assert_eq!(port(&hosts, "h0", "state"), "degraded");
    assert_eq!(port(&hosts, "h0", "faults"), json!([fault]));
    assert_eq!(hosts.json("show")[0]["faults"], json!([format!("h0: {fault}")]));
    let text = String::from_utf8(hosts.vswitch("show").stdout).unwrap();
    assert!(text.contains("3 forwarding, 1 degraded") && text.contains(fault), "{text}");
    // And the next controller puts it right at once.
    let _next = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    until("it is attached", AT_ONCE, || port(&hosts, "h0", "state") == "forwarding");
    all_reach_all(&hosts);
}

#[test]
fn removed_pins_cost_no_frame_and_are_put_back() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let pins = pins(&hosts);
    let before = listed(&pins);
    let ping = hosts.start_ping("a", &hosts.address("b"), "-i 0.005 -c 6000 -W 1");
    let tc = ["links/2-in", "links/1-out"].into_iter().filter(|_| kernel_has_tcx());
    for pin in tc.chain(["links/3-xdp", "maps/FDB", "maps/RECORDS", "programs/vswitch_xdp"]) {
        let line = format!("{pin}: was removed: put back");
        let took = controller.notices(&line, || fs::remove_file(pins.join(pin)).unwrap());
        println!("{pin} removed: put back after {took:?}");
        assert_eq!(listed(&pins), before);
    }
    controller.notices("maps/PORTS: was removed: put back", || {
        // As `rm -r` does: a bpffs has files and directories, and nothing else.
        for dir in ["links", "maps", "programs"] {
            fs::read_dir(pins.join(dir))
                .unwrap()
                .for_each(|pin| fs::remove_file(pin.unwrap().path()).unwrap());
            fs::remove_dir(pins.join(dir)).unwrap();
        }
        fs::remove_dir(&pins).unwrap();
    });
    until("all pins are there", AT_ONCE, || listed(&pins) == before);
    finish_ping(ping).assert_all("pings while pins are removed and put back");
    all_reach_all(&hosts);
    // They are what they were: a command finds a whole switch, and `down` takes all away.
    hosts.vswitch("port set h0 --isolated on");
    hosts.vswitch("down");
    assert!(!pins.exists());
}

/// Directories and pins, with their modes.
fn listed(pins: &Path) -> Vec<String> {
    let find = expect_success(Command::new("find").arg(pins).args(["-printf", "%P %M %g\n"]), None);
    let mut lines: Vec<_> = find.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// In a mount namespace of its own: the machine's bpffs has other switches in it.
#[test]
fn an_unmounted_bpffs_costs_no_frame_and_is_mounted_again() {
    require!(NAMESPACES);
    require!(NEEDS);
    require!(&[Need::Tool("unshare"), Need::Tool("mount")]);
    let lab = Lab::new(Outside::Nothing, &["a", "b"]);
    lab.downlinks().for_each(|member| lab.cable(&member.name));
    let hosts = Hosts { switch: Vswitch::new(), lab };
    let mounts = Mounts::new();
    let vswitch = |args: &str| {
        let mut command = mounts.command(&format!("--net={}", hosts.lab.switch.path().display()));
        command.arg(vswitch::binary()).args(["-s", &hosts.switch.name]).args(args.split_whitespace());
        command
    };
    expect_success(&mut vswitch("up h0 h1"), None);
    let controller = Controller::of(vswitch("run"));
    controller.await_ready();
    for (station, address) in [("a", "10.9.0.10/24"), ("b", "10.9.0.11/24")] {
        hosts.netns(station).ip(&format!("address add {address} dev eth0"));
    }
    hosts.await_ping("a", "b");
    let ping = hosts.start_ping("a", &hosts.address("b"), "-i 0.005 -c 6000 -W 1");
    let took = controller.notices("maps/PORTS: was removed: put back", || {
        expect_success(mounts.command("--").args(["umount", "/sys/fs/bpf"]), None);
    });
    println!("bpffs unmounted: put back after {took:?}");
    let shown = vswitch("-j show").output().unwrap().stdout;
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown[0]["ports"]["forwarding"], 2, "{shown}");
    finish_ping(ping).assert_all("pings while bpffs is unmounted");
    expect_success(&mut vswitch("down"), None);
    drop(controller);
}

/// A process in a mount namespace with a bpffs of its own.
struct Mounts(Killed);

impl Mounts {
    fn new() -> Self {
        let script = "mount -t bpf bpf /sys/fs/bpf && echo ready && exec sleep 120";
        let mut child: Child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut line = String::new();
        let mut said = std::io::BufReader::new(child.stdout.take().expect("piped"));
        std::io::BufRead::read_line(&mut said, &mut line).expect("read what it says");
        assert_eq!(line, "ready\n", "a bpffs of one's own");
        Self(Killed(child))
    }

    fn command(&self, option: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.0.0.id())).arg(option);
        command
    }
}

#[test]
fn somebody_elses_program_is_reported_and_left_alone() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let other = Foreign::new(&hosts);
    let switch = &hosts.lab.switch;

    // On a tc port, by netlink, as `ip` does it.
    let program = other.program("vswitch_xdp");
    let program = program.display();
    let took = controller.notices("\"h0\": another XDP program is attached", || {
        switch.ip(&format!("link set dev h0 xdp pinned {program}"));
    });
    println!("foreign XDP program on a tc port: told after {took:?}");
    assert_eq!(port(&hosts, "h0", "state"), "degraded");
    let fault = port(&hosts, "h0", "faults")[0].as_str().unwrap().to_owned();
    assert!(fault.starts_with("another XDP program is attached (id "), "{fault}");
    assert!(fault.ends_with("ip link set h0 xdp off"), "the remedy: {fault}");
    controller.tells("\"h0\": is in order again", AT_ONCE, || drop(switch.ip("link set h0 xdp off")));

    // By a link, of which no event tells.
    let mut link = None;
    let took = controller.notices("\"h2\": another XDP program is attached", || {
        link = other.try_attach("h2");
    });
    println!("foreign XDP link on a tc port: told after {took:?}");
    controller.tells("\"h2\": is in order again", AT_ONCE, || drop(link.take()));

    // In the place of ours, which comes back when it goes.
    controller.notices("\"h1\": another XDP program is attached", || {
        // The controller may be the first to take the place that is free now.
        until("the place is somebody else's", AT_ONCE, || {
            let _loose = detaching(&hosts, "3-xdp", "h1").output();
            link = other.try_attach("h1");
            link.is_some()
        });
    });
    assert_eq!(port(&hosts, "h1", "state"), "degraded");
    hosts.await_ping("a", "b");
    hosts.ping("a", "b", PINGS).assert_all("pings by tc, while XDP is somebody else's");
    // Whoever met a repair above waits longer for this one.
    let put_right = "\"h1\": its program vswitch_xdp is not attached: put right";
    controller.tells(put_right, Duration::from_secs(12), || drop(link.take()));
    all_reach_all(&hosts);
}

/// Programs that are not the switch's, and let everything pass: those of a switch without ports.
pub(crate) struct Foreign<'a> {
    hosts: &'a Hosts<Vswitch>,
    name: String,
}

impl<'a> Foreign<'a> {
    pub(crate) fn new(hosts: &'a Hosts<Vswitch>) -> Self {
        let name = vswitch::unique_name();
        vswitch::run(&hosts.lab.switch, &name, "up");
        Self { hosts, name }
    }

    /// The pin of the one that has this name.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        vswitch::pins(&self.name).join("programs").join(name)
    }

    /// By a link, which lasts as long as what is returned. None: there is a program already.
    fn try_attach(&self, ifname: &str) -> Option<aya::programs::Xdp> {
        self.hosts.lab.switch.run(|| {
            let interface = aya_obj::programs::XdpAttachType::Interface;
            let mut program = aya::programs::Xdp::from_pin(self.program("vswitch_xdp"), interface)
                .expect("open the program");
            program.attach(ifname, aya::programs::XdpMode::Driver).ok().map(|_link| program)
        })
    }
}

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        let _gone = vswitch::command(&self.hosts.lab.switch, &self.name, "down").output();
    }
}

/// The kernel does not let netlink take away what a link holds (dev_xdp_install, net/core/dev.c).
#[test]
fn ip_link_set_xdp_off_is_refused_by_the_kernel() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, _controller) = hosts();
    let off = hosts.lab.switch.command("ip").args(["link", "set", "h1", "xdp", "off"]).output().unwrap();
    assert!(!off.status.success());
    all_reach_all(&hosts);
}

#[test]
fn who_undoes_a_repair_again_and_again_is_met_with_pauses() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        // It may not have been put right yet.
        let _loose = detaching(&hosts, "2-in", "h0").output();
        thread::sleep(Duration::from_millis(100));
    }
    let repairs = controller.lines().iter().filter(|line| line.ends_with("not attached: put right")).count();
    assert!((3..=4).contains(&repairs), "after 0, 1, 3 and 7 s, and not {repairs} times");
    let told = controller.lines().iter().filter(|line| line.ends_with("is not attached")).count();
    assert!((1..=4).contains(&told), "once for each pause: {:#?}", controller.lines());
    until("it is put right in the end", Duration::from_secs(12), || {
        port(&hosts, "h0", "state") == "forwarding"
    });
    all_reach_all(&hosts);
}
