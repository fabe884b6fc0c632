//! vswitch as the reflecting switch: two instances face each other, VEPA stations below, `hairpin on` above.

use std::time::Duration;

use vswitch_tests::{
    fabric::Fabric,
    frame::{BROADCAST, MULTICAST, UNKNOWN, to},
    hosts::{Hosts, until},
    lab::{Lab, OUTSIDE, Outside, STATION_IF},
    require,
    require::NAMESPACES,
    topo::{End, Netns, veth},
    vswitch::{self, Vswitch},
};

const STATIONS: [(&str, &str); 5] =
    [("v1", "vepa"), ("v2", "vepa"), ("v3", "vepa"), ("p1", "private"), ("p2", "private")];
const PINGS: &str = "-c 5 -i 0.02 -W 1";

/// The upper switch, in the namespace of the station `ext`, whose interface is its port towards the lower one.
struct Upper {
    name: String,
    machine: String,
    /// Behind its other port.
    _out: Netns,
}

/// The lower switch's lab.
fn lower() -> (Lab, Vswitch) {
    let lab = Lab::new(Outside::Station, &STATIONS.map(|(name, _)| name));
    let vswitch = STATIONS
        .iter()
        .fold(Vswitch::new(), |vswitch, (name, mode)| vswitch.child(name, &format!("--mode {mode}")));
    (lab, vswitch)
}

impl Upper {
    fn start(lab: &Lab, datapath: &str) -> Self {
        let machine = &lab.member(OUTSIDE).netns;
        let out = Netns::new("out");
        let near = End { netns: machine, ifname: "o0", mac: [2, 0, 0, 0, 8, 0] };
        veth(near, End { netns: &out, ifname: STATION_IF, mac: [2, 0, 0, 0, 8, 1] });
        let name = vswitch::unique_name();
        vswitch::run(machine, &name, "up o0");
        vswitch::run(machine, &name, &format!("port add {STATION_IF} --hairpin on --datapath {datapath}"));
        Self { name, machine: machine.path().display().to_string(), _out: out }
    }
}

impl Drop for Upper {
    fn drop(&mut self) {
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net={}", self.machine)).arg("--").arg(vswitch::binary());
        let _gone = command.args(["-s", &self.name, "down"]).output();
    }
}

#[test]
fn stations_hear_each_other_once_and_themselves_never() {
    require!(NAMESPACES);
    for datapath in ["tc", "xdp"] {
        let (lab, vswitch) = lower();
        let fabric = Fabric::new(vswitch, lab);
        let _upper = Upper::start(&fabric.lab, datapath);
        // Introduced: but not by ext, which is a port of the upper switch now.
        let names = STATIONS.map(|(name, _)| name).into_iter().chain(["host"]);
        fabric.exchange(&names.map(|name| (name, to(BROADCAST))).collect::<Vec<_>>());
        fabric.check(
            datapath,
            &[
                // ext is the wire: what is heard there went up, once.
                ("v1", to("v2"), "ext v2"),
                ("v2", to("v1"), "ext v1"),
                ("v1", to(BROADCAST), "ext v2 v3 host"),
                ("v2", to(MULTICAST), "ext v1 v3 host"),
                ("v3", to(BROADCAST).vlan(7), "ext v1 v2 (host)"),
                ("v1", to(UNKNOWN), "ext"),
                ("p1", to(BROADCAST), "ext host"),
                ("p1", to("p2"), "ext"),
                ("p1", to("v1"), "ext"),
                ("v1", to("p1"), "ext"),
                ("host", to(BROADCAST), "ext v1 v2 v3 p1 p2"),
                ("v1", to("host"), "host"),
                ("host", to("v1"), "v1"),
                ("host", to("p1"), "p1"),
            ],
        );
    }
}

#[test]
fn vepa_stations_ping_each_other_and_private_ones_do_not() {
    require!(NAMESPACES);
    for datapath in ["tc", "xdp"] {
        let (lab, vswitch) = lower();
        let mut hosts = Hosts { switch: vswitch, lab };
        vswitch_tests::fabric::Switch::start(&mut hosts.switch, &hosts.lab);
        let _upper = Upper::start(&hosts.lab, datapath);
        for (name, _) in STATIONS {
            hosts.netns(name).ip(&format!("address add {}/24 dev {STATION_IF}", hosts.address(name)));
        }
        hosts.await_ping("v1", "v2");
        let names = STATIONS.map(|(name, _)| name);
        for (from, to) in Hosts::<Vswitch>::pairs(&names) {
            let title = format!("{from} to {to}, {datapath}");
            if from.starts_with('v') && to.starts_with('v') {
                hosts.ping(from, to, PINGS).assert_all(&title);
            } else {
                assert_eq!(hosts.ping(from, to, "-c 2 -i 0.02 -W 0.1").received, 0, "{title}");
            }
        }
    }
}

/// Whoever hears its own neighbour solicitation takes its address for somebody else's.
#[test]
fn ipv6_finds_no_duplicate_address() {
    require!(NAMESPACES);
    for datapath in ["tc", "xdp"] {
        let (lab, vswitch) = lower();
        let mut hosts = Hosts { switch: vswitch, lab };
        vswitch_tests::fabric::Switch::start(&mut hosts.switch, &hosts.lab);
        let _upper = Upper::start(&hosts.lab, datapath);
        for (number, (name, _)) in (1..).zip(STATIONS) {
            let netns = hosts.netns(name);
            netns.sysctl(&format!("net/ipv6/conf/{STATION_IF}/accept_dad"), "1");
            netns.sysctl(&format!("net/ipv6/conf/{STATION_IF}/disable_ipv6"), "0");
            netns.ip(&format!("address add fd00::{number}/64 dev {STATION_IF}"));
        }
        for (name, _) in STATIONS {
            let shown = || hosts.netns(name).ip(&format!("-6 address show dev {STATION_IF}"));
            // Also after a failure it is tentative no more... but then it says so.
            until("addresses are no longer tentative", Duration::from_secs(5), || {
                let shown = shown();
                shown.contains("inet6 fe80") && (!shown.contains("tentative") || shown.contains("dadfailed"))
            });
            assert!(!shown().contains("dadfailed"), "{name}, {datapath}: {}", shown());
        }
        until("v1 reaches v2", Duration::from_secs(5), || {
            hosts.ping_address("v1", "fd00::2", "-6 -c 1 -W 0.2").received == 1
        });
        hosts.ping_address("v2", "fd00::3", "-6 -c 5 -i 0.02 -W 1").assert_all("IPv6 pings");
        let silent = hosts.ping_address("p1", "fd00::5", "-6 -c 2 -i 0.02 -W 0.1");
        assert_eq!(silent.received, 0, "private stations by IPv6");
    }
}
