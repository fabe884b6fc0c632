//! The specification of vswitch and the tools that prove the switch follows it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a broken lab must stop the test")]

pub mod fabric;
pub mod frame;
pub mod lab;
pub mod observe;
pub mod oracle;
pub mod require;
pub mod table;
pub mod topo;
pub mod wire;
