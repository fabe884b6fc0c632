//! Between two interfaces.
