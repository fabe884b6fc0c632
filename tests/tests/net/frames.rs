//! Does vswitch do with every frame what the Linux bridge does? The same frames through both; differences are listed.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_tests::{
    fabric::{Fabric, Knob},
    frame::{Addr, Frame},
    lab::{HOST, HOST_MAC, Lab, OUTSIDE, Outside},
    model::{Entry, Kind, Member, Model, PLAIN, Port, slot_of},
    observe::Receipts,
    oracle::LinuxBridge,
    require,
    require::NAMESPACES,
    vswitch::{Vswitch, json},
};

use crate::{
    frames_cases::{NARROW, NARROW_MTU, PORTS, Random, Setup, frames, random, systematic, untagged_len},
    frames_differences::{Case, DIFFERENCES},
    frames_ledger::Ledger,
};

#[test]
fn every_setting_at_every_port() {
    require!(NAMESPACES);
    let hit = Worlds::new(1, Vswitch::new()).compare(&systematic());
    let missed = DIFFERENCES.iter().map(|row| row.when).filter(|when| !hit.contains(when));
    assert_eq!(missed.collect::<Vec<_>>(), [""; 0], "rows of the list that nothing shows any more");
}

#[test]
fn settings_in_any_combination() {
    require!(NAMESPACES);
    let mut worlds = Worlds::new(2, Vswitch::new());
    let setups = random(&mut worlds.random, 40);
    worlds.compare(&setups);
}

/// The same lab twice, joined by a bridge and by vswitch, and what vswitch must know by now.
pub(crate) struct Worlds {
    bridge: Fabric,
    vswitch: Fabric,
    /// Of the switch.
    name: String,
    model: Model,
    setup: Setup,
    /// What `stats` must say.
    ledger: Ledger,
    seed: u64,
    pub(crate) random: Random,
}

impl Worlds {
    pub(crate) fn new(seed: u64, vswitch: Vswitch) -> Self {
        let lab = || Lab::new(Outside::Station, &["a", "b", "c"]).with_mtu(NARROW, NARROW_MTU);
        let name = vswitch.name.clone();
        let (bridge, vswitch) = (Fabric::new(LinuxBridge, lab()), Fabric::new(vswitch, lab()));
        let local = Entry { at: member(HOST), kind: Kind::Local, seen: 0 };
        let model = Model {
            ports: BTreeMap::new(),
            fdb: BTreeMap::from([(HOST_MAC, local)]),
            fdb_max: usize::MAX,
            ageing: u64::MAX,
            refresh: 1,
            now: 0,
            host_access: true,
            compat: false,
            sources: BTreeSet::new(),
        };
        Self {
            bridge,
            vswitch,
            name,
            model,
            setup: Setup::default(),
            ledger: Ledger::default(),
            seed,
            random: Random(seed),
        }
    }

    /// A round of frames in each setup; returns the rows of the list that made a difference.
    pub(crate) fn compare(&mut self, setups: &[Setup]) -> BTreeSet<&'static str> {
        let (mut hit, mut wrong, mut sent) = (BTreeSet::new(), Vec::new(), 0);
        for (round, setup) in setups.iter().enumerate() {
            self.change_to(setup);
            let frames = frames(&mut self.random, &self.bridge.lab);
            let pairs = self.bridge.exchange(&frames).into_iter().zip(self.vswitch.exchange(&frames));
            for ((from, frame), (bridge, vswitch)) in frames.iter().zip(pairs) {
                sent += 1;
                match self.judge(from, frame, &bridge, &vswitch) {
                    Ok(row) => hit.extend(row.filter(|_| bridge != vswitch)),
                    Err(expected) => wrong.push(format!(
                        "\n  round {round}: {from} sends {frame}\n    bridge {bridge}, vswitch {vswitch}; {expected}"
                    )),
                }
            }
            let shown = wrong.iter().take(20).map(String::as_str).collect::<String>();
            assert!(
                wrong.is_empty(),
                "seed {}, {} of {sent} frames; {:?}:{shown}",
                self.seed,
                wrong.len(),
                self.named()
            );
            let said = json(&self.vswitch.lab.switch, &self.name, "stats");
            assert_eq!(
                Ledger::said(&said),
                self.ledger,
                "seed {}, round {round}: what stats says",
                self.seed
            );
        }
        hit
    }

    /// Equal, or different as the list has it: then which row it was. Otherwise what was expected.
    fn judge(
        &mut self,
        from: &str,
        frame: &Frame,
        bridge: &Receipts,
        vswitch: &Receipts,
    ) -> Result<Option<&'static str>, String> {
        let resolve = |addr: &Addr| match addr {
            Addr::Of(name) => self.bridge.lab.mac(name),
            Addr::Mac(mac) => *mac,
        };
        let (dst, src) =
            (resolve(&frame.dst), frame.src.as_ref().map_or_else(|| resolve(&from.into()), resolve));
        let len = untagged_len(frame);
        let sent = vswitch_tests::model::Frame { dst, src, len, gso: false, pause: false };
        let outcome = self.model.send(member(from), &sent);
        let at = self.model.fdb.get(&dst).map(|entry| entry.at);
        self.ledger.enter(&self.bridge.lab, from, &outcome, vswitch);
        let case = Case { lab: &self.bridge.lab, setup: &self.setup, from, frame, dst, at };
        let admitted = outcome.dropped != Some("invalid_source");
        let Some(row) = DIFFERENCES.iter().find(|row| admitted && (row.applies)(&case)) else {
            return if bridge == vswitch { Ok(None) } else { Err("no difference is listed".to_owned()) };
        };
        let expected = ((row.bridge)(&case), (row.vswitch)(&case));
        if *bridge == expected.0.as_str() && *vswitch == expected.1.as_str() {
            return Ok(Some(row.when));
        }
        Err(format!("listed: {}: bridge {}, vswitch {} ({})", row.when, expected.0, expected.1, row.why))
    }

    fn change_to(&mut self, setup: &Setup) {
        for &(port, word) in self.setup.changed.symmetric_difference(&setup.changed) {
            let knob = Knob::ALL[word];
            let on = setup.is(port, knob);
            self.bridge.set(port, knob, on);
            self.vswitch.set(port, knob, on);
        }
        if setup.flush {
            self.bridge.flush();
            self.vswitch.flush();
            self.model.fdb.retain(|_, entry| entry.kind != Kind::Learned);
        }
        for &(mac, port) in &setup.statics {
            self.bridge.add_static(mac, port);
            self.vswitch.add_static(mac, port);
            self.model.fdb.insert(mac, Entry { at: member(port), kind: Kind::Static, seen: 0 });
        }
        self.setup = setup.clone();
        self.model.ports = PORTS.into_iter().map(|name| (slot_of(member(name)), self.port(name))).collect();
    }

    fn port(&self, name: &str) -> Port {
        let is = |knob| self.setup.is(name, knob);
        Port {
            uplink: name == OUTSIDE,
            mtu: self.bridge.lab.member(name).mtu,
            hairpin: is(Knob::Hairpin),
            isolated: is(Knob::Isolated),
            learning: is(Knob::Learning),
            flood: is(Knob::Flood),
            mcast_flood: is(Knob::McastFlood),
            bcast_flood: is(Knob::BcastFlood),
            ..PLAIN
        }
    }

    fn named(&self) -> Vec<String> {
        let named = |&(port, word): &(&str, usize)| format!("{port} {} changed", Knob::ALL[word].word());
        self.setup.changed.iter().map(named).collect()
    }
}

fn member(name: &str) -> Member {
    let slot = |name| PORTS.iter().position(|port| *port == name).expect("a port of the lab") as u16 + 1;
    if name == HOST { Member::Host { uplink: slot(OUTSIDE) } } else { Member::Port(slot(name)) }
}
