//! Does traffic of real hosts pass, between every kind of port and the host, with nothing lost and nothing changed?

use vswitch_tests::{
    fabric::Fabric,
    frame::{BROADCAST, UNKNOWN, to},
    hosts::Hosts,
    lab::{HOST, Lab, OUTSIDE, Outside},
    require,
    require::{NAMESPACES, Need},
    vswitch::Vswitch,
};

/// One of each kind of port: `a` by tc, `b` by XDP, the uplink and the host.
const KINDS: [&str; 4] = [OUTSIDE, HOST, "a", "b"];
const BYTES: usize = 16 << 20;
const MSS: usize = 1448;

fn hosts() -> Hosts<Vswitch> {
    Hosts::new(Vswitch::new().datapath("b", "xdp"), Lab::new(Outside::Station, &["a", "b"]))
}

#[test]
fn ping_passes_between_all_kinds_of_ports() {
    require!(NAMESPACES);
    require!(&[Need::Tool("ping")]);
    let hosts = hosts();
    for (from, to) in Hosts::<Vswitch>::pairs(&KINDS) {
        for size in ["56", "1472"] {
            let pings = hosts.ping(from, to, &format!("-c 20 -i 0.002 -W 2 -M do -s {size}"));
            pings.assert_all(&format!("ping of {size} bytes from {from} to {to}"));
        }
    }
}

#[test]
fn tcp_passes_whole_between_all_kinds_of_ports() {
    require!(NAMESPACES);
    require!(&[Need::Tool("iperf3")]);
    let hosts = hosts();
    for (from, to) in Hosts::<Vswitch>::pairs(&KINDS) {
        // Every byte by a stream of our own: what is on its way when iperf3's sender is done, it does not count.
        let again = hosts.transfer(from, to, BYTES);
        assert!(again as usize <= BYTES / MSS / in_how_many(from), "{from} to {to}: {again} segments again");
        let moved = hosts.iperf(from, to, "-n 64M");
        println!("{from:>4} -> {to:4} {:6.2} Gbit/s, {moved:?}", moved.bits_per_second / 1e9);
        assert!(moved.sent >= 64 << 20 && moved.received > 0, "{from} to {to}: {moved:?}");
        let segments = moved.sent as usize / MSS;
        assert!(moved.retransmits as usize <= segments / in_how_many(from), "{from} to {to}: {moved:?}");
    }
}

/// Of how many segments one may be sent again. Where checksums or offloads are wrong, nearly every one is; what comes in
/// by XDP through a veth comes in single frames through a ring of 256, which overflows on a busy machine. A super-frame that a busy
/// receiver has no room for is 45 segments at once: a dozen of them in 64 MiB have been seen.
fn in_how_many(from: &str) -> usize {
    if from == "b" { 10 } else { 25 }
}

#[test]
fn jumbo_frames_pass_and_frames_above_the_targets_mtu_are_counted() {
    require!(NAMESPACES);
    require!(&[Need::Tool("ping")]);
    let lab = Lab::new(Outside::Nothing, &["a", "b", "small"]).with_mtu("a", 9000).with_mtu("b", 9000);
    let hosts = Hosts::new(Vswitch::new(), lab);
    let jumbo = "-c 10 -i 0.01 -W 1 -M do -s 8972";
    hosts.ping("a", "b", jumbo).assert_all("pings of 9000 bytes from a to b");
    hosts.ping("b", "a", jumbo).assert_all("pings of 9000 bytes from b to a");

    assert_eq!(hosts.drops("a", "mtu_exceeded"), 0);
    let pings = hosts.ping("a", "small", "-c 3 -i 0.01 -W 0.2 -M do -s 1477");
    // As in the bridge (is_skb_forwardable), a frame may be longer by a VLAN tag, whether it has one or not.
    assert_eq!((pings.sent, pings.received), (3, 0), "a byte more than the target's MTU and a tag");
    assert_eq!(hosts.drops("a", "mtu_exceeded"), 3);
    hosts.ping("a", "small", "-c 3 -i 0.01 -W 1 -M do -s 1472").assert_all("pings of the target's MTU");
    assert_eq!(hosts.drops("a", "mtu_exceeded"), 3);

    // A GSO super-frame is longer than any MTU, and passes: its segments are not.
    hosts.transfer("a", "b", BYTES);
    hosts.transfer("b", "small", BYTES);
    hosts.transfer("small", "a", BYTES);
}

#[test]
fn tagged_frames_pass_untouched() {
    require!(NAMESPACES);
    // A row's receivers are marked where a frame does not arrive byte for byte as it was sent.
    for datapath in ["tc", "xdp"] {
        let switch = Vswitch::new().datapath("a", datapath).datapath("b", datapath);
        let fabric = Fabric::new(switch, Lab::new(Outside::Station, &["a", "b"]));
        fabric.introduce();
        fabric.check(
            datapath,
            &[
                ("a", to("b").tci(0xe00a), "b"),
                ("b", to("a").vlan(4094).len(1518), "a"),
                ("a", to(OUTSIDE).tci(0x1fff), OUTSIDE),
                (OUTSIDE, to("b").tci(0), "b"),
                ("a", to(UNKNOWN).vlan(7), "b ext"),
                (OUTSIDE, to(BROADCAST).tci(0x6007), "a b (host)"),
            ],
        );
    }
}
