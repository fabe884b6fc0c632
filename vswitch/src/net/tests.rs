//! Do the look-ups and changes hold on the running kernel? Each test in fresh namespaces; needs root.

mod fresh;
mod xdp;

use std::{fs, os::fd::AsFd as _, path::PathBuf, time::Duration};

use fresh::Fresh;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};

use super::*;
use crate::{
    config::{Datapath, Role},
    skip::skipped,
};

fn veth(peer: &Fresh) -> Veth<'_> {
    let mac = |last| Some([2, 0, 0, 0, 0, last]);
    let netns = Some(peer.netns.as_fd());
    Veth {
        ifname: "web0",
        mac: mac(1),
        peer_ifname: "eth0",
        peer_netns: netns,
        peer_mac: mac(2),
        mtu: Some(1400),
    }
}

#[test]
fn interfaces_are_deleted_together_and_no_others() {
    if skipped("interfaces_are_deleted_together_and_no_others") {
        return;
    }
    let fresh = Fresh::new();
    fresh.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let mut links = Vec::new();
        for (ifname, peer_ifname) in [("a0", "a1"), ("b0", "b1"), ("c0", "c1"), ("d0", "d1")] {
            let veth = Veth { ifname, peer_ifname, ..Veth::default() };
            links.push(netlink.add_veth(&veth).await.unwrap());
        }
        let stays = links.pop().unwrap();
        // Somebody was faster.
        netlink.delete(&links[2]).await.unwrap();
        netlink.delete_all(&links).await.unwrap();
        netlink.delete_all(&links).await.unwrap();
        let mut left = netlink.list().await.unwrap();
        left.retain(|link| link.kind == LinkKind::Veth);
        let left: Vec<_> = left.iter().map(|link| link.ifname.as_str()).collect();
        assert_eq!(left, ["d1", stays.ifname.as_str()]);
    });
}

#[test]
fn a_veth_pair_and_its_far_end() {
    if skipped("a_veth_pair_and_its_far_end") {
        return;
    }
    let (here, there) = (Fresh::new(), Fresh::new());
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let link = netlink.add_veth(&veth(&there)).await.unwrap();
        assert_eq!((link.kind.clone(), link.mtu, link.mac), (LinkKind::Veth, 1400, [2, 0, 0, 0, 0, 1]));
        assert_eq!(link.driver.as_deref(), Some("veth"));
        assert!(link.ethernet && !link.up && !link.carrier && link.master.is_none() && link.xdp.is_none());

        let peer = link.peer.unwrap();
        let netns = netlink.namespace_of(peer.netnsid.unwrap(), None).await.unwrap().unwrap();
        assert_eq!(netns, there.netns);
        assert_eq!(netns.label(), there.name);
        let far = netns
            .run_async_in(async move || Netlink::open().unwrap().get_index(peer.ifindex).await.unwrap())
            .unwrap();
        assert_eq!((far.ifname.as_str(), far.mac, far.mtu), ("eth0", [2, 0, 0, 0, 0, 2], 1400));

        let taken = netlink.add_veth(&veth(&there)).await.unwrap_err().to_string();
        assert!(taken.contains(r#"an interface "web0" exists already"#), "{taken}");
        let other = Veth { ifname: "web1", ..veth(&there) };
        let taken = netlink.add_veth(&other).await.unwrap_err().to_string();
        assert!(taken.contains(r#"an interface "eth0" exists already"#), "{taken}");

        netlink.delete(&link).await.unwrap();
        assert_eq!(netlink.find("web0").await.unwrap(), None);
        let missing = netlink.get("web0").await.unwrap_err().to_string();
        assert!(missing.starts_with(r#"interface "web0": not found"#), "{missing}");
        let long = netlink.get("a-name-of-twenty-byte").await.unwrap_err().to_string();
        assert!(long.contains("an interface's name 15 at most"), "{long}");
        let gone = netlink.set_up(&link).await.unwrap_err().to_string();
        assert!(gone.starts_with(r#"set up "web0": no such interface"#), "{gone}");
    });
}

#[test]
fn a_veth_pair_within_one_namespace() {
    if skipped("a_veth_pair_within_one_namespace") {
        return;
    }
    Fresh::new().block_on(async || {
        let netlink = Netlink::open().unwrap();
        let spec = Veth { ifname: "a", peer_ifname: "b", ..Veth::default() };
        let a = netlink.add_veth(&spec).await.unwrap();
        let b = netlink.get("b").await.unwrap();
        assert_eq!(a.peer, Some(Peer { ifindex: b.ifindex, netnsid: None }));
        let names: Vec<_> = netlink.list().await.unwrap().into_iter().map(|link| link.ifname).collect();
        assert!(["lo", "a", "b"].iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
        let (facts, target) = netlink.facts("a", None).await.unwrap();
        assert_eq!(facts.peer.map(|peer| (peer.link.ifname, peer.netns)), Some(("b".into(), None)));
        assert_eq!(target.peer.unwrap().0, Netns::current().unwrap());
    });
}

#[test]
fn changes_take_effect_and_refusals_have_words() {
    if skipped("changes_take_effect_and_refusals_have_words") {
        return;
    }
    let (here, there) = (Fresh::new(), Fresh::new());
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let link = netlink.add_veth(&veth(&there)).await.unwrap();
        netlink.set_mac(&link, &[2, 0, 0, 0, 0, 9]).await.unwrap();
        netlink.set_promisc(&link, true).await.unwrap();
        netlink.set_up(&link).await.unwrap();
        let now = netlink.get("web0").await.unwrap();
        assert_eq!((now.mtu, now.mac), (1400, [2, 0, 0, 0, 0, 9]));
        assert_eq!((now.up, now.promisc, now.carrier), (true, true, false));
        netlink.set_promisc(&now, false).await.unwrap();
        netlink.set_down(&now).await.unwrap();
        let now = netlink.get("web0").await.unwrap();
        assert_eq!((now.up, now.promisc), (false, false));

        let mut long = LinkMessage::default();
        long.header.index = now.ifindex;
        long.attributes.push(LinkAttribute::Mtu(100_000));
        let done = netlink.change(RouteNetlinkMessage::NewLink(long), 0, "make it long").await;
        let err = done.unwrap_err().to_string();
        assert!(err.starts_with("make it long: ") && err.contains("kernel: mtu greater"), "{err}");
        let err = netlink.set_mac(&now, &[1, 0, 0, 0, 0, 0]).await.unwrap_err().to_string();
        assert!(err.contains("not an address that an interface can have"), "{err}");
    });
}

#[test]
fn a_persistent_tap_and_a_bridge_port() {
    if skipped("a_persistent_tap_and_a_bridge_port") {
        return;
    }
    let here = Fresh::new();
    here.run("ip", &["link", "add", "br0", "type", "bridge"]);
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let tap = netlink.add_tap("tap0").await.unwrap();
        assert_eq!(
            (tap.kind.clone(), tap.driver.as_deref(), tap.carrier),
            (LinkKind::Tap, Some("tun"), false)
        );
        let again = netlink.add_tap("tap0").await.unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
        assert_eq!(netlink.get("br0").await.unwrap().kind, LinkKind::Bridge);
        assert_eq!(netlink.get("lo").await.unwrap().kind, LinkKind::Loopback);

        here.run("ip", &["link", "set", "tap0", "master", "br0"]);
        let (facts, _) = netlink.facts("tap0", None).await.unwrap();
        let refusal = readiness(&facts, Datapath::Auto, Role::Downlink, &[]).unwrap_err();
        assert_eq!(refusal.to_string(), r#""tap0": already a port of bridge br0: ip link set tap0 nomaster"#);
    });
}

#[test]
fn the_filter_of_an_interface() {
    if skipped("the_filter_of_an_interface") {
        return;
    }
    let (here, there) = (Fresh::new(), Fresh::new());
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let link = netlink.add_veth(&veth(&there)).await.unwrap();
        let mac = [2, 0, 0, 0, 0, 0x77];
        assert!(netlink.fdb_self_add(&link, &mac).await.unwrap(), "it is new");
        assert!(!netlink.fdb_self_add(&link, &mac).await.unwrap(), "it is there already");
        assert!(netlink.fdb_self_list(&link).await.unwrap().contains(&mac));
        netlink.fdb_self_del(&link, &mac).await.unwrap();
        assert!(!netlink.fdb_self_list(&link).await.unwrap().contains(&mac));
        netlink.fdb_self_del(&link, &mac).await.expect("none is no error");
    });
}

#[test]
fn a_veth_is_made_ready_for_xdp_and_back() {
    if skipped("a_veth_is_made_ready_for_xdp_and_back") {
        return;
    }
    let (here, there) = (Fresh::new(), Fresh::new());
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        netlink.add_veth(&veth(&there)).await.unwrap();
        let (before, target) = netlink.facts("web0", None).await.unwrap();
        let far = before.peer.as_ref().unwrap();
        assert_eq!(far.netns.as_ref(), Some(&there.name));
        assert!(far.features.tx_csum && far.features.tso && far.features.tx_vlan && !far.features.gro);

        let wish = |facts: &Facts| readiness(facts, Datapath::Xdp, Role::Downlink, &[]).unwrap();
        let mut undo = Undo::default();
        for action in wish(&before).actions {
            action.apply(&netlink, &target).await.unwrap();
            undo.insert(action);
        }
        let (ready, _) = netlink.facts("web0", None).await.unwrap();
        assert_eq!(wish(&ready).actions, []);
        let features = ready.peer.as_ref().unwrap().features;
        // Segmentation has gone with checksumming: no super-frame can reach the program.
        assert!(features.gro && !features.tx_csum && !features.tso && !features.tx_vlan);

        undo.revert(&netlink, &target).await.unwrap();
        let (after, _) = netlink.facts("web0", None).await.unwrap();
        assert_eq!(after.peer.as_ref().unwrap().features, far.features);
        assert_eq!((after.features, after.link), (before.features, before.link));

        netlink.delete(&target.link).await.unwrap();
        undo.revert(&netlink, &target).await.unwrap();
    });
}

#[test]
fn a_feature_that_does_not_change_is_an_error() {
    if skipped("a_feature_that_does_not_change_is_an_error") {
        return;
    }
    Fresh::new().block_on(async || {
        let ethtool = Ethtool::open().unwrap();
        let fixed = ethtool.set("lo", Feature::TxCsum, false).unwrap_err().to_string();
        assert!(fixed.starts_with(r#"ethtool -K "lo" tx off: not supported"#), "{fixed}");
        let missing = ethtool.features("nothing").unwrap_err().to_string();
        assert!(missing.contains("no such interface"), "{missing}");
    });
}

#[test]
fn namespaces_by_name_path_and_process() {
    if skipped("namespaces_by_name_path_and_process") {
        return;
    }
    let fresh = Fresh::new();
    assert_eq!(Netns::open(&format!("/run/netns/{}", fresh.name)).unwrap(), fresh.netns);
    assert_eq!(Netns::open(&std::process::id().to_string()).unwrap(), Netns::current().unwrap());
    assert_ne!(fresh.netns, Netns::current().unwrap());
    assert_eq!(fresh.netns.run_in(|| Netns::current().unwrap()).unwrap(), fresh.netns);
    assert_eq!(Netns::all().iter().filter(|netns| **netns == fresh.netns).count(), 1);
    let text = Netns::open("no-such").unwrap_err().to_string();
    assert_eq!(text, r#"namespace "no-such": not found (ip netns list shows them)"#);
    let file = PathBuf::from(format!("/tmp/{}", fresh.name));
    fs::write(&file, "").unwrap();
    let text = Netns::open(file.to_str().unwrap()).unwrap_err().to_string();
    fs::remove_file(&file).unwrap();
    assert!(text.ends_with("is not a network namespace"), "{text}");
}

async fn expect(watch: &mut Watch, wanted: impl Fn(&LinkEvent) -> bool) -> LinkEvent {
    let search = async {
        loop {
            let event = watch.next().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), search).await.expect("the event did not come")
}

#[test]
fn events_of_links_that_come_change_and_go() {
    if skipped("events_of_links_that_come_change_and_go") {
        return;
    }
    let (here, there) = (Fresh::new(), Fresh::new());
    here.run("ip", &["link", "add", "br0", "type", "bridge"]);
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let mut watch = Watch::open().unwrap();
        let link = netlink.add_veth(&veth(&there)).await.unwrap();
        let came =
            |event: &LinkEvent| matches!(event, LinkEvent::Changed(l) if l.ifname == "web0" && l.mtu == 1400);
        expect(&mut watch, came).await;
        // Leaving a bridge sends an RTM_DELLINK that is none.
        here.run("ip", &["link", "set", "web0", "master", "br0"]);
        here.run("ip", &["link", "set", "web0", "nomaster"]);
        here.run("ip", &["link", "set", "web0", "name", "web9"]);
        let event = expect(&mut watch, |event| match event {
            LinkEvent::Changed(link) => link.ifname == "web9",
            LinkEvent::Gone { .. } | LinkEvent::Resync => true,
            LinkEvent::Stripped { .. } | LinkEvent::Elsewhere { .. } => false,
        })
        .await;
        assert!(matches!(event, LinkEvent::Changed(_)), "{event:?}");
        here.run("ip", &["link", "set", "web9", "netns", &there.name]);
        let gone = expect(&mut watch, |event| matches!(event, LinkEvent::Gone { .. })).await;
        assert_eq!(gone, LinkEvent::Gone { ifindex: link.ifindex, moved: true });
    });
}

#[test]
fn an_overrun_asks_for_a_new_list() {
    if skipped("an_overrun_asks_for_a_new_list") {
        return;
    }
    let (here, there) = (Fresh::new(), Fresh::new());
    here.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let mut watch = Watch::with_buffer(4096).unwrap();
        netlink.add_veth(&veth(&there)).await.unwrap();
        let set_mtu = |mtu: u32| here.run("ip", &["link", "set", "web0", "mtu", &mtu.to_string()]);
        (1000..1100).for_each(set_mtu);
        expect(&mut watch, |event| *event == LinkEvent::Resync).await;
        set_mtu(900);
        expect(&mut watch, |event| matches!(event, LinkEvent::Changed(l) if l.mtu == 900)).await;
    });
}
