//! Are contents and checksums right on every path, whatever the endpoints leave to their devices?

use std::{collections::BTreeMap, fs, time::Instant};

use serde_json::Value;
use vswitch_tests::{
    campaign::amount,
    frame::{Mac, to},
    guest::Guest,
    hosts::{Hosts, until},
    lab::{HOST, Lab, OUTSIDE, Outside, STATION_IF, UPLINK},
    require,
    require::{NAMESPACES, Need},
    stream::{self, TIMEOUT, tcp, udp},
    tap::{CSUM, SEGMENTS},
    topo::Netns,
    vswitch::Vswitch,
    wire::{Ear, Station},
};

/// Two stations by tc and two by XDP, so that there is a path within each datapath; a guest behind a tap; and the host.
const ENDS: [&str; 7] = [OUTSIDE, HOST, "tc1", "tc2", "xdp1", "xdp2", GUEST];
const GUEST: &str = "guest";
const GUEST_PORT: &str = "vm0";
const GUEST_MAC: Mac = [0x02, 0, 0, 0, 9, 1];
const GUEST_ADDRESS: &str = "10.9.0.99";
const MIB: usize = 1 << 20;
const MSS: usize = 1448;
/// Segments or windows that are sent again because the machine was busy for a moment.
const SLACK: usize = 40;
/// Bytes of a UDP window, of [`stream`].
const WINDOW: usize = 40 * 1464;

/// What an endpoint leaves to its device, and takes from it.
#[derive(Clone, Copy, Debug)]
struct Offloads {
    checksum: bool,
    segments: bool,
    merged: bool,
}

impl Offloads {
    fn all() -> impl Iterator<Item = Self> {
        (0..8).map(|bits| Self { checksum: bits & 1 == 0, segments: bits & 2 == 0, merged: bits & 4 == 0 })
    }
}

#[test]
fn contents_and_checksums_are_right_on_every_path_with_any_offloads() {
    require!(NAMESPACES);
    require!(&[Need::Tool("ethtool")]);
    let bytes = amount(MIB, 256 * MIB);
    let ends = Ends::new();
    let before = ends.counters();
    for offloads in Offloads::all() {
        ENDS.iter().for_each(|name| ends.set(name, offloads));
        let (started, mut again) = (Instant::now(), (0, 0));
        for (from, to) in Hosts::<Vswitch>::pairs(&ENDS).filter(|pair| is_a_path(*pair)) {
            let segments = ends.tcp(from, to, bytes);
            assert!(
                segments as usize <= bytes / MSS / in_how_many(from, to) + SLACK,
                "{from} to {to}, {offloads:?}: {segments} segments again"
            );
            let windows = ends.udp(from, to, bytes, offloads.segments);
            assert!(
                windows as usize <= bytes / WINDOW / 20 + SLACK,
                "{from} to {to}, {offloads:?}: {windows} windows again"
            );
            again = (again.0 + segments, again.1 + windows);
        }
        let after = ends.counters();
        assert_eq!(after, before, "checksum and interface errors, {offloads:?}");
        println!("{offloads:?}: {:.1?}, again {again:?} segments and windows", started.elapsed());
    }
    // What vswitch has made ready for XDP was left alone, and is still so.
    for name in ["xdp1", "xdp2"] {
        let features = features(ends.netns(name), STATION_IF);
        assert!(!features["tx-checksumming"] && features["generic-receive-offload"], "{name}: {features:?}");
    }
}

/// From an end to each other, but within a datapath once.
fn is_a_path(pair: (&str, &str)) -> bool {
    let second = |name: &str| name.ends_with('2');
    !second(pair.0)
        && (!second(pair.1) || matches!(pair, ("tc1", _) | ("xdp1", _)) && pair.0[..2] == pair.1[..2])
}

/// Of how many segments one may be sent again: see `traffic.rs`. The guest's frames are handed on one by one, from queues
/// of 1000 that overflow, too.
fn in_how_many(from: &str, to: &str) -> usize {
    if from.starts_with("xdp") || [from, to].contains(&GUEST) { 10 } else { 100 }
}

/// The counters count, or the test above would prove nothing.
#[test]
fn a_wrong_checksum_is_counted() {
    require!(NAMESPACES);
    let ends = Ends::new();
    let before = ends.counters();
    let lab = &ends.hosts.lab;
    let station = Station::new("tc1", ends.netns("tc1"), STATION_IF, lab.mac("tc1"), Ear::Deaf);
    let mut frame = to(lab.mac("tc2")).ethertype(0x0800).bytes(lab.mac("tc2"), station.mac, 0);
    let last = |name: &str| {
        ends.address(name).rsplit('.').next().and_then(|last| last.parse().ok()).expect("a number")
    };
    let mut ip: [u8; 20] =
        [0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, last("tc1"), 10, 9, 0, last("tc2")];
    let sum = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    frame[14..34].copy_from_slice(&ip);
    let socket = ends.netns("tc2").run(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("bind");
    let port = socket.local_addr().expect("bound").port().to_be_bytes();
    frame[34..46].copy_from_slice(&[0x13, 0x88, port[0], port[1], 0, 12, 0xba, 0xd0, 1, 2, 3, 4]);
    station.send(&frame);
    let mut wanted = before;
    *wanted.get_mut(&("tc2", "UDP checksum")).expect("a counter") += 1;
    until("the wrong checksum is counted", TIMEOUT, || ends.counters() == wanted);
}

/// The lab at work, its guest included.
struct Ends {
    // Before its tap's switch.
    guest: Guest,
    hosts: Hosts<Vswitch>,
}

impl Ends {
    fn new() -> Self {
        let switch = Vswitch::new().datapath("xdp1", "xdp").datapath("xdp2", "xdp");
        let lab = Lab::new(Outside::Station, &["tc1", "tc2", "xdp1", "xdp2"]);
        let hosts = Hosts::new(switch, lab);
        hosts.vswitch(&format!("port add {GUEST_PORT} --tap"));
        let guest = Guest::new(&hosts.lab.switch, GUEST_PORT, GUEST_MAC, GUEST_ADDRESS);
        let ends = Self { guest, hosts };
        until("the guest is reached", TIMEOUT, || {
            ends.hosts.ping_address("tc1", GUEST_ADDRESS, "-c 1 -W 0.2").received == 1
        });
        ends
    }

    fn netns(&self, name: &str) -> &Netns {
        if name == GUEST { &self.guest.netns } else { self.hosts.netns(name) }
    }

    fn address(&self, name: &str) -> String {
        if name == GUEST { GUEST_ADDRESS.to_owned() } else { self.hosts.address(name) }
    }

    fn tcp(&self, from: &str, to: &str, bytes: usize) -> u32 {
        let addresses = [from, to].map(|name| self.address(name));
        let host = |name, address| stream::Host { name, netns: self.netns(name), address };
        tcp(host(from, &addresses[0]), host(to, &addresses[1]), bytes)
    }

    fn udp(&self, from: &str, to: &str, bytes: usize, segmented: bool) -> u32 {
        let addresses = [from, to].map(|name| self.address(name));
        let host = |name, address| stream::Host { name, netns: self.netns(name), address };
        udp(host(from, &addresses[0]), host(to, &addresses[1]), bytes, segmented)
    }

    /// At an XDP port what leaves its far end must be whole, and NAPI stay: vswitch has seen to that.
    fn set(&self, name: &str, Offloads { checksum, segments, merged }: Offloads) {
        let on = |on: bool| if on { "on" } else { "off" };
        let ifname = if name == HOST { UPLINK } else { STATION_IF };
        let gso = format!("gso {0} tso {0}", on(segments));
        let words = if name.starts_with("xdp") {
            format!("gso {}", on(segments))
        } else {
            format!("tx {} {gso} gro {}", on(checksum), on(merged))
        };
        // Without checksums there is no TSO whatever is said, which ethtool calls a failure.
        let mut command = self.netns(name).command("ethtool");
        let _partly = command.args(["-K", ifname]).args(words.split(' ')).output().expect("start ethtool");
        let features = features(self.netns(name), ifname);
        assert_eq!(features["generic-segmentation-offload"], segments, "{name}: {features:?}");
        if !name.starts_with("xdp") {
            assert_eq!(features["tx-checksumming"], checksum, "{name}: {features:?}");
            assert_eq!(features["tx-tcp-segmentation"], segments && checksum, "{name}: {features:?}");
            assert_eq!(features["generic-receive-offload"], merged, "{name}: {features:?}");
        }
        if name == GUEST {
            let segments = if segments && checksum { SEGMENTS } else { 0 };
            self.guest.tap.offload(if checksum { CSUM | segments } else { 0 });
        }
    }

    /// Each end's count of bad checksums, and of errors at both ends of its cable.
    fn counters(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut all = BTreeMap::new();
        for name in ENDS {
            let netns = self.netns(name);
            // The thread's: the process is in another namespace.
            let snmp = netns.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).expect("read snmp");
            for (what, protocol) in [("TCP checksum", "Tcp:"), ("UDP checksum", "Udp:")] {
                all.insert((name, what), counter(&snmp, protocol, "InCsumErrors"));
            }
            all.insert((name, "errors of its interfaces"), errors(netns));
        }
        all
    }
}

fn counter(snmp: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = snmp.lines().filter(|line| line.starts_with(protocol)).map(str::split_whitespace);
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.zip(values).find(|(known, _)| *known == name);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {snmp}"))
}

/// Receive and send errors of all interfaces.
fn errors(netns: &Netns) -> u64 {
    let rows: Value = serde_json::from_str(&netns.ip("-j -s link show")).expect("JSON of ip");
    let rows = rows.as_array().expect("rows").iter();
    let number = |row: &Value, path| row.pointer(path).and_then(Value::as_u64).expect("a count");
    rows.map(|row| number(row, "/stats64/rx/errors") + number(row, "/stats64/tx/errors")).sum()
}

/// What `ethtool -k` calls on.
fn features(netns: &Netns, ifname: &str) -> BTreeMap<String, bool> {
    let output = netns.command("ethtool").args(["-k", ifname]).output().expect("start ethtool");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.trim().split_once(": "));
    pairs.map(|(name, value)| (name.to_owned(), value.starts_with("on"))).collect()
}
