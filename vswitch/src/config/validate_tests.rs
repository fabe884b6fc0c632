//! Does every rule say what it should, and leave alone what is right?

use super::*;
use crate::config::samples::{office, station};

/// What the rules say once `change` has been done to [`office`].
fn says(change: impl FnOnce(&mut SwitchConfig)) -> Vec<String> {
    let mut config = office();
    change(&mut config);
    config.validate().iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_switch() {
    assert_eq!(says(|_| ()), Vec::<String>::new());
    assert_eq!(SwitchConfig::new("vs0").validate(), []);
}

#[test]
fn the_switch() {
    assert_eq!(
        says(|config| config.name = "a/b".to_owned()),
        ["switch a/b: '/' cannot be in a switch's name; use letters, digits, '-' and '_'"]
    );
    assert_eq!(
        says(|config| config.ageing = 1_000_001),
        [
            "switch office: ageing 1000001 is out of range; choose 0 to 1000000 seconds (0: nothing is learned)"
        ]
    );
    assert_eq!(
        says(|config| config.fdb_max = 0),
        [
            "switch office: fdb-max 0 is out of range; choose 1 to 16777216 addresses",
            "switch office: 3 addresses are bound to ports, fdb-max is 0; raise it",
        ]
    );
    assert_eq!(
        says(|config| config.fdb_max = 2),
        ["switch office: 3 addresses are bound to ports, fdb-max is 2; raise it"]
    );
}

#[test]
fn a_port() {
    assert_eq!(
        says(|config| config.ports[2].ifname = "vm/0".to_owned()),
        ["port vm/0: '/' cannot be in an interface's name; choose another"]
    );
    assert_eq!(
        says(|config| config.ports[2].ifname = "host".to_owned()),
        ["port host: the machine itself is called so, in fdb show and stats; choose another"]
    );
    assert_eq!(
        says(|config| config.ports[2].mac = vec![MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr([0; 6])]),
        [
            "port vm0: mac \"01:00:5e:00:00:01\" is a group address: a station's address is even in its first byte",
            "port vm0: mac \"00:00:00:00:00:00\" is no station's address; write the one that it sends from",
        ]
    );
    assert_eq!(
        says(|config| config.ports[1].source = vec![station(7)]),
        ["port web0: a source list is for mode source, and this is mode bridge; remove one"]
    );
    assert_eq!(
        says(|config| config.ports[1].mode = Mode::Passthru),
        [
            "port vm0: mode passthru of web0 takes everything, so that vm0 cannot be a downlink beside it; remove one of them"
        ]
    );
    assert_eq!(
        says(|config| config.ports[0].mode = Mode::Vepa),
        ["port nic0: mode vepa is for downlinks, and this is an uplink; remove it"]
    );
    assert_eq!(
        says(|config| config.ports[1].role = Role::Uplink),
        ["port web0: an uplink leads outside, not into a netns; remove netns or role"]
    );
    assert_eq!(
        says(|config| config.ports[2].role = Role::Uplink),
        ["port vm0: an uplink leads outside, not to a tap; remove tap or role"]
    );
    let veth = |netns: &str, peer: &str| FarEnd::Veth { netns: netns.to_owned(), peer: peer.to_owned() };
    assert_eq!(
        says(|config| config.ports[1].far_end = veth("", "a peer")),
        [
            "port web0: netns: the namespace's name is empty; give one that `ip netns` shows",
            "port web0: peer: ' ' cannot be in an interface's name; choose another",
        ]
    );
    assert_eq!(
        says(|config| config.ports[2].far_end = veth("web", "eth0")),
        [r#"port vm0: "eth0" in netns "web" is already the far end of port web0; choose another peer"#]
    );
    assert_eq!(says(|config| config.ports[2].far_end = veth("db", "eth0")), Vec::<String>::new());
}

#[test]
fn what_is_there_twice() {
    assert_eq!(
        says(|config| config.ports[2].ifname = "nic0".to_owned()),
        ["port nic0: the interface is in this switch twice; remove one of the two"]
    );
    assert_eq!(
        says(|config| config.ports[2].mac = vec![station(2)]),
        ["port vm0: mac 02:00:00:00:00:02 is already bound to port web0; remove one of them"]
    );
    assert_eq!(
        says(|config| config.ports[2].mac = vec![station(3), station(3)]),
        ["port vm0: mac 02:00:00:00:00:03 is already bound to port vm0; remove one of them"]
    );
    assert_eq!(
        says(|config| config.fdb[0].mac = station(2)),
        ["fdb 02:00:00:00:00:02: the address is already bound by the mac of port web0; remove one of them"]
    );
    assert_eq!(
        says(|config| config.fdb.push(StaticEntry { ifname: "vm0".to_owned(), ..config.fdb[0].clone() })),
        ["fdb 02:00:00:00:00:09: the address already has an entry on port nic0; remove one of them"]
    );
}

#[test]
fn an_entry() {
    assert_eq!(
        says(|config| config.fdb[0].ifname = "db0".to_owned()),
        ["fdb 02:00:00:00:00:09: db0 is not a port of this switch; add the port or remove the entry",]
    );
    assert_eq!(
        says(|config| config.fdb[0].vlan = 4095),
        ["fdb 02:00:00:00:00:09: vlan 4095 is out of range; choose 0 to 4094 (0: untagged)"]
    );
    assert_eq!(
        says(|config| config.fdb[0].vlan = 5),
        ["fdb 02:00:00:00:00:09: vlan 5 is not supported yet; use vlan 0"]
    );
    assert_eq!(
        says(|config| config.fdb[0].mac = MacAddr::BROADCAST),
        [
            "fdb ff:ff:ff:ff:ff:ff: mac \"ff:ff:ff:ff:ff:ff\" is a group address: a station's address is even in its first byte"
        ]
    );
}

#[test]
fn too_many_ports_are_refused_once() {
    let ports = |count: usize| {
        says(|config| {
            config.fdb.clear();
            config.ports = (0..count).map(|n| PortConfig::new(&format!("p{n}"))).collect();
        })
    };
    assert_eq!(ports(1023), Vec::<String>::new());
    assert_eq!(ports(1030), ["port p1023: a switch has 1023 ports at most; make a second switch"]);
}

#[test]
fn far_ends() {
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(FarEnd::new(None, None, false), Ok(FarEnd::Existing));
    assert_eq!(FarEnd::new(None, None, true), Ok(FarEnd::Tap));
    let veth = |peer: &str| FarEnd::Veth { netns: "web".to_owned(), peer: peer.to_owned() };
    assert_eq!(FarEnd::new(text("web"), None, false), Ok(veth("eth0")));
    assert_eq!(FarEnd::new(text("web"), text("p"), false), Ok(veth("p")));
    let refused = |netns, peer, tap| FarEnd::new(netns, peer, tap).unwrap_err();
    assert_eq!(refused(None, text("p"), true).0, "peer");
    assert_eq!(
        refused(text("web"), None, true),
        ("tap", "a tap has no far end in a namespace; leave out either tap or netns")
    );
    assert_eq!(
        refused(None, text("p"), false),
        ("peer", "peer without netns; add the netns that it is in, or leave it out")
    );
}
