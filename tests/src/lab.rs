//! Who takes part? Stations, the machine that will hold the switch, and what is behind its uplink; the same for
//! every kind of switch, so that names, addresses and frames can be compared.

use crate::{
    frame::Mac,
    topo::{self, End, Netns, veth},
};

/// The machine's own address: of its NIC, and of the bridge that stands for it in the bridge oracle.
pub const HOST_MAC: Mac = [0x02, 0, 0, 0, 0, 0xfe];
/// The uplink's name in the switch's namespace.
pub const UPLINK: &str = "nic0";
/// The station behind the uplink, when there is one.
pub const OUTSIDE: &str = "ext";
/// The machine's own stack, as a station of the lab.
pub const HOST: &str = "host";
/// Every station's interface, in its own namespace.
pub const STATION_IF: &str = "eth0";

const OUTSIDE_MAC: Mac = [0x02, 0, 0, 0, 0, 0xee];
const ADJACENT_MAC: Mac = [0x02, 0, 0, 0, 0, 0xad];
const ADJACENT_PORT: &str = "down0";
const DEFAULT_MTU: u32 = 1500;

/// What is at the other end of the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// There is no uplink.
    Nothing,
    /// The station `ext`, directly.
    Station,
    /// A Linux bridge with `ext` behind it, which sends frames back out of the port where they came in, or does not.
    Adjacent { reflects: bool },
}

#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub mac: Mac,
    pub netns: Netns,
    /// The switch's end of its cable, `h0`, `h1`, ... and `nic0` for the station outside.
    pub port: String,
    pub port_mac: Mac,
    /// Of both ends of its cable.
    pub mtu: u32,
}

#[derive(Debug)]
pub struct Lab {
    /// The machine with the switch, and thus the host.
    pub switch: Netns,
    /// The stations, in the order in which they were named, then `ext`.
    pub members: Vec<Member>,
    pub outside: Outside,
    adjacent: Option<Netns>,
}

impl Lab {
    /// Namespaces for all and the uplink's cable. The stations' own attachment is the switch's affair: see `cable`.
    pub fn new(outside: Outside, stations: &[&str]) -> Self {
        let member = |index: usize, name: &str| Member {
            name: name.to_owned(),
            mac: [0x02, 0, 0, 0, 1, index as u8],
            netns: Netns::new(name),
            port: format!("h{index}"),
            port_mac: [0x02, 0, 0, 0, 2, index as u8],
            mtu: DEFAULT_MTU,
        };
        assert!(stations.len() <= 0x100, "a station's address has one byte for its number");
        let mut members =
            stations.iter().enumerate().map(|(index, name)| member(index, name)).collect::<Vec<_>>();
        if outside != Outside::Nothing {
            members.push(Member {
                mac: OUTSIDE_MAC,
                port: UPLINK.to_owned(),
                port_mac: HOST_MAC,
                ..member(0, OUTSIDE)
            });
        }
        let mut lab = Self { switch: Netns::new("switch"), members, outside, adjacent: None };
        match outside {
            Outside::Nothing => {}
            Outside::Station => lab.cable(OUTSIDE),
            Outside::Adjacent { reflects } => {
                let adjacent = Netns::new("adjacent");
                let far = End { netns: &adjacent, ifname: ADJACENT_PORT, mac: [0x02, 0, 0, 0, 3, 0] };
                veth(End { netns: &lab.switch, ifname: UPLINK, mac: HOST_MAC }, far);
                let ext = lab.member(OUTSIDE);
                let near = End { netns: &adjacent, ifname: "ext0", mac: [0x02, 0, 0, 0, 3, 1] };
                veth(near, End { netns: &ext.netns, ifname: STATION_IF, mac: ext.mac });
                topo::bridge(&adjacent, "br0", ADJACENT_MAC, &[ADJACENT_PORT, "ext0"]);
                lab.adjacent = Some(adjacent);
                lab.reflect(reflects);
            }
        }
        lab
    }

    /// Another MTU for the cable of a station that is not behind the uplink.
    pub fn with_mtu(mut self, station: &str, mtu: u32) -> Self {
        let found = self.members.iter_mut().find(|member| member.name == station && member.name != OUTSIDE);
        found.unwrap_or_else(|| panic!("no cable of {station} to be made")).mtu = mtu;
        self
    }

    /// A veth pair from the switch's namespace to the station's.
    pub fn cable(&self, name: &str) {
        let Member { mac, netns, port, port_mac, mtu, .. } = self.member(name);
        let here = End { netns: &self.switch, ifname: port, mac: *port_mac };
        veth(here, End { netns, ifname: STATION_IF, mac: *mac });
        if *mtu != DEFAULT_MTU {
            self.switch.ip(&format!("link set {port} mtu {mtu}"));
            netns.ip(&format!("link set {STATION_IF} mtu {mtu}"));
        }
    }

    /// The stations that are not behind the uplink.
    pub fn downlinks(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.name != OUTSIDE)
    }

    pub fn member(&self, name: &str) -> &Member {
        self.find(name).unwrap_or_else(|| panic!("no station {name} in this lab"))
    }

    /// The switch's port for a station, or for the host the uplink.
    pub fn port(&self, name: &str) -> &str {
        if name == HOST { UPLINK } else { &self.member(name).port }
    }

    pub fn mac(&self, name: &str) -> Mac {
        if name == HOST { HOST_MAC } else { self.member(name).mac }
    }

    /// Whether the adjacent bridge reflects, as a relay for VEPA stations must.
    pub fn reflect(&self, on: bool) {
        let adjacent = self.adjacent.as_ref().expect("this lab has no adjacent bridge");
        adjacent.bridge(&format!("link set dev {ADJACENT_PORT} hairpin {}", if on { "on" } else { "off" }));
    }

    /// The adjacent bridge forwards link-local frames, as far as a bridge can be told to.
    pub fn relay_link_local(&self) {
        let adjacent = self.adjacent.as_ref().expect("this lab has no adjacent bridge");
        adjacent.ip("link set br0 type bridge group_fwd_mask 0xfff8");
    }

    pub fn find(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}
