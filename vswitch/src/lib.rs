//! The controller of vswitch: it loads the dataplane, keeps its maps as the user wants them, and shows what they hold.
//!
//! The configuration's path: `cli` or TOML -> `config` -> `plan` -> `apply` -> `dataplane`.

pub mod config;
pub mod dataplane;
pub mod net;
pub mod plan;
pub mod view;
