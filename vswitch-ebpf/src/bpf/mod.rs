//! The kernel's side: maps, packets, helpers. `memory` is asked first, `conclude` counts, `deliver` and `flood` send.
pub(crate) mod atomic;
pub(crate) mod conclude;
pub(crate) mod count;
pub(crate) mod deliver;
pub(crate) mod fdb;
pub(crate) mod flood;
pub(crate) mod maps;
pub(crate) mod memory;
pub(crate) mod packet;
pub(crate) mod tell;
