//! What is the command that changes a switch about to make of it? Written before the first change and removed after the
//! last, so that whoever finds it knows what an interrupted command wanted.
//!
//! It is the configuration file of the switch as it shall be, in a map of one element, pinned: there whole or not at all.

use std::fs;

use anyhow::{Context as _, Result};

use super::{
    pins::{Pins, gone},
    raw::RawMap,
};
use crate::config::{SwitchConfig, parse, print::print};

/// Notes what the switch shall be.
pub(crate) fn write(pins: &Pins, desired: &SwitchConfig) -> Result<()> {
    let text = print(desired);
    let map = RawMap::array("journal", text.len(), 1)?;
    let written = map.set(&[0; 4], text.as_bytes()).and_then(|()| map.pin(&pins.journal()));
    written.with_context(|| format!("write {}", pins.journal().display()))
}

/// What an interrupted command wanted the switch to be.
pub(crate) fn read(pins: &Pins) -> Result<Option<SwitchConfig>> {
    let path = pins.journal();
    if !path.exists() {
        return Ok(None);
    }
    let text = RawMap::open(&path)?.get(&[0; 4]).with_context(|| format!("read {}", path.display()))?;
    let text = String::from_utf8(text.unwrap_or_default()).context("read the journal")?;
    Ok(Some(parse(&path.display().to_string(), &text, None)?))
}

/// The switch is as it shall be, or as it was.
pub(crate) fn remove(pins: &Pins) -> Result<()> {
    let path = pins.journal();
    gone(fs::remove_file(&path), &path)
}
