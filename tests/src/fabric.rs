//! What is compared? A lab joined by one kind of switch: a kernel device as the oracle (`oracle.rs`), or vswitch
//! (`vswitch.rs`).

use std::{thread, time::Duration};

use crate::{
    frame::{Addr, BROADCAST, ETHERTYPE, Frame, Mac, to},
    lab::{HOST, HOST_MAC, Lab, Member, STATION_IF},
    observe::{self, Receipts, Send},
    wire::{Ear, Station},
};

/// A boolean of a port, in the words that `bridge link set` and `vswitch port set` share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knob {
    Hairpin,
    Isolated,
    Learning,
    Flood,
    McastFlood,
    BcastFlood,
}

impl Knob {
    pub const ALL: [Self; 6] =
        [Self::Hairpin, Self::Isolated, Self::Learning, Self::Flood, Self::McastFlood, Self::BcastFlood];

    /// snake_case; vswitch's options have dashes instead.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hairpin => "hairpin",
            Self::Isolated => "isolated",
            Self::Learning => "learning",
            Self::Flood => "flood",
            Self::McastFlood => "mcast_flood",
            Self::BcastFlood => "bcast_flood",
        }
    }
}

/// macvlan's words for what a port may exchange with its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Bridge,
    Vepa,
    Private,
    Passthru,
    Source,
}

impl Mode {
    pub const ALL: [Self; 5] = [Self::Bridge, Self::Vepa, Self::Private, Self::Passthru, Self::Source];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vepa => "vepa",
            Self::Private => "private",
            Self::Passthru => "passthru",
            Self::Source => "source",
        }
    }
}

/// A kind of switch. Ports are named by the station they lead to; not every kind has every setting.
pub trait Switch {
    /// Joins the lab's members and uplink; returns the interface in `lab.switch` by which the host sends and receives.
    fn start(&mut self, lab: &Lab) -> Option<String>;

    /// Takes away what namespaces do not take with them. Runs while a failed test unwinds: must not panic.
    fn stop(&mut self, _lab: &Lab) {}

    fn set(&mut self, _lab: &Lab, station: &str, knob: Knob, _on: bool) {
        panic!("this switch has no {} (asked for {station})", knob.word());
    }

    fn set_mode(&mut self, _lab: &Lab, station: &str, mode: Mode) {
        panic!("this switch has no mode {} (asked for {station})", mode.word());
    }

    /// The senders whose frames a port in source mode is given.
    fn set_sources(&mut self, _lab: &Lab, station: &str, _sources: &[Mac]) {
        panic!("this switch has no source lists (asked for {station})");
    }

    /// Whether what the senders on its list send is for the port in source mode alone.
    fn set_nodst(&mut self, _lab: &Lab, station: &str, _on: bool) {
        panic!("this switch has no source lists (asked for {station})");
    }

    /// An entry that never ages.
    fn add_static(&mut self, _lab: &Lab, _mac: Mac, station: &str) {
        panic!("this switch has no static entries (asked for {station})");
    }

    /// Forgets what was learned, and nothing else.
    fn flush(&mut self, _lab: &Lab) {
        panic!("this switch learns nothing");
    }

    fn set_ageing(&mut self, _lab: &Lab, ageing: Duration) {
        panic!("this switch does not age (asked for {ageing:?})");
    }

    /// The station whose broadcast is heard only after all that the switch has queued, if it queues at all.
    fn fence(&self) -> Option<&str> {
        None
    }
}

/// A lab at work. The host hears `ETHERTYPE` alone, the stations everything.
pub struct Fabric {
    // Sockets first: they keep their namespaces alive.
    stations: Vec<Station>,
    switch: Box<dyn Switch>,
    pub lab: Lab,
}

impl Fabric {
    pub fn new(switch: impl Switch + 'static, lab: Lab) -> Self {
        // Whole before it starts, so that a failed start is stopped too.
        let mut fabric = Self { stations: Vec::new(), switch: Box::new(switch), lab };
        let host_if = fabric.switch.start(&fabric.lab);
        fabric.stations = stations(&fabric.lab, host_if.as_deref());
        fabric.await_carriers(fabric.stations.iter().filter(|station| station.ear == Ear::Tap));
        fabric
    }

    /// Takes a station's interface down, or up until frames flow.
    pub fn link(&self, station: &str, up: bool) -> &Self {
        let state = if up { "up" } else { "down" };
        self.lab.member(station).netns.ip(&format!("link set {STATION_IF} {state}"));
        if up {
            self.await_carriers([self.station(station)]);
        }
        self
    }

    pub fn set(&mut self, station: &str, knob: Knob, on: bool) -> &mut Self {
        self.switch.set(&self.lab, station, knob, on);
        self
    }

    pub fn set_mode(&mut self, station: &str, mode: Mode) -> &mut Self {
        self.switch.set_mode(&self.lab, station, mode);
        self
    }

    pub fn set_sources(&mut self, station: &str, sources: &[Mac]) -> &mut Self {
        self.switch.set_sources(&self.lab, station, sources);
        self
    }

    pub fn set_nodst(&mut self, station: &str, on: bool) -> &mut Self {
        self.switch.set_nodst(&self.lab, station, on);
        self
    }

    /// The host listens to one more ethertype, behind every interface where it listens.
    pub fn host_hears(&mut self, ethertype: u16) {
        let stacks = self.stations.iter().filter(|station| station.ear == Ear::Stack(ETHERTYPE));
        let more = stacks.map(|Station { name, mac, .. }| {
            let at = name.strip_prefix("host@").unwrap_or(HOST);
            Station::new(name, &self.lab.switch, self.lab.port(at), *mac, Ear::Stack(ethertype))
        });
        let more = more.collect::<Vec<_>>();
        self.stations.extend(more);
    }

    pub fn add_static(&mut self, mac: Mac, station: &str) -> &mut Self {
        self.switch.add_static(&self.lab, mac, station);
        self
    }

    pub fn flush(&mut self) -> &mut Self {
        self.switch.flush(&self.lab);
        self
    }

    pub fn set_ageing(&mut self, ageing: Duration) -> &mut Self {
        self.switch.set_ageing(&self.lab, ageing);
        self
    }

    /// Everyone says hello, so that all addresses are known wherever addresses are learned.
    pub fn introduce(&self) {
        let names = self.lab.members.iter().map(|member| member.name.as_str());
        let host = self.stations.iter().any(|station| station.name == HOST).then_some(HOST);
        self.exchange(&names.chain(host).map(|name| (name, to(BROADCAST))).collect::<Vec<_>>());
    }

    /// Sends the frames in order and tells who received each. What a frame teaches the switch holds for the next.
    pub fn exchange(&self, sends: &[(&str, Frame)]) -> Vec<Receipts> {
        let sends = sends.iter().map(|(from, frame)| {
            let station = self.station(from);
            let src = frame.src.as_ref().map_or(station.mac, |addr| self.resolve(addr));
            Send { station, frame, dst: self.resolve(&frame.dst), src }
        });
        let fence = self.switch.fence().map(|name| self.station(name));
        observe::exchange(&self.stations, &sends.collect::<Vec<_>>(), fence)
    }

    /// A table of sender, frame and receivers; panics with every row that is different.
    pub fn check(&self, title: &str, rows: &[(&str, Frame, &str)]) {
        let sends = rows.iter().map(|(from, frame, _)| (*from, frame.clone())).collect::<Vec<_>>();
        let wrong = rows.iter().zip(self.exchange(&sends)).filter(|((.., expected), got)| *got != *expected);
        let wrong = wrong.map(|((from, frame, expected), got)| {
            format!("\n  {from} sends {frame}\n    expected {expected}, received by {got}")
        });
        let wrong = wrong.collect::<String>();
        assert!(wrong.is_empty(), "{title}:{wrong}");
    }

    pub fn station(&self, name: &str) -> &Station {
        let found = self.stations.iter().find(|station| station.name == name);
        found.unwrap_or_else(|| panic!("no station {name} in this fabric"))
    }

    fn await_carriers<'a>(&self, stations: impl IntoIterator<Item = &'a Station>) {
        for station in stations {
            station.await_carrier(STATION_IF);
        }
        // The worker that noticed the carriers did the cables' other ends under the same lock, which this waits for.
        self.lab.switch.ip("link show lo");
    }

    fn resolve(&self, addr: &Addr) -> Mac {
        match addr {
            Addr::Of(name) => self.station(name).mac,
            Addr::Mac(mac) => *mac,
        }
    }
}

fn stations(lab: &Lab, host_if: Option<&str>) -> Vec<Station> {
    let stack = Ear::Stack(ETHERTYPE);
    let station = |m: &Member| Station::new(&m.name, &m.netns, STATION_IF, m.mac, Ear::Tap);
    let mut stations = lab.members.iter().map(station).collect::<Vec<_>>();
    stations.extend(host_if.map(|ifname| Station::new(HOST, &lab.switch, ifname, HOST_MAC, stack)));
    // What a port leaves to its own interface, such as LLDP, is the host's too, but came another way.
    for Member { name, port, port_mac, .. } in &lab.members {
        if host_if != Some(port) && lab.switch.find_ifindex(port).is_some() {
            stations.push(Station::new(&format!("{HOST}@{name}"), &lab.switch, port, *port_mac, stack));
        }
    }
    stations
}

impl Drop for Fabric {
    fn drop(&mut self) {
        self.switch.stop(&self.lab);
        // Closing a packet socket waits for an RCU grace period of some 15 ms: all wait for the same one.
        thread::scope(|scope| {
            for station in self.stations.drain(..) {
                scope.spawn(move || drop(station));
            }
        });
    }
}
