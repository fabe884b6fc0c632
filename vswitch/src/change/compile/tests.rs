//! Does what the programs read follow from the intent, and is every conflict of addresses found, whichever way it comes?

use proptest::prelude::*;
use vswitch_ebpf::abi::{mode, settings_flags};

use super::*;
use crate::{
    config::{
        PORT_FLAGS, StaticEntry,
        samples::{future_switch, office, station},
    },
    dataplane::image::Listeners,
};

/// Each port has an interface, the nth slot n from 1, index 100 + n and an own address of its own.
fn observed(config: &SwitchConfig) -> Observed {
    let mut observed = Observed::default();
    for (slot, port) in (1..).zip(&config.ports) {
        let seen = Seen {
            slot,
            ifindex: 100 + u32::from(slot),
            mtu: 1500,
            mac: own(slot),
            station: matches!(port.far_end, FarEnd::Veth { .. }).then(|| far(slot)),
            ..Seen::default()
        };
        observed.ports.insert(port.ifname.clone(), seen);
    }
    observed
}

fn own(slot: u16) -> MacAddr {
    MacAddr([2, 0xaa, 0, 0, 0, slot as u8])
}

fn far(slot: u16) -> MacAddr {
    MacAddr([2, 0xbb, 0, 0, 0, slot as u8])
}

fn lab() -> SwitchConfig {
    let mut config = SwitchConfig::new("vs0");
    config.ports = ["eth0", "web0", "web1"].map(PortConfig::new).to_vec();
    config.ports[0].role = Role::Uplink;
    config
}

fn refused(config: &SwitchConfig, observed: &Observed) -> Vec<String> {
    compile(config, observed).map_err(|refusals| refusals.0).unwrap_err()
}

#[test]
fn an_office() {
    let config = office();
    let image = compile(&config, &observed(&config)).unwrap();
    let flags = settings_flags::HOST_ACCESS | settings_flags::MACVLAN_COMPAT | settings_flags::STATIONS;
    assert_eq!((image.settings.ageing, image.settings.refresh), (60_000, 1_000));
    assert_eq!((image.settings.flags, image.settings.wire, image.settings.passthru), (flags, 1, 0));
    let web0 = Port { ifindex: 102, mtu: 1500, flags: port_flags::ISOLATED, ..Port::default() };
    let groups = port_flags::MCAST_FLOOD | port_flags::BCAST_FLOOD;
    assert_eq!(image.ports[&2], Port { flags: web0.flags | groups, ..web0 });
    assert_eq!(image.interfaces, BTreeMap::from([(101, 1), (102, 2), (103, 3)]));
    let (known, bound) = (fdb_flags::STATIC | fdb_flags::STICKY, fdb_flags::STATIC);
    let entries: Vec<_> = image.fdb.iter().map(|(key, bound)| (key.mac, bound.slot, bound.flags)).collect();
    assert_eq!(
        entries,
        [
            (station(1), 2, known),
            (station(2), 2, known),
            (station(9), 1, bound),
            (own(1), 1, fdb_flags::LOCAL)
        ]
    );
    assert!(image.nics[&1].promiscuous, "vm0 may be anybody");
}

#[test]
fn nobody_has_the_hosts_address() {
    let mut config = lab();
    let seen = observed(&config);
    let entry = |ifname: &str| StaticEntry { mac: own(1), vlan: 0, ifname: ifname.to_owned() };
    let of_host = format!("fdb {}: is the host's own address: it stays while the uplink is a port", own(1));
    // Neither another port nor the uplink as one that is no host's: that would cut the host off as well.
    for ifname in ["web0", "eth0"] {
        config.fdb = vec![entry(ifname)];
        assert_eq!(refused(&config, &seen), [of_host.as_str()]);
    }
    config.fdb.clear();
    config.ports[1].mac = vec![own(1)];
    let line = format!("address {}: is the host's own, of uplink eth0: choose another", own(1));
    assert_eq!(refused(&config, &seen), [line]);
    // While the uplink is missing, it is nobody's.
    let mut missing = seen.clone();
    missing.ports.get_mut("eth0").unwrap().ifindex = 0;
    assert!(compile(&config, &missing).is_ok());
    // Who names the uplink's own address for the uplink says what is so.
    config.ports[1].mac.clear();
    config.ports[0].mac = vec![own(1)];
    assert_eq!(compile(&config, &seen).unwrap().fdb[&key(own(1))].flags, fdb_flags::LOCAL);
}

#[test]
fn a_far_ends_address_is_its_ports() {
    let mut config = lab();
    config.ports[2].far_end = FarEnd::Veth { netns: "web".to_owned(), peer: "eth0".to_owned() };
    let seen = observed(&config);
    assert_eq!(compile(&config, &seen).unwrap().fdb[&key(far(3))].slot, 3);
    config.fdb = vec![StaticEntry { mac: far(3), vlan: 0, ifname: "web0".to_owned() }];
    let line =
        format!("fdb {}: is a port's known address: change the port (vswitch port set IF --mac ...)", far(3));
    assert_eq!(refused(&config, &seen), [line]);
    config.fdb.clear();
    config.ports[1].mac = vec![far(3)];
    let line = format!(
        r#""web1": address {}: belongs to port web0: choose another, or take it away there first"#,
        far(3)
    );
    assert_eq!(refused(&config, &seen), [line]);
    // The one that the user gives takes the place of the one that it had.
    config.ports[2].mac = vec![station(1)];
    let image = compile(&config, &seen).unwrap();
    assert_eq!((image.fdb[&key(far(3))].slot, image.fdb[&key(station(1))].slot), (2, 3));
}

#[test]
fn the_host_follows_its_uplinks_address_unless_that_is_somebodys() {
    let mut config = lab();
    let mut seen = observed(&config);
    seen.ports.get_mut("eth0").unwrap().before = Some(own(9));
    let image = compile(&config, &seen).unwrap();
    assert!(image.fdb[&key(own(1))].is_local() && !image.fdb.contains_key(&key(own(9))));
    config.ports[1].mac = vec![own(1)];
    let image = compile(&config, &seen).unwrap();
    assert!(image.fdb[&key(own(9))].is_local());
    assert_eq!(image.fdb[&key(own(1))].slot, 2);
}

#[test]
fn who_listens_to_whom() {
    let mut config = lab();
    for port in &mut config.ports[1..] {
        (port.mode, port.source) = (Mode::Source, vec![station(7)]);
    }
    config.ports[2].flags.set(port_flags::NODST, true);
    config.ports[2].source.push(station(8));
    let image = compile(&config, &observed(&config)).unwrap();
    assert_eq!(image.settings.flags & settings_flags::SOURCES, settings_flags::SOURCES);
    assert_eq!(image.ports[&2].mode, mode::SOURCE);
    let listeners = |slots: &[u16]| Listeners { slots: slots.to_vec(), nodst: true };
    assert_eq!(
        image.listeners,
        BTreeMap::from([(station(7), listeners(&[2, 3])), (station(8), listeners(&[3]))])
    );
    assert_eq!(image.sources.len(), 3);
}

#[test]
fn an_uplink_is_promiscuous_while_somebody_may_be_anybody() {
    let mut config = lab();
    for (slot, port) in (2..).zip(&mut config.ports[1..]) {
        port.mac = vec![station(slot)];
        port.set_known_defaults();
    }
    let seen = observed(&config);
    let nic = |config: &SwitchConfig, seen: &Observed| compile(config, seen).unwrap().nics[&1].clone();
    let filters = BTreeSet::from([station(2), station(3)]);
    assert_eq!(nic(&config, &seen), Nic { promiscuous: false, filters });
    config.ports[1].flags.set(port_flags::FLOOD, true);
    assert_eq!(nic(&config, &seen), Nic { promiscuous: true, filters: BTreeSet::new() });
    config.ports[1].flags.set(port_flags::FLOOD, false);
    let second = PortConfig { role: Role::Uplink, ..PortConfig::new("eth1") };
    config.ports.push(second);
    let with = observed(&config);
    assert!(nic(&config, &with).promiscuous);
    assert!(!nic(&config, &seen).promiscuous, "one that is missing is none");
}

/// Its element would be a free slot's, which nobody finds in the tables: they would never be as they should be.
#[test]
fn a_port_without_interface_for_which_all_is_off_is_in_no_table() {
    let mut config = lab();
    let web0 = &mut config.ports[1];
    for flag in PORT_FLAGS {
        web0.flags.set(flag.bit, false);
    }
    let mut seen = observed(&config);
    assert!(compile(&config, &seen).unwrap().ports.contains_key(&2));
    seen.ports.get_mut("web0").unwrap().ifindex = 0;
    let slots: Vec<_> = compile(&config, &seen).unwrap().ports.into_keys().collect();
    assert_eq!(slots, [1, 3]);
}

proptest! {
    /// Whatever the rules allow is a switch, and each of its ports and addresses is where it should be.
    #[test]
    fn any_switch(config in future_switch()) {
        let seen = observed(&config);
        let image = compile(&config, &seen).unwrap();
        prop_assert_eq!(image.ports.len(), config.ports.len());
        for entry in &config.fdb {
            let bound = image.fdb[&FdbKey { mac: entry.mac, vlan: entry.vlan }];
            prop_assert_eq!(bound.slot, seen.ports[&entry.ifname].slot);
        }
        for port in &config.ports {
            for mac in &port.mac {
                prop_assert_eq!(image.fdb[&key(*mac)].slot, seen.ports[&port.ifname].slot);
            }
        }
        for (mac, listeners) in &image.listeners {
            prop_assert!(listeners.slots.is_sorted() && !listeners.slots.is_empty());
            prop_assert!(listeners.slots.iter().all(|slot| image.sources.contains(&(*mac, *slot))));
        }
    }
}
