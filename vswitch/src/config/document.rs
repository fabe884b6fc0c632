//! What does a TOML document hold, at which lines? Typed access to its tables that collects every error.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::IntErrorKind,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    problem::{At, ConfigProblem, Part},
    validate::out_of_range,
    words::closest,
};

/// One table of the document.
pub(super) struct Section<'s> {
    /// Which it is.
    pub(super) part: Part,
    /// How messages call it.
    pub(super) object: String,
    table: &'s DeTable<'s>,
    line: usize,
}

/// The document's text, the lines of what has been read of it, and what was wrong.
pub(super) struct Document<'d> {
    /// The whole text.
    pub(super) text: &'d str,
    /// Line and message.
    pub(super) errors: Vec<(Option<usize>, String)>,
    /// Line and message of what is read, but has another name by now.
    pub(super) notes: Vec<(usize, String)>,
    /// Whether nothing was lost to a syntax error.
    pub(super) whole: bool,
    /// Each table's line, and how messages call it.
    heads: BTreeMap<Part, (usize, String)>,
    lines: BTreeMap<At, usize>,
    /// Where the lines end.
    breaks: Vec<usize>,
    refused: BTreeSet<(Part, &'static str)>,
}

impl<'d> Document<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        let (heads, lines, refused) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { text, errors: Vec::new(), notes: Vec::new(), whole: true, heads, lines, breaks, refused }
    }

    /// The line, from 1, of a byte of the text.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.breaks.partition_point(|&at| at < offset) + 1
    }

    pub(super) fn error(&mut self, line: usize, object: &str, what: &str) {
        self.errors.push((Some(line), format!("{object}: {what}")));
    }

    /// Enters a rule's problem with its line, unless its key has been refused already.
    pub(super) fn problem(&mut self, problem: &ConfigProblem) {
        let at = problem.at;
        if self.refused.contains(&(at.part, at.key)) {
            return;
        }
        let Some((head, object)) = self.heads.get(&at.part) else {
            self.errors.push((None, problem.to_string()));
            return;
        };
        let line = self.lines.get(&at).unwrap_or(head);
        self.errors.push((Some(*line), format!("{object}: {}", problem.what)));
    }

    /// Starts to read a table, and refuses the keys that are not among `known`. `name` is the key that names it.
    pub(super) fn section<'s>(
        &mut self,
        part: Part,
        value: &'s Spanned<DeValue<'s>>,
        name: &str,
        known: &[&'static str],
    ) -> Option<Section<'s>> {
        let line = self.line(value.span().start);
        let (kind, number) = match part {
            Part::Switch => ("switch", None),
            Part::Port(index) => ("port", Some(index + 1)),
            Part::Fdb(index) => ("fdb", Some(index + 1)),
        };
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("{} where a table should be; write {}", a(value.get_ref()), header(kind));
            self.error(line, kind, &what);
            return None;
        };
        let named = table.get(name).and_then(|value| value.get_ref().as_str());
        let object = match (named, number) {
            (Some(name), _) => super::validate::object(kind, name),
            (None, Some(number)) => format!("{kind} #{number}"),
            (None, None) => kind.to_owned(),
        };
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let line = self.line(key.span().start);
            self.error(line, &object, &unknown_key(key.get_ref(), known));
        }
        self.heads.insert(part, (line, object.clone()));
        Some(Section { part, object, table, line })
    }

    /// A text.
    pub(super) fn text(&mut self, section: &Section<'_>, key: &'static str, example: &str) -> Option<String> {
        let value = self.value(section, key)?;
        let text = value.get_ref().as_str().map(str::to_owned);
        text.or_else(|| self.wrong_type(section, key, value, &format!("{key} = {example:?}")))
    }

    /// true or false.
    pub(super) fn flag(&mut self, section: &Section<'_>, key: &'static str) -> Option<bool> {
        let value = self.value(section, key)?;
        let on = value.get_ref().as_bool();
        on.or_else(|| self.wrong_type(section, key, value, &format!("{key} = true or {key} = false")))
    }

    /// A whole number; its range is a rule's business, as far as it fits.
    pub(super) fn number<T: TryFrom<i128>>(
        &mut self,
        section: &Section<'_>,
        key: &'static str,
        example: u32,
    ) -> Option<T> {
        let value = self.value(section, key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            return self.wrong_type(section, key, value, &format!("{key} = {example}"));
        };
        let parsed = i128::from_str_radix(number.as_str(), number.radix());
        let what = match &parsed {
            // The toml crate reads 1_000zz as an integer, too.
            Err(error) if *error.kind() == IntErrorKind::InvalidDigit => {
                format!("{key} {:?} is not a number; write {key} = {example}", number.to_string())
            }
            Ok(_) | Err(_) => out_of_range(key, &number.to_string()),
        };
        let fits = parsed.ok().and_then(|number| T::try_from(number).ok());
        if fits.is_none() {
            let line = self.line(value.span().start);
            self.error(line, &section.object, &what);
        }
        fits
    }

    /// A text or a list of texts, each with its line.
    pub(super) fn texts(
        &mut self,
        section: &Section<'_>,
        key: &'static str,
        example: &str,
    ) -> Vec<(usize, String)> {
        let Some(value) = self.value(section, key) else { return Vec::new() };
        let values = value.get_ref().as_array().map_or_else(|| vec![value], |values| values.iter().collect());
        let mut texts = Vec::new();
        for value in values {
            match value.get_ref().as_str() {
                Some(text) => texts.push((self.line(value.span().start), text.to_owned())),
                None => {
                    let _: Option<()> = self.wrong_type(section, key, value, &format!("{key} = {example:?}"));
                }
            }
        }
        texts
    }

    /// Refuses the section for want of a key, or for a value of it that is refused already.
    pub(super) fn require<T>(
        &mut self,
        section: &Section<'_>,
        key: &'static str,
        found: Option<T>,
        remedy: &str,
    ) -> Option<T> {
        if found.is_none() {
            self.refused.insert((section.part, key));
            if self.whole && !section.has(key) {
                self.error(section.line, &section.object, &format!("{key} is missing; {remedy}"));
            }
        }
        found
    }

    /// Remembers the line of one value of a list.
    pub(super) fn item(&mut self, section: &Section<'_>, key: &'static str, item: usize, line: usize) {
        self.lines.insert(At { part: section.part, key, item }, line);
    }

    /// The line of a key's value, or of its table.
    pub(super) fn line_of(&self, section: &Section<'_>, key: &'static str) -> usize {
        let at = At { part: section.part, key, item: 0 };
        self.lines.get(&at).copied().unwrap_or(section.line)
    }

    fn value<'s>(&mut self, section: &Section<'s>, key: &'static str) -> Option<&'s Spanned<DeValue<'s>>> {
        let value = section.table.get(key)?;
        let line = self.line(value.span().start);
        self.item(section, key, 0, line);
        Some(value)
    }

    fn wrong_type<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        example: &str,
    ) -> Option<T> {
        let line = self.line(value.span().start);
        self.error(line, &section.object, &format!("{key} is {}; write {example}", a(value.get_ref())));
        None
    }
}

impl Section<'_> {
    /// Whether the key is there, with whatever value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }
}

/// How a table's header is written.
pub(super) fn header(kind: &str) -> String {
    if kind == "switch" { "[switch]".to_owned() } else { format!("[[{kind}]]") }
}

/// Cause and remedy of a key that means nothing.
fn unknown_key(key: &str, known: &[&'static str]) -> String {
    match closest(key, known) {
        Some(word) => format!(r#"unknown key {key:?}; did you mean "{word}"?"#),
        None => format!("unknown key {key:?}; known are {}", known.join(", ")),
    }
}

/// A value's type with its article.
pub(super) fn a(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    format!("{} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" })
}
