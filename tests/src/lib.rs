//! The specification of vswitch and the tools that prove the switch follows it.
