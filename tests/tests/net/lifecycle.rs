//! What outlives whom: the dataplane its controller, nothing the switch?

use std::{
    collections::BTreeSet,
    fs,
    iter::zip,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    hosts::{Hosts, finish_ping, until},
    lab::{HOST, Lab, OUTSIDE, Outside, STATION_IF, UPLINK},
    require,
    require::{NAMESPACES, Need},
    topo::{Netns, expect_success},
    vswitch::{self, Vswitch, filters},
};

/// More than any of these tests takes; a ping that is not ended by then ends itself.
const PING: &str = "-i 0.01 -c 2000 -W 1";
/// For some pings to be sent.
const ENOUGH: Duration = Duration::from_secs(5);

fn hosts(options: &str) -> Hosts<Vswitch> {
    Hosts::new(Vswitch::with(options).datapath("b", "xdp"), Lab::new(Outside::Station, &["a", "b"]))
}

fn run(hosts: &Hosts<Vswitch>, args: &str) -> Controller {
    Controller::start(&hosts.lab.switch, &hosts.switch.name, args)
}

#[test]
fn a_killed_controller_costs_no_ping_and_another_takes_over() {
    require!(NAMESPACES);
    let hosts = hosts("");
    let first = run(&hosts, "");
    let pairs = [("a", "b"), ("b", HOST), (OUTSIDE, "a")];
    let sent = || pairs.map(|(from, _)| hosts.pings_sent(from));
    let mut before = sent();
    let mut some_are_sent = |count: u32| {
        until("pings are sent", ENOUGH, || zip(sent(), before).all(|(now, before)| now > before + count));
        before = sent();
    };
    let pings = pairs.map(|(from, to)| hosts.start_ping(from, &hosts.address(to), PING));
    some_are_sent(20);
    first.kill();
    some_are_sent(20);
    let second = run(&hosts, "");
    some_are_sent(20);
    for ping in pings {
        let pings = finish_ping(ping);
        assert!(pings.sent > 50, "{pings:?}");
        pings.assert_all("pings while the controller is killed and replaced");
    }
    drop(second);
}

#[test]
fn a_terminated_controller_leaves_the_switch_forwarding() {
    require!(NAMESPACES);
    let hosts = hosts("");
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut controller = run(&hosts, "");
        controller.signal(signal);
        assert!(controller.end(AT_ONCE).success(), "{:?}", controller.lines());
        hosts.ping("a", "b", "-c 10 -i 0.01 -W 1").assert_all("pings without a controller");
    }
}

#[test]
fn a_second_controller_is_refused_and_changes_nothing() {
    require!(NAMESPACES);
    let hosts = hosts("");
    let _first = run(&hosts, "");
    let before = hosts.vswitch("export").stdout;
    let file = File::new(&hosts.switch.name, "ageing = 77\n");
    let mut second = Controller::spawn(&hosts.lab.switch, &hosts.switch.name, file.0.as_str());
    let status = second.end(AT_ONCE);
    let lines = second.lines();
    assert_eq!((status.code(), lines.len()), (Some(1), 1), "{lines:?}");
    assert!(lines[0].contains("controller already"), "{lines:?}");
    assert_eq!(hosts.vswitch("export").stdout, before);
}

#[test]
fn run_with_a_file_makes_the_switch() {
    require!(NAMESPACES);
    let lab = Lab::new(Outside::Nothing, &["a", "b"]);
    lab.downlinks().for_each(|member| lab.cable(&member.name));
    let hosts = Hosts { switch: Vswitch::new(), lab };
    let ports = "[[port]]\nname = \"h0\"\n[[port]]\nname = \"h1\"\nflood = false\n";
    let file = File::new(&hosts.switch.name, &format!("ageing = 77\n{ports}"));
    let controller = run(&hosts, &file.0);
    let show = hosts.json("show");
    assert_eq!((&show[0]["ageing"], &show[0]["ports"]["count"]), (&77.into(), &2.into()), "{show}");
    // A second time it is there already.
    drop(controller);
    let _again = run(&hosts, &file.0);
    assert_eq!(hosts.json("port show h1")[0]["flood"], false);
}

#[test]
fn the_controller_removes_aged_entries_and_no_others() {
    require!(NAMESPACES);
    let hosts = hosts("--ageing 2");
    hosts.vswitch("fdb add 02:00:00:00:77:01 h0 --static");
    let _controller = run(&hosts, "");
    hosts.await_ping("a", "b");
    let kinds = |kind: &str| {
        let rows = hosts.json("fdb show");
        rows.as_array().unwrap().iter().filter(|row| row["type"] == kind).count()
    };
    assert!(kinds("learned") >= 2);
    let (fixed, local) = (kinds("static"), kinds("local"));
    until("learned entries are gone from the FDB", Duration::from_secs(8), || kinds("learned") == 0);
    assert_eq!((kinds("static"), kinds("local")), (fixed, local));
    hosts.ping("a", "b", "-c 3 -i 0.01 -W 1").assert_all("pings to a forgotten address");
}

#[test]
fn the_controller_ends_when_its_switch_is_taken_away() {
    require!(NAMESPACES);
    let hosts = hosts("");
    let mut controller = run(&hosts, "");
    hosts.vswitch("down");
    assert!(controller.end(AT_ONCE).success(), "{:?}", controller.lines());
    assert!(controller.lines().iter().any(|line| line.contains("is gone")), "{:?}", controller.lines());
    assert!(!runs(&hosts).exists(), "{} is left", runs(&hosts).display());
}

#[test]
fn down_leaves_nothing() {
    require!(NAMESPACES);
    require!(&[Need::Tool("ethtool"), Need::Tool("bpftool")]);
    let lab = Lab::new(Outside::Station, &["a", "b"]);
    lab.downlinks().for_each(|member| lab.cable(&member.name));
    let web = Netns::new("web");
    let hosts = Hosts { switch: Vswitch::new(), lab };
    let lab = &hosts.lab;
    until("the kernel has said of all links that they are up", AT_ONCE, || {
        !traces(lab)[0].contains("NO-CARRIER")
    });
    let before = traces(lab);
    let vswitch = |args: &str| hosts.vswitch(args);
    vswitch(&format!("up --uplink {UPLINK} h0"));
    vswitch("port add h1 --datapath xdp");
    vswitch(&format!("port add web0 --netns {}", web.name()));
    vswitch("port add vm0 --tap");
    let during = traces(lab);
    assert_ne!(before, during, "XDP on a veth needs its far end prepared, and ports were made");
    assert!(during[0].contains("web0") && during[0].contains("vm0"), "{}", during[0]);
    let pins = vswitch::pins(&hosts.switch.name);
    let ids = ids(&pins);
    let filters =
        || -> usize { [UPLINK, "h0", "h1"].iter().map(|ifname| filters(&lab.switch, ifname).len()).sum() };
    assert!(ids.len() + filters() >= 3 + 8 + 5, "programs, maps and links or filters: {ids:?}");
    // A controller that has ended leaves its lock behind, which goes too.
    drop(run(&hosts, ""));
    let loaded = |id: &&(&str, u64)| {
        let output = Command::new("bpftool").args([id.0, "show", "id", &id.1.to_string()]).output();
        output.expect("start bpftool").status.success()
    };
    assert_eq!(ids.iter().filter(loaded).count(), ids.len());
    vswitch("down");
    for (after, before) in traces(lab).iter().zip(&before) {
        assert_eq!(after, before);
    }
    assert_eq!(filters(), 0, "filters are left");
    assert!(!pins.exists(), "{} is left", pins.display());
    assert!(!runs(&hosts).exists(), "{} is left", runs(&hosts).display());
    assert!(!web.ip("-o link").contains(STATION_IF), "{}", web.ip("-o link"));
    // The kernel frees programs and maps from a work queue.
    until("programs, maps and links are gone", AT_ONCE, || !ids.iter().any(|id| loaded(&id)));
}

/// Everything about the lab's interfaces that a switch may change: which there are and in what state, and the offloads
/// of both ends.
fn traces(lab: &Lab) -> Vec<String> {
    let mut traces = vec![lab.switch.ip("-o link").replace("LOWERLAYERDOWN", "DOWN")];
    let far = lab.members.iter().map(|member| (&member.netns, STATION_IF));
    let near = lab.members.iter().map(|member| (&lab.switch, member.port.as_str()));
    for (netns, ifname) in far.chain(near) {
        traces.push(netns.ip(&format!("-d -o link show {ifname}")));
        traces.push(expect_success(netns.command("ethtool").args(["-k", ifname]), None));
    }
    traces
}

/// The kernel's numbers of what is pinned, with bpftool's words for their kinds.
fn ids(pins: &Path) -> BTreeSet<(&'static str, u64)> {
    let mut ids = BTreeSet::new();
    for (dir, kind) in [("programs", "prog"), ("maps", "map"), ("links", "link")] {
        let entries = fs::read_dir(pins.join(dir)).expect("the switch's pins").flatten();
        // The name of the build is no object of the kernel's.
        for pin in entries.filter(|pin| !pin.path().is_symlink()) {
            let mut command = Command::new("bpftool");
            let text = expect_success(command.args(["-j", kind, "show", "pinned"]).arg(pin.path()), None);
            let json: Value = serde_json::from_str(&text).expect("bpftool's JSON");
            ids.insert((kind, json["id"].as_u64().expect("an id")));
        }
    }
    ids
}

fn runs(hosts: &Hosts<Vswitch>) -> PathBuf {
    Path::new("/run/vswitch").join(&hosts.switch.name)
}

/// A configuration file that goes with the test.
struct File(String);

impl File {
    fn new(switch: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{switch}.toml"));
        fs::write(&path, format!("[switch]\nname = \"{switch}\"\n{text}")).expect("write a file");
        Self(path.to_str().expect("a plain path").to_owned())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}
