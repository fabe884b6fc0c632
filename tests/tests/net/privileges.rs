//! What does each command keep of its privileges, and is that enough for what it does?

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use vswitch_ebpf::abi::ABI_VERSION;
use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    hosts::{Hosts, Killed, until},
    lab::{Lab, OUTSIDE, Outside, STATION_IF},
    require,
    require::{NAMESPACES, Need},
    topo::{Netns, expect_success},
    vswitch::{self, Vswitch},
};

use crate::{abi_shapes::age, bad_input::TempFile};

const NEEDS: &[Need] =
    &[Need::Tool("ethtool"), Need::Tool("ping"), Need::Tool("setpriv"), Need::Tool("unshare")];

/// The longest that a controller takes to look again at what no event tells.
const RECONCILE: Duration = Duration::from_secs(30);

const NOTHING: &str = "0000000000000000";
/// CAP_BPF and CAP_NET_ADMIN.
const FOLLOWING: &str = "0000008000001000";
/// With CAP_PERFMON, CAP_SYS_ADMIN and CAP_SYS_PTRACE.
const IN_RESERVE: &str = "000000c000281000";

fn hosts() -> Hosts<Vswitch> {
    Hosts::new(Vswitch::new().datapath("b", "xdp"), Lab::new(Outside::Station, &["a", "b"]))
}

/// The capabilities of a process: in force, and permitted.
fn capabilities(child: &Child) -> [String; 2] {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    ["CapEff:\t", "CapPrm:\t"].map(|name| {
        status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of the kernel's").to_owned()
    })
}

#[test]
fn a_command_that_only_reads_gives_up_every_privilege() {
    require!(NAMESPACES);
    let hosts = hosts();
    let mut command = vswitch::command(&hosts.lab.switch, &hosts.switch.name, "stats --watch 1");
    let child = command.stdout(Stdio::null()).spawn().expect("start vswitch stats");
    let child = Killed(child);
    until("it has given up all", AT_ONCE, || capabilities(&child.0) == [NOTHING, NOTHING]);
}

/// The far end is in another namespace, which takes privileges to look into.
#[test]
fn the_faults_of_far_ends_are_told() {
    require!(NAMESPACES);
    require!(&[Need::Tool("ethtool")]);
    let hosts = hosts();
    expect_success(hosts.netns("b").command("ethtool").args(["-K", STATION_IF, "tx", "on"]), None);
    let fault = "is no longer made ready: tx-checksumming of the peer off";
    let port = &hosts.lab.member("b").port;
    assert_eq!(hosts.json(&format!("port show {port}"))[0]["faults"], json!([fault]));
    assert_eq!(hosts.json("show")[0]["faults"], json!([format!("{port}: {fault}")]));
}

#[test]
fn a_controller_keeps_what_repair_takes() {
    require!(NAMESPACES);
    let hosts = hosts();
    let controller = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    // While it repairs, it has what is in reserve.
    until("it can only follow", AT_ONCE, || controller.status("CapEff") == FOLLOWING);
    assert_eq!(controller.status("CapPrm"), IN_RESERVE);
    assert_eq!(controller.status("NoNewPrivs"), "1");
}

/// The far end of an XDP port is made ready in its own namespace, which may be known by the processes in it alone.
#[test]
fn a_controller_reaches_far_ends_in_namespaces_without_a_name() {
    require!(NAMESPACES);
    require!(NEEDS);
    let hosts = hosts();
    let switch = &hosts.lab.switch;
    // As another user, whose processes root alone may look into.
    let mut container = switch.command("unshare");
    container.args(["--net", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "1000"]);
    let container = Killed(container.spawn().expect("start unshare"));
    let pid = container.0.id();
    let home = fs::read_link(format!("/proc/{}/ns/net", std::process::id())).unwrap();
    let ours = || fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let named = fs::metadata(switch.path()).unwrap();
    until("it has a namespace of its own", AT_ONCE, || {
        use std::os::unix::fs::MetadataExt as _;
        ours() != home && !ours().to_string_lossy().contains(&named.ino().to_string())
    });
    let cable = || {
        // Up at once, or the controller may find it down and put that right as well.
        switch.ip(&format!("link add c0 up type veth peer name {STATION_IF} netns {pid}"));
        let mut up = Command::new("nsenter");
        up.args([&format!("--net=/proc/{pid}/ns/net"), "--", "ip", "link", "set", STATION_IF, "up"]);
        assert!(up.status().unwrap().success());
    };
    cable();
    hosts.vswitch("port add c0 --datapath xdp");
    let notes = || hosts.json("port show c0")[0]["notes"].to_string();
    let ready = notes();
    assert!(ready.contains("of the peer"), "{ready}");
    let controller = Controller::start(switch, &hosts.switch.name, "");
    switch.ip("link del c0");
    controller.await_line("\"c0\": the interface is gone");
    cable();
    controller.await_line("\"c0\": attached");
    assert_eq!(notes(), ready);
}

/// What the unit's bounding set says, as setpriv wants it.
fn of_the_unit() -> String {
    // As it was built: another kernel's machine has no source tree.
    let line = include_str!("../../../vswitch/dist/vswitch@.service")
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("a set");
    let names = line.split_whitespace().map(|name| format!(",+{}", name[4..].to_lowercase()));
    format!("--bounding-set=-all{}", names.collect::<String>())
}

/// `vswitch ARGS` with the unit's capabilities and no others.
fn limited(netns: &Netns, name: &str, args: &str) -> Command {
    let mut command = netns.command("setpriv");
    command.args([&of_the_unit(), "--inh-caps=-all"]).arg(vswitch::binary()).args(["-s", name]);
    command.args(args.split_whitespace());
    command
}

#[test]
fn the_units_capabilities_are_enough_for_all_that_a_switch_does() {
    require!(NAMESPACES);
    require!(NEEDS);
    let lab = Lab::new(Outside::Station, &["a", "b"]);
    let hosts = Hosts { switch: Vswitch::new(), lab };
    let (switch, name) = (&hosts.lab.switch, &hosts.switch.name);
    let a = hosts.netns("a").name();
    let file = TempFile::new(&format!(
        "[switch]\nname = \"{name}\"\n[[port]]\nname = \"nic0\"\nrole = \"uplink\"\n[[port]]\nname = \"h0\"\nnetns = \"{a}\"\n"
    ));
    let mut controller = Controller::of(limited(switch, name, &format!("run {}", file.path())));
    controller.await_ready();
    drop(file);
    for station in ["a", OUTSIDE] {
        let address = hosts.address(station);
        hosts.netns(station).ip(&format!("address add {address}/24 dev {STATION_IF}"));
    }
    hosts.await_ping("a", OUTSIDE);

    hosts.lab.cable("b");
    hosts.netns("b").ip(&format!("address add {}/24 dev {STATION_IF}", hosts.address("b")));
    let far = Netns::new("far");
    for args in [
        "port add h1 --datapath xdp".to_owned(),
        "port add t0 --tap".to_owned(),
        format!("port add n0 --netns {}", far.name()),
        "port set n0 --mode private".to_owned(),
        "port set n0 --mac 02:00:00:00:77:07".to_owned(),
        "fdb add 02:00:00:00:77:01 h1 --static".to_owned(),
        "fdb flush".to_owned(),
        "port del n0".to_owned(),
        "stats".to_owned(),
    ] {
        let output = limited(switch, name, &args).output().unwrap();
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    }
    hosts.await_ping("b", "a");
    // What is changed in another namespace is told at once, and not only found when everything is looked at.
    controller.notices(": put right", || {
        expect_success(hosts.netns("b").command("ethtool").args(["-K", STATION_IF, "tx", "on"]), None);
    });
    // Repair: the far end in its namespace is made ready again, and its address is known again.
    for ifname in ["h0", "h1"] {
        switch.ip(&format!("link del {ifname}"));
        controller.await_line(&format!("\"{ifname}\": the interface is gone"));
    }
    hosts.lab.cable("b");
    hosts.netns("b").ip(&format!("address add {}/24 dev {STATION_IF}", hosts.address("b")));
    switch.ip(&format!("link add h0 type veth peer name {STATION_IF} netns {a}"));
    hosts.netns("a").ip(&format!("link set {STATION_IF} up"));
    switch.ip("link set h0 up");
    hosts.netns("a").ip(&format!("address add {}/24 dev {STATION_IF}", hosts.address("a")));
    for ifname in ["h0", "h1"] {
        controller.await_line(&format!("\"{ifname}\": attached"));
    }
    assert_eq!(hosts.json("port show h1")[0]["datapath"], "xdp");
    hosts.await_ping("b", "a");
    hosts.await_ping("a", OUTSIDE);

    // An upgrade that was killed is completed: its mark is missing (dataplane/programs.rs).
    let pins = vswitch::pins(name);
    fs::remove_file(pins.join("programs/build")).unwrap();
    until("the programs are replaced", RECONCILE, || pins.join("programs/build").symlink_metadata().is_ok());

    let loud = Controller::of(limited(switch, name, "run --log-packets"));
    loud.await_line("is its controller already");
    controller.signal(libc::SIGTERM);
    assert!(controller.end(AT_ONCE).success(), "{:?}", controller.lines());
    // And a switch of another ABI goes over to this one.
    age(name);
    let mut loud = Controller::of(limited(switch, name, "run --log-packets"));
    loud.await_line(&format!("-> {ABI_VERSION}"));
    loud.await_ready();
    hosts.ping("b", "a", "-c 10 -i 0.01 -W 1").assert_all("pings after an upgrade");
    loud.signal(libc::SIGTERM);
    assert!(loud.end(AT_ONCE).success(), "the silent programs are back: {:?}", loud.lines());
    let output = limited(switch, name, "down").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_umask_does_not_keep_the_group_out() {
    require!(NAMESPACES);
    let (netns, name) = (Netns::new("umask"), vswitch::unique_name());
    netns.ip("link add h0 type veth peer name h1");
    let mut up = netns.command("sh");
    up.args(["-c", r#"umask 077; exec "$0" -s "$1" up h0"#]).arg(vswitch::binary()).arg(&name);
    let output = up.output().unwrap();
    let pins = vswitch::pins(&name);
    let mode = |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    let modes =
        [&pins, &pins.join("maps"), &pins.join("maps/FDB"), &pins.join("links")].map(|path| mode(path));
    vswitch::run(&netns, &name, "down");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(modes.map(Result::unwrap), [0o750, 0o750, 0o640, 0o700]);
}
