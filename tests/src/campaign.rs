//! How much is tried? Enough for every change in CI, and all of it on request: `cargo xtask test --full`.

use std::env;

/// The environment's word for the full form.
pub const VARIABLE: &str = "VSWITCH_FULL";

/// The short form's amount or the full form's.
pub fn amount<T>(short: T, full: T) -> T {
    if env::var_os(VARIABLE).is_some_and(|value| value == "1") { full } else { short }
}

/// As often as the environment says (`VSWITCH_ROUNDS`), or as usual.
pub fn rounds(usual: u64) -> u64 {
    number("VSWITCH_ROUNDS", usual)
}

/// A number of the environment's.
///
/// # Panics
/// If it is none.
pub fn number(variable: &str, or: u64) -> u64 {
    env::var(variable).map_or(or, |text| text.parse().expect("a number"))
}
