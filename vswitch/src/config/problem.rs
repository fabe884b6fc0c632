//! What is wrong with a configuration, and where?

use std::{error::Error, fmt};

/// A part of the configuration, in the words of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `[switch]`.
    Switch,
    /// The n-th `[[port]]`, from 0.
    Port(usize),
    /// The n-th `[[fdb]]`, from 0.
    Fdb(usize),
}

/// Where a problem is: a key of a part, and which of its values, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The table.
    pub part: Part,
    /// The key in it.
    pub key: &'static str,
    /// Which value of a list.
    pub item: usize,
}

/// One thing that is wrong with a configuration. Displays as `object: cause; remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it is.
    pub at: At,
    /// The switch, port or FDB entry.
    pub object: String,
    /// Cause and remedy.
    pub what: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// Everything that is wrong with a configuration. Displays as a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lines(f, &self.0)
    }
}

impl Error for ConfigProblems {}

/// Writes a line for each, without a line break at the end.
pub(super) fn lines(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if index == 0 { "" } else { "\n" })?;
    }
    Ok(())
}
