//! The only code that knows of maps, packet pointers and helpers: the two seams of the path, and its last step.

pub(crate) mod act;
mod count;
pub(crate) mod deliver;
mod fdb;
mod flood;
pub(crate) mod maps;
pub(crate) mod packet;
mod tell;
