//! How does a switch change? From what shall be, the intent, by what follows from it, the image, to what the kernel has.
//!
//! `intent` is the configuration, pinned. `plan` says what a command will do, and refuses what a live switch cannot.
//! `compile` makes the tables of intent and interfaces, `diff` the writes that lead there, and `reconcile` does it, for
//! every command, for recovery and for the controller, by `work`, with the steps of `lifecycle`, `interface` and `nics`; many ports in `stages`.

mod compile;
mod diff;
pub(crate) mod faults;
pub(crate) mod intent;
pub(crate) mod interface;
pub(crate) mod lifecycle;
pub(crate) mod nics;
pub mod plan;
pub(crate) mod reconcile;
pub(crate) mod recover;
mod salvage;
mod stages;
mod switch;
mod work;

pub(crate) use compile::{host_owns, port_owns};
pub(crate) use intent::change_noted;
pub(crate) use salvage::salvage;
pub(crate) use switch::{create, destroy, make};
