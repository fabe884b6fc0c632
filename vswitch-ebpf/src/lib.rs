//! The vswitch dataplane: what happens to one frame.
//!
//! The modules below are the packet's path, in order. Everything here is pure: a step sees a frame through
//! [`frame::Frame`] and the switch through [`tables::Tables`], and ends in a [`verdict::Verdict`]. The same source is
//! compiled into the XDP and tc programs (`main.rs`, `bpf/`) and into host tests.
#![cfg_attr(target_arch = "bpf", no_std)]
#![deny(unsafe_code, missing_docs, clippy::indexing_slicing, clippy::panic, clippy::arithmetic_side_effects)]

pub mod abi;
pub mod fdb;
pub mod frame;
pub mod packet;
pub mod tables;

pub mod memory;

pub mod ingress;

pub mod learn;

pub mod lookup;

pub mod policy;

pub mod egress;

pub mod forward;
pub mod verdict;

pub mod stream;
