//! Are ports shown and changed as the contract says?

use vswitch_ebpf::abi::port_flags;

use super::*;
use crate::{
    config::{Flags, StaticEntry},
    view::PortState,
};

fn ports() -> [PortView; 2] {
    let nic = PortView {
        ifname: "nic0".into(),
        ifindex: Some(2),
        role: Role::Uplink,
        mode: Mode::Bridge,
        state: PortState::Degraded,
        datapath: Some(Datapath::Xdp),
        mac: vec![],
        source: vec![],
        flags: Flags::default(),
        promisc: true,
        filters: vec![],
        notes: vec![],
        faults: vec!["its program vswitch_in is not attached".into()],
    };
    let web = PortView {
        ifname: "web0".into(),
        ifindex: None,
        role: Role::Downlink,
        state: PortState::Missing,
        datapath: None,
        mac: vec![MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])],
        flags: Flags::default().with(port_flags::ISOLATED, true).with(port_flags::FLOOD, false),
        promisc: false,
        notes: vec!["its interface is gone".into()],
        faults: vec![],
        ..nic.clone()
    };
    [nic, web]
}

#[test]
fn the_table_shows_flags_that_are_unusual() {
    let expected = "\
IFNAME  INDEX  ROLE      MODE    STATE     DATAPATH  MAC                                  FLAGS
nic0    2      uplink    bridge  degraded  xdp
    receives for any address (promiscuous)
    fault: its program vswitch_in is not attached
web0    -      downlink  bridge  missing   -         02:00:00:00:00:01,02:00:00:00:00:02  isolated on flood off
    its interface is gone
";
    assert_eq!(table(&ports()), expected);
    assert_eq!(table(&[]), "");
}

#[test]
fn json_has_the_keys_of_the_contract() {
    let [_, web] = ports();
    let flags = PORT_FLAGS.map(|flag| format!(r#""{}":{}"#, flag.json_key(), web.flags.has(flag.bit)));
    let expected = [
        r#"{"ifname":"web0","ifindex":null,"role":"downlink","mode":"bridge","state":"missing","datapath":null,"#,
        r#""mac":["02:00:00:00:00:01","02:00:00:00:00:02"],"source":[],"#,
        &flags.join(","),
        r#","promisc":false,"filters":[],"notes":["its interface is gone"],"faults":[]}"#,
    ]
    .concat();
    assert_eq!(serde_json::to_string(&web).unwrap(), expected);
}

#[test]
fn options_change_what_they_name_alone() {
    let mut port = PortConfig::new("web0");
    let options = Options {
        uplink: Some(Switch::On),
        flags: FlagOptions(vec![(port_flags::FLOOD, false)]),
        datapath: Some(Datapath::Tc),
        ..Options::default()
    };
    options.put_what(&mut port);
    options.flags.put(&mut port.flags);
    let expected = PortConfig {
        role: Role::Uplink,
        flags: Flags::default().with(port_flags::FLOOD, false),
        datapath: Datapath::Tc,
        ..PortConfig::new("web0")
    };
    assert_eq!(port, expected);
    Options { uplink: Some(Switch::Off), ..Options::default() }.put_what(&mut port);
    assert_eq!(port.role, Role::Downlink);
}

#[test]
fn a_port_whose_address_is_known_is_as_a_macvlan_child_unless_it_shall_not_be() {
    let add = |netns: Option<&str>, options: Options| {
        let (ifname, netns) = ("web0".to_owned(), netns.map(str::to_owned));
        Add { ifname, netns, peer: None, tap: false, options }.port().unwrap()
    };
    let mac = vec![MacAddr([2, 0, 0, 0, 0, 1])];
    let learns = |port: PortConfig| (port.flags.has(port_flags::LEARNING), port.flags.has(port_flags::FLOOD));
    assert_eq!(learns(add(None, Options::default())), (true, true));
    assert_eq!(learns(add(Some("web"), Options::default())), (false, false));
    assert_eq!(learns(add(None, Options { mac, ..Options::default() })), (false, false));
    let flood = Options { flags: FlagOptions(vec![(port_flags::FLOOD, true)]), ..Options::default() };
    assert_eq!(learns(add(Some("web"), flood)), (false, true));
}

#[test]
fn who_leaves_source_mode_leaves_its_list() {
    let mut config = SwitchConfig::new("vs0");
    let mut port = PortConfig::new("web0");
    (port.mode, port.source) = (Mode::Source, vec![MacAddr([2, 0, 0, 0, 0, 7])]);
    port.flags.set(port_flags::NODST, true);
    config.ports.push(port);
    let options = Options { mode: Some(Mode::Private), ..Options::default() };
    Set { ifname: "web0".into(), options }.change(&mut config).unwrap();
    let expected = PortConfig { mode: Mode::Private, ..PortConfig::new("web0") };
    assert_eq!(config.ports, [expected]);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut config = SwitchConfig::new("vs0");
    config.ports.push(PortConfig::new("web0"));
    let says = |result: Result<()>| result.unwrap_err().to_string();
    assert_eq!(
        says(add(&mut config.clone(), &PortConfig::new("web0"))),
        "port web0: is a port of vs0 already; `vswitch port set web0` changes it"
    );
    assert_eq!(
        says(Del { ifname: "web1".into() }.change(&mut config)),
        "port web1: is not a port of vs0; `vswitch -s vs0 port` lists its ports"
    );
    let nothing = Set { ifname: "web0".into(), options: Options::default() };
    assert!(Usage::is_cause_of(&nothing.check().unwrap_err()));
}

#[test]
fn del_takes_the_static_entries_of_the_port_along() {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let mut config = SwitchConfig::new("vs0");
    config.ports.push(PortConfig::new("web0"));
    config.fdb.push(StaticEntry { mac, vlan: 0, ifname: "web0".into() });
    Del { ifname: "web0".into() }.change(&mut config).unwrap();
    assert_eq!(config, SwitchConfig::new("vs0"));
}
