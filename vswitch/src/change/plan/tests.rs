//! Does a plan lead from any switch to any other, through switches that the rules allow, and back?

use proptest::prelude::*;

use vswitch_ebpf::abi::port_flags;

use super::*;
use crate::config::{
    Datapath,
    samples::{future_switch, office, station, switch},
};

/// Carries out one operation as simply as can be. Panics where a real switch would refuse.
fn execute(state: &mut Option<SwitchConfig>, op: &Op) {
    if let Op::Create(config) = op {
        assert_eq!(state.replace(config.clone()), None, "created twice");
        return;
    }
    let switch = state.as_mut().unwrap();
    let find = |switch: &SwitchConfig, port: &PortConfig| {
        switch.ports.iter().position(|has| same(has, port)).unwrap()
    };
    match op {
        Op::Create(_) => unreachable!(),
        Op::Destroy(config) => {
            assert_eq!(switch, config, "destroyed with ports");
            *state = None;
        }
        Op::SetSwitch { from, to } => {
            assert_eq!(SwitchSettings::from(&*switch), *from);
            (switch.ageing, switch.host_access, switch.macvlan_compat) =
                (to.ageing, to.host_access, to.macvlan_compat);
        }
        Op::AddPort(port) => switch.ports.push(port.clone()),
        Op::SetPort { from, to } => {
            let index = find(switch, from);
            let fixed =
                |port: &PortConfig| (port.ifname.clone(), port.role, port.datapath, port.far_end.clone());
            assert_eq!(fixed(from), fixed(to));
            switch.ports[index] = to.clone();
        }
        Op::DelPort(port) => {
            let index = find(switch, port);
            switch.ports.remove(index);
        }
        Op::AddFdb(entry) => switch.fdb.push(entry.clone()),
        Op::DelFdb(entry) => {
            let index = switch.fdb.iter().position(|has| has == entry).unwrap();
            switch.fdb.remove(index);
        }
    }
}

/// Two switches are equal whatever the order of ports, entries and addresses.
fn canonical(mut config: SwitchConfig) -> SwitchConfig {
    config.ports.sort_by(|one, other| one.ifname.cmp(&other.ifname));
    for port in &mut config.ports {
        let first = usize::from(matches!(port.far_end, FarEnd::Veth { .. })).min(port.mac.len());
        port.mac[first..].sort_unstable();
    }
    config.fdb.sort_by_key(|entry| (entry.mac, entry.vlan));
    config
}

fn there_and_back(actual: Option<SwitchConfig>, desired: &SwitchConfig, valid: impl Fn(&SwitchConfig)) {
    let ops = plan(actual.as_ref(), desired).unwrap();
    let mut state = actual.clone();
    for op in &ops {
        execute(&mut state, op);
        state.iter().for_each(&valid);
    }
    assert_eq!(state.clone().map(canonical), Some(canonical(desired.clone())));
    assert_eq!(plan(state.as_ref(), desired), Ok(Vec::new()), "a second time");
    for op in ops.iter().rev() {
        execute(&mut state, &op.inverse());
        state.iter().for_each(&valid);
    }
    assert_eq!(state.map(canonical), actual.map(canonical), "undone");
}

fn without_passthru(mut config: SwitchConfig) -> SwitchConfig {
    for port in &mut config.ports {
        if port.mode == Mode::Passthru {
            port.mode = Mode::Private;
        }
    }
    config
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn from_any_switch_to_any_other(actual in proptest::option::of(switch()), desired in switch()) {
        there_and_back(actual, &desired, |state| assert_eq!(state.validate(), []));
    }

    #[test]
    fn with_modes_and_vlans(actual in future_switch(), desired in future_switch()) {
        there_and_back(Some(without_passthru(actual)), &without_passthru(desired), |_| ());
    }

    #[test]
    fn nothing_to_do_for_what_is(config in future_switch(), shift in 0..6usize) {
        let mut turned = config.clone();
        let ports = turned.ports.len().max(1);
        turned.ports.rotate_left(shift % ports);
        turned.fdb.reverse();
        prop_assert_eq!(plan(Some(&config), &turned), Ok(Vec::new()));
    }
}

fn lines(ops: &[Op]) -> Vec<String> {
    ops.iter().map(ToString::to_string).collect()
}

/// The plan from [`office`] to what `change` makes of it.
fn says(change: impl FnOnce(&mut SwitchConfig)) -> Vec<String> {
    let mut desired = office();
    change(&mut desired);
    match plan(Some(&office()), &desired) {
        Ok(ops) => lines(&ops),
        Err(error) => error.to_string().lines().map(|line| format!("refused: {line}")).collect(),
    }
}

#[test]
fn how_a_new_switch_reads() {
    let mut config = office();
    config.ports.swap(0, 2);
    config.ports[0].far_end = FarEnd::Existing;
    assert_eq!(
        lines(&plan(None, &config).unwrap()),
        [
            "+ switch office (ageing 60, fdb-max 65536, macvlan-compat on)",
            "+ port nic0 (uplink)",
            "+ port vm0 (mode bridge, datapath tc)",
            "+ port web0 (netns web, mode bridge, mac 02:00:00:00:00:01 02:00:00:00:00:02, isolated on)",
            "+ fdb 02:00:00:00:00:09 on nic0",
        ]
    );
    let create = Op::Create(SwitchConfig::new("vs0"));
    assert_eq!(create.inverse().to_string(), "- switch vs0");
}

#[test]
fn how_changes_read() {
    assert_eq!(says(|_| ()), Vec::<String>::new());
    assert_eq!(
        says(|config| {
            config.ageing = 300;
            config.host_access = false;
            config.ports[1].flags.set(port_flags::ISOLATED, false);
            config.ports[1].mode = Mode::Vepa;
            config.ports[1].mac.clear();
            config.ports.remove(2);
            config.ports.push(PortConfig {
                far_end: FarEnd::Veth { netns: "db".to_owned(), peer: "p0".to_owned() },
                ..PortConfig::new("db0")
            });
            config.fdb[0].ifname = "db0".to_owned();
        }),
        [
            "~ switch: ageing 60 -> 300, host-access on -> off",
            "- fdb 02:00:00:00:00:09 on nic0",
            "- port vm0",
            "~ port web0: mode bridge -> vepa, mac 02:00:00:00:00:01 02:00:00:00:00:02 -> none, isolated on -> off",
            "+ port db0 (netns db, peer p0, mode bridge, learning on, flood on)",
            "+ fdb 02:00:00:00:00:09 on db0",
        ]
    );
    assert_eq!(
        says(|config| config.fdb[0].vlan = 7),
        ["- fdb 02:00:00:00:00:09 on nic0", "+ fdb 02:00:00:00:00:09 vlan 7 on nic0"]
    );
}

#[test]
fn an_existing_interface_is_added_anew_with_its_entries() {
    assert_eq!(
        says(|config| config.ports[0].datapath = Datapath::Xdp),
        [
            "- fdb 02:00:00:00:00:09 on nic0",
            "- port nic0",
            "+ port nic0 (uplink, datapath xdp)",
            "+ fdb 02:00:00:00:00:09 on nic0",
        ]
    );
}

#[test]
fn addresses_that_ports_exchange_are_released_first() {
    let ports = |first, second| {
        let mut config = SwitchConfig::new("vs0");
        config.ports = vec![
            PortConfig { mac: vec![station(first)], ..PortConfig::new("a") },
            PortConfig { mac: vec![station(second)], ..PortConfig::new("b") },
        ];
        config
    };
    assert_eq!(
        lines(&plan(Some(&ports(1, 2)), &ports(2, 1)).unwrap()),
        [
            "~ port a: mac 02:00:00:00:00:01 -> none",
            "~ port b: mac 02:00:00:00:00:02 -> none",
            "~ port a: mac none -> 02:00:00:00:00:02",
            "~ port b: mac none -> 02:00:00:00:00:01",
        ]
    );
}

#[test]
fn what_a_live_switch_cannot_do() {
    assert_eq!(
        says(|config| {
            config.name = "lab".to_owned();
            config.fdb_max = 100;
            config.ports[0].mode = Mode::Passthru;
            config.ports[1].far_end = FarEnd::Veth { netns: "web".to_owned(), peer: "p0".to_owned() };
            config.ports[2].datapath = Datapath::Xdp;
        }),
        [
            "refused: switch office: its name cannot change to lab; vswitch -s office down, then up again",
            "refused: switch office: fdb-max 65536 -> 100 cannot change while it is up; vswitch -s office down, then up again",
            "refused: port nic0: mode bridge -> passthru cannot change while it is a port; vswitch -s office port del nic0, then add it again",
            "refused: port web0: netns web -> netns web, peer p0 cannot change while it is a port; vswitch -s office port del web0, then add it again",
            "refused: port vm0: datapath tc -> xdp would remove the interface that vswitch made; vswitch -s office port del vm0, then add it again",
        ]
    );
    assert_eq!(
        says(|config| config.ports[2].far_end = FarEnd::Existing),
        [
            "refused: port vm0: tap -> existing interface cannot change while it is a port; vswitch -s office port del vm0, then add it again"
        ]
    );
}
