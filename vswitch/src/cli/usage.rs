//! What is wrong with what the user asks for, in one line?

use std::{error::Error, fmt};

use crate::config::{ConfigErrors, ConfigProblems};

/// What the user asks for makes no sense: a line for each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage(String);

impl Usage {
    /// What is wrong, in one line.
    pub fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }

    /// In the way of every other error: clap's paragraphs as one line, without the hint at `--help` that all have.
    pub fn from_clap(error: &clap::Error) -> Self {
        let text = error.to_string();
        let paragraphs = text.split("\n\n").filter(|part| !part.starts_with("For more information"));
        let lines = paragraphs.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        // It quotes the user's words as they are, and a terminal obeys control characters.
        let mut shown = String::new();
        for c in line.replace("; Usage: ", "; usage: ").chars() {
            if c.is_control() {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        Self(shown)
    }

    /// Whether `error` comes down to what the user asked for or configured.
    pub fn is_cause_of(error: &anyhow::Error) -> bool {
        error
            .chain()
            .any(|cause| cause.is::<Self>() || cause.is::<ConfigErrors>() || cause.is::<ConfigProblems>())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}
