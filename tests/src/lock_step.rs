//! Do the decision and the model agree, frame by frame? For property tests and fuzzing alike.

use crate::{
    cases::{Case, Step},
    host_tables::{HostTables, abi_fdb, settled},
    model::{Member, Model, Outcome},
};

/// A frame on which they agreed.
pub struct Taken<'a> {
    pub before: &'a Model,
    pub after: &'a Model,
    pub step: &'a Step,
    pub outcome: &'a Outcome,
    /// What became of an equal frame just before, if that was remembered until the step's change.
    pub remembered: Option<&'a Outcome>,
    /// Whether it was answered from memory.
    pub recalled: bool,
}

/// What frames themselves change that a verdict may follow from.
pub const BY_FRAMES: [&str; 2] = ["revived", "moved"];

/// Sends the case's frames through both. The error is the first difference, with all that led to it.
pub fn in_lock_step(case: &Case, taken: impl FnMut(&Taken<'_>)) -> Result<(), String> {
    but_for("nobody", case, taken)
}

/// As [`in_lock_step`], but who makes the changes of this kind, of [`crate::change::KINDS`] or [`BY_FRAMES`], does not make
/// what was decided forgotten.
pub fn but_for(forgetful: &str, case: &Case, mut taken: impl FnMut(&Taken<'_>)) -> Result<(), String> {
    let mut model = case.model.clone();
    let mut tables = case.tables();
    let mut last: Option<(&Step, Outcome)> = None;
    for (n, step) in case.steps.iter().enumerate() {
        let &Step { change, after, from, ref frame } = step;
        let equal = last.take().filter(|(last, _)| (last.from, last.frame) == (from, *frame));
        let remembered =
            equal.filter(|_| tables.remembered(from, frame).is_some()).map(|(_, outcome)| outcome);
        if let Some(change) = change {
            change.make(&mut model);
            tables.forgets.set(change.name() != forgetful);
            tables.become_like(&case.tables_of(&model));
        }
        if !model.has(from) {
            continue;
        }
        model.now += after;
        tables.now.set(model.now);
        let before = model.clone();
        let outcome = model.send(from, frame);
        let [revived, moved] = BY_FRAMES;
        let is_down = matches!(from, Member::Port(slot) if before.ports[&slot].down);
        tables.forgets.set(forgetful != if is_down { revived } else { moved });
        let recalled = tables.recalled.get();
        let decided = tables.answer(from, frame).map(|packet| tables.outcome(&packet));
        if decided.as_ref() != Ok(&outcome) || !same_state(&tables, &model) {
            return Err(format!(
                "frame {n}, {step:?}, at\n{before:?}\nspecified {outcome:?}\ndecided   {decided:?}\nthen\n{model:?}\nand in the tables {:?}",
                tables.fdb.borrow()
            ));
        }
        taken(&Taken {
            before: &before,
            after: &model,
            step,
            outcome: &outcome,
            remembered: remembered.as_ref(),
            recalled: tables.recalled.get() > recalled,
        });
        last = Some((step, outcome));
    }
    Ok(())
}

/// Whether the decisions have left in the tables what the model holds.
pub fn same_state(tables: &HostTables, model: &Model) -> bool {
    let down = tables.down.borrow();
    model.ports.iter().all(|(slot, port)| down.contains(slot) == port.down)
        && settled(&tables.fdb.borrow()) == abi_fdb(model)
}
