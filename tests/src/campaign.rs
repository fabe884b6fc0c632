//! How much is tried? Enough for every change in CI, and all of it on request: `cargo xtask test --full`.

use std::env;

/// The environment's word for the full form.
pub const VARIABLE: &str = "VSWITCH_FULL";

/// The short form's amount or the full form's.
pub fn amount<T>(short: T, full: T) -> T {
    if is_full() { full } else { short }
}

/// Whether this is the full form.
pub fn is_full() -> bool {
    env::var_os(VARIABLE).is_some_and(|value| value == "1")
}

/// How often something is done: as the environment says (`VSWITCH_ROUNDS`), or the form.
pub fn rounds(short: u64, full: u64) -> u64 {
    number("VSWITCH_ROUNDS", short, full)
}

/// A number of the environment's, or the form's.
///
/// # Panics
/// If it is none.
pub fn number(variable: &str, short: u64, full: u64) -> u64 {
    env::var(variable).map_or_else(|_| amount(short, full), |text| text.parse().expect("a number"))
}
