//! Who is behind a tap? A host with its own stack: its NIC is a tap too, and all that one of the two is given to send the
//! other receives, with its virtio-net header, as a virtual machine monitor does it.

use std::{sync::Arc, thread};

use crate::{
    frame::{Mac, colons},
    lab::STATION_IF,
    tap::{CSUM, SEGMENTS, Tap},
    topo::Netns,
};

/// A virtual machine, as far as a switch can tell.
pub struct Guest {
    pub netns: Netns,
    /// The tap on the switch's side.
    pub tap: Arc<Tap>,
    nic: Arc<Tap>,
    pumps: Vec<thread::JoinHandle<()>>,
}

impl Guest {
    /// Behind the tap `ifname` in the switch's namespace, which is there already.
    pub fn new(switch: &Netns, ifname: &str, mac: Mac, address: &str) -> Self {
        let netns = Netns::new("guest");
        let (tap, nic) = (Arc::new(Tap::open(switch, ifname)), Arc::new(Tap::open(&netns, STATION_IF)));
        for end in [&tap, &nic] {
            end.offload(CSUM | SEGMENTS);
        }
        netns.ip_all([
            format!("link set {STATION_IF} address {}", colons(mac)),
            format!("address add {address}/24 dev {STATION_IF}"),
            format!("link set {STATION_IF} up"),
        ]);
        let pump = |from: &Arc<Tap>, to: &Arc<Tap>| {
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            thread::spawn(move || from.pump(&to))
        };
        let pumps = vec![pump(&tap, &nic), pump(&nic, &tap)];
        Self { netns, tap, nic, pumps }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.tap.stop();
        self.nic.stop();
        for pump in self.pumps.drain(..) {
            // Its panic has been printed, and this runs while a failed test unwinds.
            let _ended = pump.join();
        }
    }
}
