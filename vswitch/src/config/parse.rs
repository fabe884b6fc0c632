//! Which switch does a file describe, and what is wrong with it, all at once and line by line?

use std::{collections::BTreeSet, error::Error, fmt};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use vswitch_ebpf::{abi::DEFAULT_FDB_MAX, frame::MacAddr};

use super::{
    DEFAULT_AGEING, DEFAULT_PEER, DEFAULT_SWITCH, FarEnd, PORT_FLAGS, PortConfig, StaticEntry, SwitchConfig,
    document::{Document, Section, a, header},
    mac::parse_mac,
    problem::{Part, lines},
    words::{Word, closest},
};

const TABLES: [&str; 3] = ["switch", "port", "fdb"];
const SWITCH_KEYS: [&str; 5] = ["name", "ageing", "fdb-max", "host-access", "macvlan-compat"];
const PORT_KEYS: [&str; 9] = ["name", "role", "netns", "peer", "tap", "mode", "mac", "source", "datapath"];
const FDB_KEYS: [&str; 3] = ["mac", "port", "vlan"];

/// What the toml crate says of a key that is there twice: the one error that loses nothing else.
const DUPLICATE: &str = "duplicate key";
const EXAMPLE_MAC: &str = "02:00:00:00:00:01";

/// One thing that is wrong with a file. Displays as `FILE:LINE: object: cause; remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// The line, from 1, if it is something in the file and not something left out.
    pub line: Option<usize>,
    /// Object, cause and remedy.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

impl Error for ConfigError {}

/// Everything that is wrong with a file, in the order of its lines. Displays as a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lines(f, &self.0)
    }
}

impl Error for ConfigErrors {}

/// Reads the `text` of `file`. `switch` is the name that the user gave besides the file, if any: what the file leaves
/// open, and what it must not contradict.
pub fn parse(file: &str, text: &str, switch: Option<&str>) -> Result<SwitchConfig, ConfigErrors> {
    parse_noting(file, text, switch).map(|(config, _)| config)
}

/// As [`parse()`], and what is read but has another name by now, a line each.
pub fn parse_noting(
    file: &str,
    text: &str,
    switch: Option<&str>,
) -> Result<(SwitchConfig, Vec<String>), ConfigErrors> {
    let mut document = Document::new(text);
    let config = read(&mut document, switch);
    if document.whole {
        for problem in config.validate() {
            document.problem(&problem);
        }
    }
    let mut errors = document.errors;
    if errors.is_empty() {
        let note = |(line, what)| format!("{file}:{line}: {what}");
        return Ok((config, document.notes.into_iter().map(note).collect()));
    }
    errors.sort_by_key(|(line, _)| line.unwrap_or(0));
    let error = |(line, what)| ConfigError { file: file.to_owned(), line, what };
    Err(ConfigErrors(errors.into_iter().map(error).collect()))
}

/// Reads what is there, rules aside.
pub(super) fn read(document: &mut Document<'_>, switch: Option<&str>) -> SwitchConfig {
    let (table, mut syntax) = DeTable::parse_recoverable(document.text);
    document.whole = syntax.iter().all(|error| error.message() == DUPLICATE);
    let config = read_tables(document, table.get_ref(), switch);
    syntax.sort_by_key(start);
    let broken: BTreeSet<usize> = syntax.iter().map(|error| document.line(start(error))).collect();
    // What the recovery made of a broken line is not worth a second message.
    document.errors.retain(|(line, _)| line.is_none_or(|line| !broken.contains(&line)));
    let mut last = 0;
    for error in syntax {
        let line = document.line(start(&error));
        if line != last {
            document.error(line, "TOML", &syntax_error(document.text, &error));
        }
        last = line;
    }
    config
}

fn start(error: &toml::de::Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    match (error.message(), error.span().and_then(|span| text.get(span))) {
        (DUPLICATE, Some(key)) => format!("duplicate key {key:?}; remove one of the two"),
        (other, _) => other.replacen(", expected", "; expected", 1).replace('\n', " "),
    }
}

fn read_tables(document: &mut Document<'_>, table: &DeTable<'_>, switch: Option<&str>) -> SwitchConfig {
    let mut config = SwitchConfig::new(switch.unwrap_or(DEFAULT_SWITCH));
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "switch" => read_switch(document, value, switch, &mut config),
            "port" => {
                for (index, value) in elements(document, "port", value).into_iter().enumerate() {
                    config.ports.extend(read_port(document, index, value));
                }
            }
            "fdb" => {
                for (index, value) in elements(document, "fdb", value).into_iter().enumerate() {
                    config.fdb.extend(read_entry(document, index, value));
                }
            }
            // After a broken header, the keys below it are not where the user put them.
            other if document.whole => {
                let line = document.line(key.span().start);
                let what = match closest(other, &TABLES) {
                    Some(kind) => format!("unknown table {other:?}; did you mean {}?", header(kind)),
                    None if SWITCH_KEYS.contains(&other) => {
                        format!("{other} outside a table; put it under [switch]")
                    }
                    None => format!("unknown table {other:?}; known are [switch], [[port]], [[fdb]]"),
                };
                document.error(line, "file", &what);
            }
            _ => {}
        }
    }
    config
}

/// The tables of an array; a single one is read too, after the complaint.
fn elements<'s>(
    document: &mut Document<'_>,
    kind: &str,
    value: &'s Spanned<DeValue<'s>>,
) -> Vec<&'s Spanned<DeValue<'s>>> {
    if let DeValue::Array(values) = value.get_ref() {
        return values.iter().collect();
    }
    let line = document.line(value.span().start);
    document.error(
        line,
        kind,
        &format!("{} where an array of tables should be; write {}", a(value.get_ref()), header(kind)),
    );
    if value.get_ref().is_table() { vec![value] } else { Vec::new() }
}

fn read_switch<'s>(
    document: &mut Document<'_>,
    value: &'s Spanned<DeValue<'s>>,
    given: Option<&str>,
    config: &mut SwitchConfig,
) {
    let Some(section) = document.section(Part::Switch, value, "name", &SWITCH_KEYS) else { return };
    if let Some(name) = document.text(&section, "name", DEFAULT_SWITCH) {
        if let Some(given) = given.filter(|given| *given != name) {
            let line = document.line_of(&section, "name");
            let what = format!("the command is for switch {given}; leave the name out on one side");
            document.error(line, &section.object, &what);
        }
        config.name = name;
    }
    set(&mut config.ageing, document.number(&section, "ageing", DEFAULT_AGEING));
    set(&mut config.fdb_max, document.number(&section, "fdb-max", DEFAULT_FDB_MAX));
    set(&mut config.host_access, document.flag(&section, "host-access"));
    set(&mut config.macvlan_compat, document.flag(&section, "macvlan-compat"));
}

fn read_port<'s>(
    document: &mut Document<'_>,
    index: usize,
    value: &'s Spanned<DeValue<'s>>,
) -> Option<PortConfig> {
    let known: Vec<&str> = PORT_KEYS.into_iter().chain(PORT_FLAGS.iter().map(|flag| flag.key)).collect();
    let section = document.section(Part::Port(index), value, "name", &known)?;
    let name = document.text(&section, "name", "web0");
    let name = document.require(&section, "name", name, "add the interface's name");
    let mut port = PortConfig::new(&name.unwrap_or_default());
    set(&mut port.role, read_word(document, &section, "role"));
    set(&mut port.mode, read_word(document, &section, "mode"));
    set(&mut port.datapath, read_word(document, &section, "datapath"));
    port.mac = read_addresses(document, &section, "mac");
    port.source = read_addresses(document, &section, "source");
    let netns = document.text(&section, "netns", "web");
    let peer = document.text(&section, "peer", DEFAULT_PEER);
    let tap = document.flag(&section, "tap").unwrap_or_default();
    // A netns of a wrong type has had its message.
    if netns.is_some() || !section.has("netns") {
        match FarEnd::new(netns, peer, tap) {
            Ok(far_end) => port.far_end = far_end,
            Err((key, what)) => document.error(document.line_of(&section, key), &section.object, what),
        }
    }
    port.set_known_defaults();
    for flag in PORT_FLAGS {
        if let Some(on) = document.flag(&section, flag.key) {
            port.flags.set(flag.bit, on);
        }
    }
    Some(port)
}

fn read_addresses(document: &mut Document<'_>, section: &Section<'_>, key: &'static str) -> Vec<MacAddr> {
    let mut addresses = Vec::new();
    for (line, text) in document.texts(section, key, EXAMPLE_MAC) {
        match parse_mac(&text) {
            Ok(mac) => {
                document.item(section, key, addresses.len(), line);
                addresses.push(mac);
            }
            Err(error) => document.error(line, &section.object, &format!("{key} {error}")),
        }
    }
    addresses
}

fn read_entry<'s>(
    document: &mut Document<'_>,
    index: usize,
    value: &'s Spanned<DeValue<'s>>,
) -> Option<StaticEntry> {
    let section = document.section(Part::Fdb(index), value, "mac", &FDB_KEYS)?;
    let mac = document.text(&section, "mac", EXAMPLE_MAC).and_then(|text| match parse_mac(&text) {
        Ok(mac) => Some(mac),
        Err(error) => {
            document.error(document.line_of(&section, "mac"), &section.object, &format!("mac {error}"));
            None
        }
    });
    let mac = document.require(&section, "mac", mac, "add the station's address");
    let port = document.text(&section, "port", "web0");
    let port =
        document.require(&section, "port", port, "add the name of the port behind which the address is");
    let vlan = document.number(&section, "vlan", 0);
    Some(StaticEntry {
        mac: mac.unwrap_or_default(),
        vlan: vlan.unwrap_or_default(),
        ifname: port.unwrap_or_default(),
    })
}

fn read_word<W: Word>(document: &mut Document<'_>, section: &Section<'_>, key: &'static str) -> Option<W> {
    let text = document.text(section, key, W::default().word())?;
    if let Some((_, word)) = W::FORMER.iter().find(|(former, _)| *former == text) {
        let line = document.line_of(section, key);
        let note = format!("{key} {text:?} is called {:?} now", word.word());
        document.notes.push((line, note));
        return Some(*word);
    }
    match W::from_word(&text) {
        Ok(word) => Some(word),
        Err(error) => {
            document.error(document.line_of(section, key), &section.object, &error.to_string());
            None
        }
    }
}

fn set<T>(place: &mut T, found: Option<T>) {
    if let Some(value) = found {
        *place = value;
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
