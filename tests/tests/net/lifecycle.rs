//! What outlives whom: the dataplane its controller, nothing the switch?
