//! Which texts may stand for a value on the command line, and what do they mean?

use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use vswitch_ebpf::frame::MacAddr;

use crate::config::{
    mac::{MacError, parse_mac, parse_station},
    names::check_switch_name,
    validate::MAX_VLAN,
    words::Word,
};

/// The value of a flag that can be set and reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

impl Switch {
    /// Puts the value, if there is one, into `flag`.
    pub(super) fn set(value: Option<Self>, flag: &mut bool) {
        if let Some(value) = value {
            *flag = value == Self::On;
        }
    }
}

/// The word for a flag's value.
pub(super) fn on_off(flag: bool) -> &'static str {
    if flag { "on" } else { "off" }
}

/// One of the words of the configuration file.
pub(super) fn word<W: Word + Send + Sync>() -> impl TypedValueParser<Value = W> {
    let words = W::ALL.iter().map(|(_, word)| *word);
    PossibleValuesParser::new(words).try_map(|text| W::from_word(&text))
}

/// Any address.
pub(super) fn mac(text: &str) -> Result<MacAddr, MacError> {
    parse_mac(text)
}

/// The address of a station.
pub(super) fn station(text: &str) -> Result<MacAddr, MacError> {
    parse_station(text)
}

/// A VLAN identifier; 0: untagged.
pub(super) fn vlan() -> impl TypedValueParser<Value = u16> {
    clap::value_parser!(u16).range(..=i64::from(MAX_VLAN))
}

/// A switch's name.
pub fn switch_name(text: &str) -> Result<String, String> {
    check_switch_name(text)?;
    Ok(text.to_owned())
}
