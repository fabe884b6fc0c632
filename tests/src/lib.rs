//! The specification of vswitch and the tools that prove the switch follows it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a broken lab must stop the test")]

pub mod campaign;
pub mod cases;
pub mod change;
pub mod controller;
pub mod dice;
pub mod fabric;
pub mod fdb;
pub mod frame;
pub mod fuzz;
pub mod guest;
pub mod host_tables;
pub mod hosts;
pub mod interrupt;
pub mod lab;
pub mod lock_step;
pub mod model;
pub mod observe;
pub mod oracle;
pub mod patience;
pub mod require;
pub mod sequence;
pub mod stream;
pub mod systemd;
pub mod table;
pub mod tap;
pub mod topo;
pub mod vswitch;
pub mod wire;
