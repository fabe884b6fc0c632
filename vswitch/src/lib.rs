//! The controller of vswitch: it loads the dataplane, keeps its maps as the user wants them, and shows what they hold.
//!
//! The configuration's path: `cli` or TOML -> `config` -> `plan` -> `apply` -> `dataplane`.

pub mod cli;
pub mod config;
pub mod plan;

mod addresses;
mod apply;
mod attach;
pub mod dataplane;
mod interface;
pub mod net;

pub mod control;
mod controller;
pub mod failure;
mod faults;
mod inspect;
mod lock;
mod packet_log;
pub mod privileges;
mod recover;
mod service;
#[cfg(test)]
mod skip;
mod uplink;
pub mod view;
