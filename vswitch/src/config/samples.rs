//! Switches for tests: one for the eye, and any that the rules allow.

use std::collections::BTreeSet;

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use vswitch_ebpf::{abi::port_flags, frame::MacAddr};

use super::{
    Datapath, FarEnd, Flags, Mode, PORT_FLAGS, PortConfig, Role, StaticEntry, SwitchConfig, words::Word,
};

pub(crate) const OFFICE: &str = r#"[switch]
name = "office"
ageing = 60
macvlan-compat = true

[[port]]
name = "nic0"
role = "uplink"

[[port]]
name = "web0"
netns = "web"
peer = "eth0"
mode = "bridge"
mac = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
isolated = true

[[port]]
name = "vm0"
tap = true
mode = "bridge"
datapath = "tc"

[[fdb]]
mac = "02:00:00:00:00:09"
port = "nic0"
"#;

/// The nth station.
pub(crate) fn station(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

/// What [`OFFICE`] says.
pub(crate) fn office() -> SwitchConfig {
    SwitchConfig {
        ageing: 60,
        macvlan_compat: true,
        ports: vec![
            PortConfig { role: Role::Uplink, ..PortConfig::new("nic0") },
            PortConfig {
                far_end: FarEnd::Veth { netns: "web".to_owned(), peer: "eth0".to_owned() },
                mac: vec![station(1), station(2)],
                flags: Flags::default()
                    .with(port_flags::ISOLATED, true)
                    .with(port_flags::LEARNING, false)
                    .with(port_flags::FLOOD, false),
                ..PortConfig::new("web0")
            },
            PortConfig { far_end: FarEnd::Tap, datapath: Datapath::Tc, ..PortConfig::new("vm0") },
        ],
        fdb: vec![StaticEntry { mac: station(9), vlan: 0, ifname: "nic0".to_owned() }],
        ..SwitchConfig::new("office")
    }
}

/// A switch that the rules allow. Few names and addresses, so that two of them have much in common.
pub(crate) fn switch() -> impl Strategy<Value = SwitchConfig> {
    let modes = words::<Mode>().into_iter().filter(|mode| *mode != Mode::Passthru).collect();
    any_switch(modes, vec![0])
}

/// A switch with all modes and with VLANs.
pub(crate) fn future_switch() -> impl Strategy<Value = SwitchConfig> {
    any_switch(words::<Mode>(), vec![0, 1, 4094])
}

fn any_switch(modes: Vec<Mode>, vlans: Vec<u16>) -> impl Strategy<Value = SwitchConfig> {
    let settings = (select(vec![0, 300, 1_000_000]), any::<bool>(), any::<bool>());
    let entry = (0..12u8, select(vlans), any::<Index>());
    (settings, vec(port(modes), 0..6), vec(entry, 0..6)).prop_map(|(settings, ports, entries)| {
        let (ageing, host_access, macvlan_compat) = settings;
        let mut config = SwitchConfig { ageing, host_access, macvlan_compat, ..SwitchConfig::new("vs0") };
        let mut taken = BTreeSet::new();
        for mut port in ports {
            if config.port(&port.ifname).is_none() {
                port.mac.retain(|&mac| taken.insert((mac, 0)));
                config.ports.push(port);
            }
        }
        for (last, vlan, index) in entries {
            let mac = station(last);
            if !config.ports.is_empty() && !taken.contains(&(mac, 0)) && taken.insert((mac, vlan)) {
                let ifname = index.get(&config.ports).ifname.clone();
                config.fdb.push(StaticEntry { mac, vlan, ifname });
            }
        }
        config
    })
}

fn port(modes: Vec<Mode>) -> impl Strategy<Value = PortConfig> {
    let flags = any::<[bool; PORT_FLAGS.len()]>();
    let what = (0..6u8, select(words::<Role>()), select(modes), select(words::<Datapath>()));
    (what, vec(0..12u8, 0..3), flags).prop_map(|((name, role, mode, datapath), macs, flags)| {
        // One kind of far end for a name: it cannot change while the port is there.
        let (ifname, far_end) = match name {
            0 => ("web0".to_owned(), FarEnd::Veth { netns: "web".to_owned(), peer: "eth0".to_owned() }),
            1 => ("vm0".to_owned(), FarEnd::Tap),
            _ => (format!("nic{name}"), FarEnd::Existing),
        };
        let mut port = PortConfig { mode, far_end, ..PortConfig::new(&ifname) };
        // Nor can role and datapath of a port whose interface would go with it.
        if port.far_end == FarEnd::Existing {
            port.datapath = datapath;
            port.role = role;
        }
        if port.role == Role::Uplink {
            port.mode = Mode::Bridge;
        }
        port.mac = macs.into_iter().map(station).collect();
        for (flag, on) in PORT_FLAGS.iter().zip(flags) {
            port.flags.set(flag.bit, on);
        }
        port.flags.fit(port.mode);
        if port.mode == Mode::Source {
            port.source = port.mac.iter().map(|mac| station(mac.0[5] + 100)).collect();
        }
        port
    })
}

fn words<W: Word>() -> Vec<W> {
    W::ALL.iter().map(|(value, _)| *value).collect()
}
