//! Can Open vSwitch be compared here, and if not, why?

use std::process::Command;

/// Why Open vSwitch is not compared.
pub(in crate::bench) fn absent() -> &'static str {
    match Command::new("ovs-vsctl").args(["--timeout=2", "show"]).output() {
        Err(_) => "not installed",
        Ok(output) if !output.status.success() => "installed, but not running",
        // Its daemon switches in its own namespace, where the bench would have to take its interfaces.
        Ok(_) => "runs here, but the bench cannot compare it yet",
    }
}
