//! The only code that knows of maps, packet pointers and helpers: the two seams of the path, and its last step.

pub(crate) mod act;
pub(crate) mod fdb;
pub(crate) mod maps;
pub(crate) mod packet;
