//! What shall the switch be? The intent: its configuration file, pinned for as long as the switch lives, and the only place
//! where its configuration is.
//!
//! There are two copies. `maps/INTENT` is what the switch was made to be by the last command that came to its end. `journal`
//! is there while a command makes it something else, and says what. It takes the place of the other by a rename: at any
//! moment one of them is whole, and says what was wanted last. Each is a map of one element that is written before it is
//! pinned.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    config::{SwitchConfig, parse, print::print},
    dataplane::{
        pins::{Pins, gone},
        raw::RawMap,
    },
};

/// The version of the document, in its first line.
const VERSION: u32 = 1;

/// The name of the pin beside the maps.
pub(crate) const NAME: &str = "INTENT";

/// What the switch is.
pub(crate) fn read(pins: &Pins) -> Result<SwitchConfig> {
    match document(&pins.map(NAME))? {
        Some(config) => Ok(config),
        None => bail!("its map {NAME} is missing"),
    }
}

/// The first intent of a switch that is being made.
pub(crate) fn begin(pins: &Pins, config: &SwitchConfig) -> Result<()> {
    write(pins, config)?;
    reached(pins)
}

/// Notes what the switch shall be, before anything is changed.
pub(crate) fn want(pins: &Pins, config: &SwitchConfig) -> Result<()> {
    // What a command has left that was interrupted is known by now.
    give_up(pins)?;
    write(pins, config)
}

/// What an interrupted command wanted the switch to be.
pub(crate) fn wanted(pins: &Pins) -> Result<Option<SwitchConfig>> {
    document(&pins.journal())
}

/// The switch is what it was wanted to be.
pub(crate) fn reached(pins: &Pins) -> Result<()> {
    let (journal, intent) = (pins.journal(), pins.map(NAME));
    pins.protect(&journal, NAME)?;
    fs::rename(&journal, &intent)
        .with_context(|| format!("rename {} to {}", journal.display(), intent.display()))
}

/// The switch stays what it is.
pub(crate) fn give_up(pins: &Pins) -> Result<()> {
    let path = pins.journal();
    gone(fs::remove_file(&path), &path)
}

fn write(pins: &Pins, config: &SwitchConfig) -> Result<()> {
    let text = format!("# vswitch intent {VERSION}\n{}", print(&ordered(config)));
    let map = RawMap::array("intent", text.len(), 1)?;
    let written = map.set(&[0; 4], text.as_bytes()).and_then(|()| map.pin(&pins.journal()));
    written.with_context(|| format!("write {}", pins.journal().display()))
}

fn document(path: &Path) -> Result<Option<SwitchConfig>> {
    if !path.try_exists().with_context(|| format!("look for {}", path.display()))? {
        return Ok(None);
    }
    let text =
        RawMap::open_read_only(path)?.get(&[0; 4]).with_context(|| format!("read {}", path.display()))?;
    let text = String::from_utf8(text.unwrap_or_default()).context("read the intent")?;
    let version = text.lines().next().and_then(|line| line.strip_prefix("# vswitch intent "));
    match version.and_then(|version| version.parse::<u32>().ok()) {
        Some(VERSION) => Ok(Some(parse(&path.display().to_string(), &text, None)?)),
        Some(newer) => {
            bail!("its intent is a newer build's (version {newer}, this one has {VERSION}): use that one")
        }
        None => bail!("{}: is no intent", path.display()),
    }
}

/// What has no order to the user, in one: of a port's addresses the first alone is another than the rest.
fn ordered(config: &SwitchConfig) -> SwitchConfig {
    let mut config = config.clone();
    for port in &mut config.ports {
        if let Some(rest) = port.mac.get_mut(1..) {
            rest.sort_unstable();
        }
        port.source.sort_unstable();
    }
    config.fdb.sort_by_key(|entry| (entry.mac, entry.vlan));
    config
}
