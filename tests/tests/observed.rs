//! Does the specification say what was observed of the kernel's macvlan? Linux 6.18's tables, which `net/oracle_selfcheck.rs`
//! observes again, through the model in compat mode.
#![allow(clippy::unwrap_used, reason = "test code: a broken table must stop the test")]

use std::collections::BTreeSet;

use vswitch_tests::{
    frame::{BROADCAST, Mac},
    model::{Entry, Frame, Kind, Member, Mode, Model, PLAIN, Port, Receiver},
};

/// By slot; the first is the station outside.
const NAMES: [&str; 7] = ["ext", "B1", "B2", "V3", "V4", "P5", "P6"];
const MODES: [Mode; 6] = [Mode::Bridge, Mode::Bridge, Mode::Vepa, Mode::Vepa, Mode::Private, Mode::Private];
const UPLINK: u16 = 7;

/// From, and who receives what is sent to each of `NAMES` and to all.
type Row = (&'static str, [&'static str; 7], &'static str);

const REFLECTING: [Row; 4] = [
    ("ext", ["", "B1", "B2", "V3", "V4", "P5", "P6"], "B1 B2 V3 V4 P5 P6"),
    ("B1", ["ext", "", "B2", "V3", "V4", "P5", "P6"], "ext B2 V3 V4"),
    ("V3", ["ext", "B1", "B2", "", "V4", "P5", "P6"], "ext B1 B2 V4"),
    ("P5", ["ext", "B1", "B2", "V3", "V4", "", "P6"], "ext P5"),
];

const PLAIN_SWITCH: [Row; 4] = [
    ("ext", ["", "B1", "B2", "V3", "V4", "P5", "P6"], "B1 B2 V3 V4 P5 P6"),
    ("B1", ["ext", "", "B2", "", "", "", ""], "ext B2"),
    ("V3", ["ext", "", "", "", "", "", ""], "ext"),
    ("P5", ["ext", "", "", "", "", "", ""], "ext"),
];

/// The first two differences of `docs/semantics.md`: the same without what passes between a private port and a sibling, and without the echo.
const STRICT: [Row; 4] = [
    ("ext", ["", "B1", "B2", "V3", "V4", "P5", "P6"], "B1 B2 V3 V4 P5 P6"),
    ("B1", ["ext", "", "B2", "V3", "V4", "", ""], "ext B2 V3 V4"),
    ("V3", ["ext", "B1", "B2", "", "V4", "", ""], "ext B1 B2 V4"),
    ("P5", ["ext", "", "", "", "", "", ""], "ext"),
];

#[test]
fn the_model_behind_a_reflecting_switch_is_the_observed_macvlan() {
    compare(true, true, &REFLECTING);
}

#[test]
fn the_model_behind_a_switch_that_does_not_reflect_is_the_observed_macvlan() {
    compare(true, false, &PLAIN_SWITCH);
    compare(false, false, &PLAIN_SWITCH);
}

#[test]
fn strictly_the_model_behind_a_reflecting_switch_differs_by_the_private_ports_alone() {
    compare(false, true, &STRICT);
}

fn compare(compat: bool, reflects: bool, rows: &[Row]) {
    for (from, to_each, to_all) in rows {
        for (to, expected) in NAMES.iter().zip(to_each).filter(|(to, _)| *to != from) {
            let got = receivers(&mut model(compat), reflects, from, mac(to));
            assert_eq!(got, *expected, "{from} to {to}, reflects {reflects}, compat {compat}");
        }
        let got = receivers(&mut model(compat), reflects, from, BROADCAST);
        assert_eq!(got, *to_all, "{from} to all, reflects {reflects}, compat {compat}");
    }
}

/// Who has one frame in the end, each with one copy.
fn receivers(model: &mut Model, reflects: bool, from: &str, dst: Mac) -> String {
    let frame = Frame { dst, src: mac(from), len: 60, gso: false, pause: false };
    let outside = from == NAMES[0];
    let sender = if outside { UPLINK } else { slot(from) };
    let mut copies: Vec<Receiver> = model.send(Member::Port(sender), &frame).receivers.into_iter().collect();
    let mut who = BTreeSet::new();
    if copies.contains(&Receiver::Port(UPLINK)) {
        if dst == BROADCAST || dst == mac(NAMES[0]) {
            who.insert(0);
        }
        if reflects && dst != mac(NAMES[0]) {
            copies.extend(model.send(Member::Port(UPLINK), &frame).receivers);
        }
    }
    for copy in copies {
        if let Receiver::Port(slot @ 1..UPLINK) = copy {
            assert!(who.insert(slot), "a second copy to {slot}");
        }
    }
    let who: Vec<_> = who.into_iter().map(|at| NAMES[usize::from(at)]).collect();
    who.join(" ")
}

fn model(compat: bool) -> Model {
    let children = MODES.iter().zip(1..).map(|(&mode, slot)| (slot, Port { mode, ..PLAIN }));
    let fdb = (1..UPLINK).map(|slot| {
        (mac(NAMES[usize::from(slot)]), Entry { at: Member::Port(slot), kind: Kind::StickyStatic, seen: 0 })
    });
    // To macvlan all that is no child is outside; a bridge must have heard it.
    let outside = Entry { at: Member::Port(UPLINK), kind: Kind::Learned, seen: 1000 };
    Model {
        ports: children.chain([(UPLINK, Port { uplink: true, ..PLAIN })]).collect(),
        fdb: fdb.chain([(mac(NAMES[0]), outside)]).collect(),
        fdb_max: 100,
        ageing: 300,
        refresh: 1,
        now: 1000,
        host_access: false,
        compat,
        sources: BTreeSet::new(),
    }
}

fn slot(name: &str) -> u16 {
    NAMES.iter().zip(0..).find(|(other, _)| **other == name).unwrap().1
}

fn mac(name: &str) -> Mac {
    [2, 0, 0, 0, 0, 0x10 + u8::try_from(slot(name)).unwrap()]
}
