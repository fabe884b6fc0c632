//! What shall the switch be? The intent: its configuration, pinned for as long as the switch lives, and the only place where
//! its configuration is. Nobody writes it by hand: it is JSON, which is read many times faster than a file.
//!
//! There are two copies. `maps/INTENT` is what the switch was made to be by the last command that came to its end. `journal`
//! is there while a command makes it something else, and says what. It takes the place of the other by a rename: at any
//! moment one of them is whole, and says what was wanted last. Each is a map of one element that is written before it is
//! pinned.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{
    config::SwitchConfig,
    dataplane::{
        pins::{Pins, gone},
        raw::RawMap,
    },
};

/// The version of the document.
const VERSION: u32 = 1;

/// What is pinned.
#[derive(Serialize, Deserialize)]
struct Document<S> {
    version: u32,
    switch: S,
}

/// What else is noted while a change is made in stages (`stages.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Where it leads.
    Goal,
    /// Where it came from; nowhere, if the switch was made for it.
    Origin,
}

impl Note {
    const ALL: [Self; 2] = [Self::Goal, Self::Origin];

    fn path(self, pins: &Pins) -> PathBuf {
        pins.document(match self {
            Self::Goal => "goal",
            Self::Origin => "origin",
        })
    }
}

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

/// Notes one of these down, in the place of what was noted.
pub(super) fn note(pins: &Pins, note: Note, config: &SwitchConfig) -> Result<()> {
    let (path, fresh) = (note.path(pins), pins.document("new"));
    gone(fs::remove_file(&fresh), &fresh)?;
    write_to(&fresh, config)?;
    fs::rename(&fresh, &path).with_context(|| format!("rename {} to {}", fresh.display(), path.display()))
}

/// What is noted, if a change in stages is not at its end.
pub(super) fn noted(pins: &Pins, note: Note) -> Result<Option<SwitchConfig>> {
    document(&note.path(pins))
}

/// Such a change has come to its end.
pub(super) fn forget(pins: &Pins) -> Result<()> {
    // The goal first: without it there is none.
    Note::ALL.map(|note| note.path(pins)).iter().try_for_each(|path| gone(fs::remove_file(path), path))
}

/// Makes a change of the switch one of what is noted too, as far as it can be.
pub(crate) fn change_noted(pins: &Pins, change: impl Fn(&mut SwitchConfig) -> Result<()>) -> Result<()> {
    for kind in Note::ALL {
        let Some(mut config) = noted(pins, kind)? else { continue };
        if change(&mut config).is_ok() && config.check().is_ok() {
            note(pins, kind, &config)?;
        }
    }
    Ok(())
}

fn write(pins: &Pins, config: &SwitchConfig) -> Result<()> {
    write_to(&pins.journal(), config)
}

fn write_to(path: &Path, config: &SwitchConfig) -> Result<()> {
    let text = serde_json::to_string(&Document { version: VERSION, switch: ordered(config) })?;
    let map = RawMap::array("intent", text.len(), 1)?;
    let written = map.set(&[0; 4], text.as_bytes()).and_then(|()| map.pin(path));
    written.with_context(|| format!("write {}", path.display()))
}

fn document(path: &Path) -> Result<Option<SwitchConfig>> {
    if !path.try_exists().with_context(|| format!("look for {}", path.display()))? {
        return Ok(None);
    }
    let text =
        RawMap::open_read_only(path)?.get(&[0; 4]).with_context(|| format!("read {}", path.display()))?;
    let text = text.unwrap_or_default();
    let read = serde_json::from_slice::<Document<SwitchConfig>>(&text);
    let version = match &read {
        Ok(document) => Some(document.version),
        Err(_) => serde_json::from_slice::<Document<IgnoredAny>>(&text).ok().map(|document| document.version),
    };
    match (version, read) {
        (Some(newer), _) if newer != VERSION => {
            bail!("its intent is a newer build's (version {newer}, this one has {VERSION}): use that one")
        }
        (_, Ok(document)) => Ok(Some(document.switch)),
        (_, Err(err)) => Err(err).with_context(|| format!("{}: is no intent", path.display())),
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
