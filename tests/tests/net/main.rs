//! Level 3: real frames in network namespaces. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a broken lab must stop the test")]

mod ageing;
mod bad_input;
mod bad_input_addresses;
mod bad_input_config;
mod bad_input_crash;
mod bad_input_interfaces;
mod bad_input_privileges;
mod bad_input_usage;
mod bench;
mod datapaths;
mod frames;
mod frames_cases;
mod frames_counters;
mod frames_differences;
mod frames_host;
mod frames_ledger;
mod json;
mod json_change;
mod lifecycle;
mod lifecycle_log;
mod lifecycle_ports;
mod moves;
mod oracle_selfcheck;
mod traffic;
mod traffic_speed;
mod traffic_tap;
