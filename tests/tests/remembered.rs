//! Is what is remembered forgotten when it must be, and would these tests show it if one writer forgot to say so?

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    mem,
};

use proptest::{collection::vec, strategy::Strategy, test_runner::TestCaseError};
use vswitch_tests::{
    cases::{Case, Step, case},
    change::{change, kinds},
    dice::dice,
    frame::Mac,
    lock_step::{BY_FRAMES, Taken, but_for, in_lock_step},
    model::{Entry, Frame, Kind, Member, Mode, Model, slot_of},
};

/// Kinds of change that no remembered verdict follows from: what is for many is not remembered.
const OF_FRAMES_FOR_MANY: [&str; 4] = ["flood", "mcast_flood", "bcast_flood", "nodst"];

/// An ageing time that lets most of what is known be used.
const LONG: u64 = 8;

/// How often a change of each kind fell between two equal frames the first of which was remembered, and how often the second
/// fared otherwise for it.
type Coverage = BTreeMap<&'static str, (u32, u32)>;

#[test]
fn a_change_shows_in_the_very_next_frame() {
    let seen = RefCell::new(Coverage::new());
    let [same, fresh] = dice(4000, 500, "remembered");
    fresh.throw(&busy(), |case| counted(&case, &mut Coverage::new()));
    same.throw(&busy(), |case| counted(&case, &mut seen.borrow_mut()));

    let seen = seen.into_inner();
    println!("{seen:?}");
    let wrong = kinds().filter(|kind| {
        let (between, matters) = seen.get(*kind).copied().unwrap_or_default();
        let shows = if OF_FRAMES_FOR_MANY.contains(kind) { matters == 0 } else { matters >= 5 };
        between < 50 || !shows
    });
    assert_eq!(wrong.collect::<Vec<_>>(), [""; 0], "between two equal frames: {seen:?}");
}

/// Each writer in turn does not make what was decided forgotten.
#[test]
fn a_writer_that_forgets_to_say_so_is_caught() {
    let left: BTreeSet<_> =
        kinds().chain(BY_FRAMES).filter(|kind| !OF_FRAMES_FOR_MANY.contains(kind)).collect();
    let (left, cases) = (RefCell::new(left), RefCell::new(0));
    let [same, _] = dice(1000, 1, "remembered");
    same.throw(&busy(), |case| {
        *cases.borrow_mut() += 1;
        let mut left = left.borrow_mut();
        if !left.is_empty() {
            left.retain(|kind| match but_for(kind, &case, |_| ()) {
                Ok(()) => true,
                Err(difference) => {
                    let why = difference.lines().find(|line| line.contains("remembered"));
                    println!("{kind}, in case {}: {}", cases.borrow(), why.expect("memory's difference"));
                    false
                }
            });
        }
        Ok(())
    });
    assert_eq!(*left.borrow(), BTreeSet::new(), "nobody has noticed");
}

fn counted(case: &Case, seen: &mut Coverage) -> Result<(), TestCaseError> {
    let count = |taken: &Taken<'_>| {
        if let (Some(change), Some(was)) = (taken.step.change, taken.remembered) {
            let (between, matters) = seen.entry(change.name()).or_default();
            *between += 1;
            // Or it teaches something that it did not teach before.
            *matters += u32::from(was != taken.outcome || taken.before != taken.after);
        }
    };
    in_lock_step(case, count).map_err(TestCaseError::fail)
}

/// A case in which memory has much to do: who speaks and who is spoken to is known; each frame comes again, once more after a
/// change that is about the one or the other, and once more after an answer; and some answer from elsewhere.
fn busy() -> impl Strategy<Value = Case> {
    (case(), vec(change(), 12)).prop_map(|(mut case, changes)| {
        let mut talks = mem::take(&mut case.steps);
        talks.dedup_by_key(|talk| (talk.from, talk.frame));
        talks.retain(|talk| is_station(talk.frame.src) && is_station(talk.frame.dst));
        let model = &mut case.model;
        let source = model.ports.iter().find(|(_, port)| port.mode == Mode::Source).map(|(&slot, _)| slot);
        let hosts =
            model.ports.iter().filter(|(_, port)| port.uplink).map(|(&uplink, _)| Member::Host { uplink });
        let places: Vec<_> = model.ports.keys().map(|&slot| Member::Port(slot)).chain(hosts).collect();
        if model.ageing < LONG {
            (model.ageing, model.refresh) = (LONG, 2);
        }
        for (n, (talk, change)) in talks.into_iter().zip(changes.into_iter().cycle()).enumerate() {
            let Frame { src, dst, .. } = talk.frame;
            let (home, there) = (know(model, src, talk.from), know(model, dst, places[n % places.len()]));
            // Some stations stay where they are, others move.
            let from = if n % 4 < 3 { home } else { talk.from };
            let change = match n % 3 {
                0 => change.about(slot_of(from), dst),
                1 => change.about(slot_of(there), src),
                _ => change.about(source.unwrap_or_else(|| slot_of(there)), src),
            };
            // Longer than one MTU and shorter than the other.
            let len = if change.name() == "mtu" { 1000 } else { talk.frame.len };
            let sent = Step { from, frame: Frame { len, ..talk.frame }, ..talk };
            let again = Step { change: None, after: 0, ..sent };
            let answer = Step { from: there, frame: Frame { src: dst, dst: src, ..sent.frame }, ..again };
            case.steps.extend([sent, again, Step { change: Some(change), ..again }, answer, again]);
            if n % 3 == 0 {
                // Who is spoken to moves, and moves on.
                case.steps.extend([Step { from, ..answer }, again, again, answer, again]);
            }
        }
        case
    })
}

fn is_station(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// Where an address is. A station of which nothing is known is entered.
fn know(model: &mut Model, mac: Mac, at: Member) -> Member {
    let unknown = Entry { at, kind: Kind::Learned, seen: model.now };
    model.fdb_max += usize::from(!model.fdb.contains_key(&mac));
    let known = model.fdb.entry(mac).or_insert(unknown).at;
    if model.has(known) { known } else { at }
}
