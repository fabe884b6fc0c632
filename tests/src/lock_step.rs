//! Do the decision and the model agree, frame by frame? For property tests and fuzzing alike.

use crate::{
    cases::{Case, Step},
    host_tables::{HostTables, abi_fdb, settled},
    model::{Model, Outcome},
};

/// A frame on which they agreed.
pub struct Taken<'a> {
    pub before: &'a Model,
    pub after: &'a Model,
    pub step: &'a Step,
    pub outcome: &'a Outcome,
}

/// Sends the case's frames through both. The error is the first difference, with all that led to it.
pub fn in_lock_step(case: &Case, mut taken: impl FnMut(&Taken<'_>)) -> Result<(), String> {
    let mut model = case.model.clone();
    let mut tables = case.tables();
    for (n, step) in case.steps.iter().enumerate() {
        if let Some(change) = step.change {
            change.make(&mut model);
            tables.become_like(&case.tables_of(&model));
        }
        if !model.has(step.from) {
            continue;
        }
        model.now += step.after;
        tables.now.set(model.now);
        let before = model.clone();
        let outcome = model.send(step.from, &step.frame);
        let decided = tables.outcome(&tables.decide(step.from, &step.frame));
        if decided != outcome || !same_state(&tables, &model) {
            return Err(format!(
                "frame {n}, {step:?}, at\n{before:?}\nspecified {outcome:?}\ndecided   {decided:?}\nthen\n{model:?}\nand in the tables {:?}",
                tables.fdb.borrow()
            ));
        }
        taken(&Taken { before: &before, after: &model, step, outcome: &outcome });
    }
    Ok(())
}

/// Whether the decisions have left in the tables what the model holds.
pub fn same_state(tables: &HostTables, model: &Model) -> bool {
    let down = tables.down.borrow();
    model.ports.iter().all(|(slot, port)| down.contains(slot) == port.down)
        && settled(&tables.fdb.borrow()) == abi_fdb(model)
}
