//! Where does what a command says go? Results to stdout, notes to stderr; a reader that leaves is no failure.

use std::{
    fmt,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Session;
use crate::control::{Report, tell};

/// Nobody reads stdout any more, as in `vswitch fdb | head -1`: the end of the work, not an error.
#[derive(Clone, Copy, Debug)]
pub struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write to stdout: nobody reads it")
    }
}

impl std::error::Error for ReaderGone {}

/// An operation, as `-j` shows it.
#[derive(Serialize)]
struct Operation<'a> {
    op: &'a str,
    done: bool,
}

impl Session {
    /// Prints `rows` as JSON, or as what `table` makes of them.
    pub fn print_rows<T: Serialize>(&self, rows: &[T], table: impl FnOnce(&[T]) -> String) -> Result<()> {
        if self.json { print(&json(rows)?) } else { print(&table(rows)) }
    }

    /// Says what a change did: with `-j` each operation, else nothing but the notes, in the manner of `ip`.
    pub(super) fn print_report(&self, report: &Report) -> Result<()> {
        tell(&report.notes);
        if self.json { print(&json(&operations(report, true))?) } else { Ok(()) }
    }

    /// As [`Session::print_report`], for a change that is one operation.
    pub(super) fn print_done(&self, op: &str) -> Result<()> {
        if self.json { print(&json(&[Operation { op, done: true }])?) } else { Ok(()) }
    }

    /// Says what a change did or, unless `done`, would do.
    pub(super) fn print_plan(&self, report: &Report, done: bool) -> Result<()> {
        tell(&report.notes);
        self.print_rows(&operations(report, done), plan)
    }
}

/// Writes `text` to stdout at once.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => written.context("write to stdout"),
    }
}

/// An array of objects on one line.
pub fn json<T: Serialize>(rows: &[T]) -> Result<String> {
    let mut text = serde_json::to_string(rows).context("write JSON")?;
    text.push('\n');
    Ok(text)
}

fn operations(report: &Report, done: bool) -> Vec<Operation<'_>> {
    report.ops.iter().map(|op| Operation { op, done }).collect()
}

fn plan(operations: &[Operation<'_>]) -> String {
    if operations.is_empty() {
        return "nothing to do\n".to_owned();
    }
    operations.iter().map(|operation| format!("{}\n", operation.op)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_lines_or_an_array() {
        let report = Report { ops: vec!["add port web0".into()], notes: vec![] };
        assert_eq!(plan(&operations(&report, true)), "add port web0\n");
        assert_eq!(
            json(&operations(&report, false)).unwrap(),
            "[{\"op\":\"add port web0\",\"done\":false}]\n"
        );
        assert_eq!(plan(&[]), "nothing to do\n");
        assert_eq!(json::<Operation<'_>>(&[]).unwrap(), "[]\n");
    }
}
