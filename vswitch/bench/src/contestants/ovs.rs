//! Why is Open vSwitch not compared here?

use std::{path::Path, process::Command};

/// What is missing.
pub(crate) fn absent() -> &'static str {
    let installed = Command::new("ovs-vsctl").arg("--version").output().is_ok();
    // Loaded, or a part of the kernel.
    let in_kernel = Path::new("/sys/module/openvswitch").exists();
    match (installed, in_kernel) {
        (false, _) => "not installed",
        // Without it a process switches, which needs a CPU that neither sender nor receiver has, and on two there is none.
        (true, false) => {
            "installed, but this kernel has no module openvswitch, and a switch that is a process cannot be \
                          compared with ones in the kernel on the same CPUs"
        }
        // Its daemon switches in its own namespace, where the bench would have to take its interfaces.
        (true, true) => "installed, but the bench cannot compare it yet",
    }
}
