//! The controller of vswitch: it loads the dataplane, keeps its maps as the user wants them, and shows what they hold.
//!
//! The configuration's path: `cli` or TOML -> `config` -> `change` -> `dataplane`.

pub mod cli;
pub mod config;

pub mod change;
pub mod dataplane;
pub mod net;

pub mod control;
mod controller;
pub mod failure;
mod inspect;
mod lock;
mod packet_log;
pub mod privileges;
mod service;
#[cfg(test)]
mod skip;
pub mod view;
