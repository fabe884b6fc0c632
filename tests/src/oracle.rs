//! What would the kernel do? The lab joined by the kernel's own devices: a bridge, or macvlan children of the uplink.

use std::time::Duration;

use crate::{
    fabric::{Knob, Mode, Switch},
    frame::{Mac, colons},
    lab::{HOST, HOST_MAC, Lab, OUTSIDE, Outside, STATION_IF, UPLINK},
    topo,
};

/// A Linux bridge whose ports are the uplink and a veth for each station. The bridge device is the host.
#[derive(Debug, Default)]
pub struct LinuxBridge;

const BRIDGE: &str = "br0";

impl Switch for LinuxBridge {
    fn start(&mut self, lab: &Lab) -> Option<String> {
        lab.downlinks().for_each(|member| lab.cable(&member.name));
        let uplink = (lab.outside != Outside::Nothing).then_some(UPLINK);
        let ports = uplink.into_iter().chain(lab.downlinks().map(|member| member.port.as_str()));
        topo::bridge(&lab.switch, BRIDGE, HOST_MAC, &ports.collect::<Vec<_>>());
        Some(BRIDGE.to_owned())
    }

    fn set(&mut self, lab: &Lab, station: &str, knob: Knob, on: bool) {
        let (port, value) = (lab.port(station), if on { "on" } else { "off" });
        lab.switch.bridge(&format!("link set dev {port} {} {value}", knob.word()));
    }

    fn add_static(&mut self, lab: &Lab, mac: Mac, station: &str) {
        let entry = match station {
            HOST => format!("dev {BRIDGE} self permanent"),
            _ => format!("dev {} master static", lab.port(station)),
        };
        lab.switch.bridge(&format!("fdb replace {} {entry}", colons(mac)));
    }

    fn flush(&mut self, lab: &Lab) {
        lab.switch.bridge(&format!("fdb flush dev {BRIDGE} dynamic"));
    }

    fn set_ageing(&mut self, lab: &Lab, ageing: Duration) {
        let centiseconds = ageing.as_millis() / 10;
        lab.switch.ip(&format!("link set {BRIDGE} type bridge ageing_time {centiseconds}"));
    }
}

/// macvlan children of the uplink, one for each station, moved into the station's namespace. The uplink is the host.
/// A passthru child has the uplink's address, whatever the lab says.
#[derive(Debug)]
pub struct Macvlan {
    /// For the stations in their order.
    pub modes: Vec<Mode>,
}

impl Switch for Macvlan {
    fn start(&mut self, lab: &Lab) -> Option<String> {
        let members = lab.downlinks().collect::<Vec<_>>();
        assert_eq!(members.len(), self.modes.len(), "one mode for each station");
        assert_ne!(lab.outside, Outside::Nothing, "macvlan needs an uplink");
        for (member, mode) in members.into_iter().zip(&self.modes) {
            lab.switch.ip(&format!(
                "link add link {UPLINK} name {} address {} netns {} type macvlan mode {}",
                STATION_IF,
                colons(member.mac),
                member.netns.name(),
                mode.word()
            ));
            // The receive filter of a child knows only groups that were joined on it. The far end of a veth cannot be
            // asked what it joined, so the comparison is with children that take all.
            member.netns.ip(&format!("link set {STATION_IF} up allmulticast on"));
        }
        Some(UPLINK.to_owned())
    }

    fn set_mode(&mut self, lab: &Lab, station: &str, mode: Mode) {
        lab.member(station).netns.ip(&format!("link set {STATION_IF} type macvlan mode {}", mode.word()));
    }

    fn set_sources(&mut self, lab: &Lab, station: &str, sources: &[Mac]) {
        let list = sources.iter().map(|mac| colons(*mac)).collect::<Vec<_>>().join(" ");
        let list = if sources.is_empty() { "flush".to_owned() } else { format!("set {list}") };
        lab.member(station).netns.ip(&format!("link set {STATION_IF} type macvlan macaddr {list}"));
    }

    fn set_nodst(&mut self, lab: &Lab, station: &str, on: bool) {
        let flag = if on { "nodst" } else { "null" };
        lab.member(station).netns.ip(&format!("link set {STATION_IF} type macvlan mode source flag {flag}"));
    }

    fn fence(&self) -> Option<&str> {
        // Received group frames wait for a kernel worker, in order; those from outside are for every child.
        Some(OUTSIDE)
    }
}
