//! Does a tap port carry frames as a virtual machine exchanges them: with virtio-net headers and half-made checksums?

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use vswitch_tests::{
    frame::Mac,
    hosts::{Hosts, until},
    lab::{Lab, Outside, STATION_IF},
    require,
    require::NAMESPACES,
    tap::{CSUM, NEEDS_CSUM, Tap, VNET_LEN},
    vswitch::Vswitch,
};

const GUEST: Mac = [0x02, 0, 0, 0, 9, 1];
const GUEST_IP: [u8; 4] = [10, 9, 0, 99];
const PATIENCE: Duration = Duration::from_secs(5);
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const ICMP: u8 = 1;
const UDP: u8 = 17;
/// Where things are in a frame with an IPv4 header without options.
const IP: usize = 14;
const L4: usize = IP + 20;

/// A station `a` by tc, a station `b` by XDP, and a tap that the switch has made, with a guest behind it.
fn guest() -> (Hosts<Vswitch>, Tap) {
    let hosts = Hosts::new(Vswitch::new().datapath("b", "xdp"), Lab::new(Outside::Nothing, &["a", "b"]));
    hosts.vswitch("port add vm0 --tap");
    let tap = Tap::open(&hosts.lab.switch, "vm0");
    until("the tap's port forwards", PATIENCE, || hosts.json("port show vm0")[0]["state"] == "forwarding");
    (hosts, tap)
}

#[test]
fn a_guest_answers_arp_and_ping() {
    require!(NAMESPACES);
    let (hosts, tap) = guest();
    let pings = thread::scope(|scope| {
        scope.spawn(|| tap.serve(answer));
        let pings =
            ["a", "b"].map(|from| hosts.ping_address(from, "10.9.0.99", "-c 20 -i 0.005 -W 2 -s 1000"));
        tap.stop();
        pings
    });
    pings.into_iter().for_each(|pings| pings.assert_all("pings to the guest"));
    let entry = hosts.json("fdb get 02:00:00:00:09:01");
    assert_eq!((&entry[0]["ifname"], &entry[0]["type"]), (&"vm0".into(), &"learned".into()), "{entry}");
}

#[test]
fn a_checksum_that_the_sender_left_open_is_right_at_the_guest() {
    require!(NAMESPACES);
    let (hosts, tap) = guest();
    hosts.lab.member("a").netns.ip("neighbour add 10.9.0.99 lladdr 02:00:00:00:09:01 dev eth0");
    hosts.lab.member("b").netns.ip("neighbour add 10.9.0.99 lladdr 02:00:00:00:09:01 dev eth0");
    for (takes_partial, station) in [(false, "a"), (true, "a"), (false, "b"), (true, "b")] {
        tap.offload(if takes_partial { CSUM } else { 0 });
        let socket = hosts.netns(station).run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.send_to(&[0xab; 999], "10.9.0.99:4789").unwrap();
        let (header, mut frame) = tap.receive(PATIENCE, |frame| frame[12..14] == IPV4 && frame[23] == UDP);
        // By XDP the sender makes its checksums itself: the switch saw to that.
        let partial = header[0] & NEEDS_CSUM != 0;
        assert_eq!(partial, takes_partial && station == "a", "{station}, header {header:02x?}");
        if partial {
            let start = usize::from(u16::from_ne_bytes([header[6], header[7]]));
            let offset = usize::from(u16::from_ne_bytes([header[8], header[9]]));
            assert_eq!((start, offset), (L4, 6), "where the checksum of UDP goes");
            let sum = !sum(&frame[start..], 0);
            frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(udp_sum(&frame), 0xffff, "{station}, guest takes partial checksums: {takes_partial}");
        assert!(frame[L4 + 8..].iter().all(|byte| *byte == 0xab) && frame.len() == L4 + 8 + 999);
    }
}

#[test]
fn a_checksum_that_the_guest_left_open_is_right_at_the_station() {
    require!(NAMESPACES);
    let (hosts, tap) = guest();
    for station in ["a", "b"] {
        let socket = hosts.netns(station).run(|| UdpSocket::bind("0.0.0.0:4789")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let last = hosts.address(station).rsplit('.').next().unwrap().parse().unwrap();
        for partial in [true, false] {
            let mut frame = udp(hosts.lab.mac(station), last, 600);
            // A guest leaves the sum of the pseudo header there; otherwise the whole.
            let pseudo = sum(&[&frame[IP + 12..IP + 20], &[0, UDP], &frame[L4 + 4..L4 + 6]].concat(), 0);
            let check = if partial { pseudo } else { !sum(&frame[L4..], pseudo) };
            frame[L4 + 6..L4 + 8].copy_from_slice(&check.to_be_bytes());
            let mut header = [0; VNET_LEN];
            if partial {
                header[0] = NEEDS_CSUM;
                header[6..8].copy_from_slice(&(L4 as u16).to_ne_bytes());
                header[8..10].copy_from_slice(&6_u16.to_ne_bytes());
            }
            tap.send(&header, &frame);
            let mut buffer = [0; 2000];
            let (len, _) = socket.recv_from(&mut buffer).unwrap_or_else(|err| {
                panic!("{station} hears nothing of the guest (partial checksum: {partial}): {err}")
            });
            assert_eq!(len, 600);
        }
    }
    // A stack drops a wrong checksum, or the test above would prove nothing.
    let socket = hosts.netns("a").run(|| UdpSocket::bind("0.0.0.0:4790")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut frame = udp(hosts.lab.mac("a"), 10, 600);
    frame[L4 + 2..L4 + 4].copy_from_slice(&4790_u16.to_be_bytes());
    frame[L4 + 6..L4 + 8].copy_from_slice(&[0xba, 0xd0]);
    tap.send(&[0; VNET_LEN], &frame);
    let started = Instant::now();
    assert!(socket.recv_from(&mut [0; 2000]).is_err(), "a wrong checksum reached {STATION_IF}");
    assert!(started.elapsed() < PATIENCE);
}

/// What the guest answers, if anything.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let mut reply = frame.to_vec();
    let (ethertype, sender) = (frame.get(12..14)?, frame.get(6..12)?);
    reply[..6].copy_from_slice(sender);
    reply[6..12].copy_from_slice(&GUEST);
    if ethertype == ARP && frame.get(20..22)? == [0, 1] && frame.get(38..42)? == GUEST_IP {
        reply[21] = 2;
        reply[32..42].copy_from_slice(&frame[22..32]);
        reply[22..28].copy_from_slice(&GUEST);
        reply[28..32].copy_from_slice(&GUEST_IP);
        return Some(reply);
    }
    let is_echo = ethertype == IPV4 && frame.get(23)? == &ICMP && frame.get(L4)? == &8;
    if !is_echo || frame.get(30..34)? != GUEST_IP {
        return None;
    }
    reply[26..30].copy_from_slice(&frame[30..34]);
    reply[30..34].copy_from_slice(&frame[26..30]);
    reply[L4] = 0;
    reply[L4 + 2..L4 + 4].fill(0);
    let check = !sum(&reply[L4..], 0);
    reply[L4 + 2..L4 + 4].copy_from_slice(&check.to_be_bytes());
    Some(reply)
}

/// A datagram from the guest to 10.9.0.`last`, without UDP checksum yet.
fn udp(dst: Mac, last: u8, len: usize) -> Vec<u8> {
    let total = (20 + 8 + len) as u16;
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0, 10, 9, 0, 99, 10, 9, 0, last];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let check = !sum(&ip, 0);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let head = [5000_u16, 4789, total - 20, 0].map(u16::to_be_bytes).concat();
    [&dst[..], &GUEST, &IPV4, &ip, &head, &vec![0x5a; len]].concat()
}

/// 0xffff where the checksum of a UDP datagram is right.
fn udp_sum(frame: &[u8]) -> u16 {
    sum(&frame[L4..], sum(&[&frame[IP + 12..IP + 20], &[0, UDP], &frame[L4 + 4..L4 + 6]].concat(), 0))
}

/// The Internet checksum's sum (RFC 1071), not inverted.
fn sum(bytes: &[u8], start: u16) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.sum::<u32>() + u32::from(start);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
