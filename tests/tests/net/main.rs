//! Level 3: real frames in network namespaces. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a broken lab must stop the test")]

mod oracle_selfcheck;
