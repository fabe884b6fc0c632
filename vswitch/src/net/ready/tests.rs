//! Which datapath, which actions and which refusals follow from which facts?

use super::{
    super::{Master, Peer, XdpMode},
    *,
};

fn link(ifname: &str, kind: LinkKind, driver: &str) -> Link {
    Link {
        ifindex: 7,
        ifname: ifname.into(),
        mac: [2, 0, 0, 0, 0, 7],
        ethernet: true,
        kind,
        mtu: 1500,
        up: true,
        carrier: true,
        promisc: false,
        master: None,
        peer: None,
        xdp: None,
        alias: None,
        driver: Some(driver.into()),
    }
}

/// As a NIC or veth comes: every offload on, but neither GRO (veth) nor LRO.
const FRESH: Features =
    Features { gro: false, tso: true, tx_csum: true, lro: false, rx_vlan: true, tx_vlan: true };

fn nic(driver: &str) -> Facts {
    Facts { link: link("eth0", LinkKind::Physical, driver), features: FRESH, peer: None }
}

fn veth() -> Facts {
    let mut near = link("web0", LinkKind::Veth, "veth");
    near.peer = Some(Peer { ifindex: 2, netnsid: Some(0) });
    let far = link("eth0", LinkKind::Veth, "veth");
    let peer = PeerFacts { link: far, features: FRESH, netns: Some("web".into()) };
    Facts { link: near, features: FRESH, peer: Some(peer) }
}

fn tap() -> Facts {
    Facts { link: link("tap0", LinkKind::Tap, "tun"), features: FRESH, peer: None }
}

fn ready(facts: &Facts, wanted: Datapath) -> Readiness {
    readiness(facts, wanted, Role::Downlink, &[]).unwrap()
}

fn refused(facts: &Facts, wanted: Datapath) -> String {
    readiness(facts, wanted, Role::Downlink, &[]).unwrap_err().to_string()
}

#[test]
fn auto_is_tc_where_a_stack_is_behind_and_xdp_on_a_nic() {
    assert_eq!(ready(&veth(), Datapath::Auto).datapath, Datapath::Tc);
    assert_eq!(ready(&tap(), Datapath::Auto).datapath, Datapath::Tc);
    for kind in [LinkKind::Bond, LinkKind::Vlan, LinkKind::Dummy, LinkKind::Bridge, LinkKind::Netkit] {
        let facts = Facts { link: link("x", kind, "x"), ..nic("x") };
        assert_eq!(ready(&facts, Datapath::Auto).datapath, Datapath::Tc);
    }
    assert_eq!(ready(&nic("virtio_net"), Datapath::Auto).datapath, Datapath::Xdp);
    let unknown = ready(&nic("8139too"), Datapath::Auto);
    assert_eq!(unknown.datapath, Datapath::Tc);
    assert!(unknown.notes[0].contains("8139too"));
}

#[test]
fn a_large_mtu_makes_auto_fall_back_and_xdp_refuse() {
    let mut facts = nic("virtio_net");
    facts.link.mtu = 9000;
    let fallback = ready(&facts, Datapath::Auto);
    assert_eq!(fallback.datapath, Datapath::Tc);
    assert!(fallback.notes[0].contains("the MTU 9000 is above the 3506"), "{:?}", fallback.notes);
    assert_eq!(
        refused(&facts, Datapath::Xdp),
        r#""eth0": the MTU 9000 is above the 3506 that native XDP on virtio_net carries: lower it (ip link set eth0 mtu 3506) or use --datapath tc"#
    );
    let mut facts = tap();
    facts.link.mtu = 1501;
    assert!(refused(&facts, Datapath::Xdp).contains("above the 1500 that native XDP on a tap carries"));
    assert_eq!(ready(&facts, Datapath::Tc).datapath, Datapath::Tc);
}

#[test]
fn it_is_the_peers_mtu_that_limits_a_veth() {
    let mut facts = veth();
    facts.link.mtu = 9000;
    let ready = ready(&facts, Datapath::Xdp);
    assert_eq!(ready.datapath, Datapath::Xdp);
    assert!(
        ready.notes[0].starts_with("MTU 9000 here and 1500 at its peer eth0 in web"),
        "{:?}",
        ready.notes
    );
    facts.peer.as_mut().unwrap().link.mtu = VETH_XDP_MTU + 1;
    let text = refused(&facts, Datapath::Xdp);
    assert!(text.contains("the MTU 3507 of its peer eth0 in web is above the 3506"), "{text}");
    assert!(text.contains("ip -n web link set eth0 mtu 3506"), "{text}");
}

#[test]
fn xdp_on_a_veth_prepares_the_far_end() {
    use Action::{PeerGroOn, PeerTxCsumOff, PeerTxVlanOff};
    let mut facts = veth();
    assert_eq!(ready(&facts, Datapath::Tc).actions, []);
    assert_eq!(ready(&facts, Datapath::Xdp).actions, [PeerTxCsumOff, PeerTxVlanOff, PeerGroOn]);
    assert_eq!(ready(&facts, Datapath::XdpGeneric).actions, [PeerTxCsumOff, PeerTxVlanOff]);
    // A program on the peer runs NAPI as well.
    let peer = facts.peer.as_mut().unwrap();
    peer.link.xdp = Some(XdpProgram { id: 9, mode: XdpMode::Native });
    peer.features.tx_csum = false;
    assert_eq!(ready(&facts, Datapath::Xdp).actions, [PeerTxVlanOff]);
    facts.peer = None;
    for wanted in [Datapath::Xdp, Datapath::XdpGeneric] {
        assert!(refused(&facts, wanted).contains("cannot be reached from here"));
    }
}

#[test]
fn a_nic_must_take_foreign_frames_as_they_are() {
    use Action::{LinkUp, LroOff, PromiscOn, RxVlanOff};
    let mut facts = nic("virtio_net");
    facts.features.lro = true;
    facts.link.up = false;
    assert_eq!(ready(&facts, Datapath::Xdp).actions, [LroOff, RxVlanOff, PromiscOn, LinkUp]);
    assert_eq!(ready(&facts, Datapath::Tc).actions, [PromiscOn, LinkUp]);
    facts.link.promisc = true;
    facts.link.up = true;
    assert_eq!(ready(&facts, Datapath::Tc).actions, []);
}

#[test]
fn generic_xdp_is_for_access_ports() {
    let facts = nic("virtio_net");
    assert_eq!(ready(&facts, Datapath::XdpGeneric).datapath, Datapath::XdpGeneric);
    let refusal = readiness(&facts, Datapath::XdpGeneric, Role::Uplink, &[]).unwrap_err();
    assert!(refusal.to_string().ends_with("use --datapath tc"), "{refusal}");
}

#[test]
fn what_can_be_no_port_at_all() {
    let with = |change: fn(&mut Link)| {
        let mut facts = nic("virtio_net");
        change(&mut facts.link);
        refused(&facts, Datapath::Auto)
    };
    assert!(with(|link| link.kind = LinkKind::Loopback).contains("loopback"));
    assert!(with(|link| link.kind = LinkKind::Tun).contains("mode tap"));
    assert!(with(|link| link.ethernet = false).contains("no Ethernet frames"));
    let bond = Master { ifindex: 3, kind: "bond".into(), ifname: Some("bond0".into()) };
    let mut facts = nic("virtio_net");
    facts.link.master = Some(bond);
    assert_eq!(
        refused(&facts, Datapath::Tc),
        r#""eth0": already a port of bond bond0: ip link set eth0 nomaster"#
    );
}

#[test]
fn a_foreign_xdp_program_stands_in_the_way_but_not_our_own() {
    let mut facts = nic("virtio_net");
    facts.link.xdp = Some(XdpProgram { id: 42, mode: XdpMode::Native });
    assert!(refused(&facts, Datapath::Tc).contains("another XDP program is attached (id 42)"));
    assert!(readiness(&facts, Datapath::Xdp, Role::Uplink, &[41, 42]).is_ok());
}

#[test]
fn kinds_without_native_xdp_say_so() {
    for kind in [LinkKind::Bridge, LinkKind::Macvlan, LinkKind::Vlan, LinkKind::Dummy, LinkKind::Netkit] {
        let facts = Facts { link: link("x", kind.clone(), "x"), ..nic("x") };
        assert_eq!(
            refused(&facts, Datapath::Xdp),
            format!(r#""x": {} has no native XDP: use --datapath tc"#, kind.as_str())
        );
    }
}
