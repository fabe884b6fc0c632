//! What must hold whatever comes in? One function for each fuzz target, which panics where it does not.
//!
//! `tests/fuzz` calls them with what libFuzzer thinks of, `tests/replay.rs` with what it has found so far.

mod config;
mod frames;

use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt as _, str};

use clap::Parser as _;
use proptest::{
    prelude::Rng as _,
    strategy::{BoxedStrategy, Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use vswitch::{
    cli::Usage,
    config::mac::{MacError, parse_mac, parse_station},
};
use vswitch_command::Cli;

use crate::{
    cases::{Case, case},
    lock_step::in_lock_step,
};

pub use config::config;
pub use frames::frames;

/// A target: its name, which is that of its directories too, and what holds for any input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] =
    [("frames", frames), ("decide", decide), ("config", config), ("mac", mac), ("cli", cli)];

/// Any switch and any frames: the decision is the model's. The input takes the place of the dice of `cases.rs`.
pub fn decide(data: &[u8]) {
    thread_local! {
        static CASES: BoxedStrategy<Case> = case().boxed();
        static REST: Vec<u8> = rest();
    }
    let dice = REST.with(|rest| TestRng::from_seed(RngAlgorithm::PassThrough, &[data, rest].concat()));
    let mut runner = TestRunner::new_with_rng(Config::default(), dice);
    let case = CASES.with(|cases| cases.new_tree(&mut runner)).expect("no case is rejected").current();
    in_lock_step(&case, |_| ()).unwrap_or_else(|difference| panic!("{difference}"));
}

/// Dice for whatever an input leaves open, always the same, and more than any case takes. proptest would throw zeroes for
/// ever, which rejection sampling does not survive.
fn rest() -> Vec<u8> {
    let mut dice = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut rest = vec![0; 1 << 14];
    dice.fill_bytes(&mut rest);
    rest
}

/// An address is six pairs of digits, and is read back as it is printed.
pub fn mac(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let separators: BTreeSet<u8> = text.bytes().skip(2).step_by(3).collect();
    let digits = text.bytes().enumerate().filter(|(at, _)| at % 3 != 2);
    let well_formed = text.len() == 17
        && [[b':'], [b'-']].iter().any(|one| separators.iter().eq(one))
        && digits.into_iter().all(|(_, byte)| byte.is_ascii_hexdigit());
    match parse_mac(text) {
        Ok(mac) => {
            assert!(well_formed, "{text:?} is {mac}");
            assert_eq!(parse_mac(&mac.to_string()), Ok(mac));
            assert_eq!(mac.to_string(), text.to_lowercase().replace('-', ":"));
            assert_eq!(parse_station(text).is_ok(), mac.is_station());
        }
        Err(error) => {
            assert!(matches!(error, MacError::Syntax { .. }) && !well_formed, "{text:?}: {error}");
            assert_eq!(parse_station(text), Err(error.clone()));
            assert_one_line(&error.to_string());
        }
    }
}

/// A command line, one word a line, is understood or refused in one line.
pub fn cli(data: &[u8]) {
    let words = data.split(|&byte| byte == b'\n').map(OsStr::from_bytes);
    match Cli::try_parse_from([OsStr::new("vswitch")].into_iter().chain(words)) {
        Ok(cli) => drop(format!("{cli:?}")),
        Err(error) if error.use_stderr() => assert_one_line(&Usage::from_clap(&error).to_string()),
        Err(help) => assert!(!help.to_string().is_empty()),
    }
}

/// A message to the user.
fn assert_one_line(message: &str) {
    assert!(!message.is_empty() && !message.contains(char::is_control), "{message:?}");
}
