//! Strictly, does anything pass between a private port and a sibling, however an adjacent switch reflects?

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::test_runner::TestCaseError;
use vswitch_tests::{
    cases::{Case, case},
    dice::dice,
    frame::BROADCAST,
    host_tables::HostTables,
    model::{Entry, Frame, Kind, Member, Mode, Model, Origin, Receiver},
};

/// How many frames of each kind were looked at: sent, or sent back.
type Looked = BTreeMap<String, u32>;

const MODES: [Mode; 4] = [Mode::Bridge, Mode::Vepa, Mode::Private, Mode::Source];
const KINDS: [&str; 8] =
    ["own", "private", "sibling", "elsewhere", "host", "unknown", "multicast", "broadcast"];

#[test]
fn nothing_passes_between_a_private_port_and_a_sibling() {
    let looked = RefCell::new(Looked::new());
    let [same, fresh] = dice(12_000, 4000, "leaks");
    fresh.throw(&case(), |case| follow(&private(case), &mut Looked::new()));
    same.throw(&case(), |case| follow(&private(case), &mut looked.borrow_mut()));

    let looked = looked.into_inner();
    println!("{looked:#?}");
    let cells = MODES.iter().flat_map(|mode| KINDS.map(|kind| format!("{mode:?} to {kind}")));
    let cells: Vec<_> =
        cells.flat_map(|cell| [format!("{cell}, sent"), format!("{cell}, sent back")]).collect();
    let rare: Vec<_> =
        cells.iter().filter(|cell| looked.get(*cell).is_none_or(|&count| count < 50)).collect();
    assert!(rare.is_empty(), "hardly looked at {rare:?}");
}

/// The case as one of a strict switch whose first downlink is private, and some of whose ports have known addresses.
fn private(mut case: Case) -> Case {
    let model = &mut case.model;
    model.compat = false;
    if let Some((&slot, port)) = model.ports.iter_mut().find(|(_, port)| !port.uplink) {
        (port.mode, port.nodst) = (Mode::Private, false);
        model.sources.retain(|&(by, _)| by != slot);
    }
    for (slot, last) in (1..).zip(1..=6) {
        if model.ports.get(&slot).is_some_and(|port| !port.uplink) {
            let known = Entry { at: Member::Port(slot), kind: Kind::StickyStatic, seen: 0 };
            model.fdb.insert([2, 0, 0, 0, 0, last], known);
        }
    }
    case
}

fn follow(case: &Case, looked: &mut Looked) -> Result<(), TestCaseError> {
    let (mut model, mut tables) = (case.model.clone(), case.tables());
    let uplinks: Vec<u16> =
        model.ports.iter().filter(|(_, port)| port.uplink).map(|(&slot, _)| slot).collect();
    for step in &case.steps {
        model.now += step.after;
        let kind = kind(&model, step.from, &step.frame);
        let sent = send(&mut model, &mut tables, step.from, &step.frame);
        let Member::Port(sender) = step.from else { continue };
        if model.ports[&sender].uplink {
            continue;
        }
        let cell = format!("{:?} to {kind}", model.ports[&sender].mode);
        let mut look = |model: &Model, receivers: &BTreeSet<Receiver>, how: &str| {
            *looked.entry(format!("{cell}, {how}")).or_default() += 1;
            let leaked: Vec<_> = receivers.iter().filter(|to| is_leak(model, sender, **to, how)).collect();
            let told = || TestCaseError::fail(format!("{step:?}, {how}, to {leaked:?}, at\n{model:?}"));
            if leaked.is_empty() { Ok(()) } else { Err(told()) }
        };
        look(&model, &sent, "sent")?;
        for &uplink in &uplinks {
            let back = Member::Port(uplink);
            // Of what a sibling sends under an address that nobody has learned or bound, nobody can tell where it is from;
            // a private port is not let do so. What was only learned has moved out with its first reflection.
            let left = sent.contains(&Receiver::Port(uplink));
            let times = match model.origin(back, step.frame.src) {
                Origin::Sibling(by) if by == sender => 2,
                Origin::MovedFrom(by) if by == sender && left => 1,
                _ if model.ports[&sender].mode == Mode::Private && left => 2,
                Origin::Sibling(_) | Origin::MovedFrom(_) | Origin::Host | Origin::Elsewhere => 0,
            };
            if times > 0 {
                let (mut model, mut tables) = (model.clone(), tables.clone());
                for _ in 0..times {
                    let receivers = send(&mut model, &mut tables, back, &step.frame);
                    look(&model, &receivers, "sent back")?;
                }
            }
        }
    }
    Ok(())
}

/// Who has it by the model or by the decision.
fn send(model: &mut Model, tables: &mut HostTables, from: Member, frame: &Frame) -> BTreeSet<Receiver> {
    tables.follow(model);
    let decided = tables.outcome(&tables.decide(from, frame)).receivers;
    &model.send(from, frame).receivers | &decided
}

fn is_leak(model: &Model, from: u16, to: Receiver, how: &str) -> bool {
    let Receiver::Port(to) = to else { return false };
    let private = |slot: u16| model.ports[&slot].mode == Mode::Private;
    let echo = from == to && how == "sent back";
    !model.ports[&to].uplink && (from != to || echo) && (private(from) || private(to))
}

/// Whose address the frame is for.
fn kind(model: &Model, from: Member, frame: &Frame) -> &'static str {
    if frame.dst[0] & 1 == 1 {
        return if frame.dst == BROADCAST { "broadcast" } else { "multicast" };
    }
    match model.fdb.get(&frame.dst).map(|entry| entry.at) {
        Some(at) if at == from => "own",
        Some(Member::Port(slot)) => match model.ports.get(&slot) {
            Some(port) if port.uplink => "elsewhere",
            Some(port) if port.mode == Mode::Private => "private",
            Some(_) => "sibling",
            None => "missing",
        },
        Some(Member::Host { .. }) => "host",
        None => "unknown",
    }
}
