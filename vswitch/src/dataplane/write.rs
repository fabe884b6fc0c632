//! How does one change of the tables reach the kernel?

use anyhow::{Result, bail};
use vswitch_ebpf::abi::{FdbEntry, FdbKey, HOST_SLOT, Port, SourceKey, listed, port_flags};

use super::{
    Dataplane,
    fdb::Full,
    image::{Bound, Listeners, Write},
};

impl Dataplane {
    /// Makes one change. The caller has the switch's lock.
    pub(crate) fn write(&mut self, write: &Write) -> Result<()> {
        let maps = &mut self.maps;
        match write {
            Write::Settings(settings) => maps.set_settings(*settings),
            Write::Port(slot, port) => {
                // Frames and the controller change it.
                let before = maps.port(*slot)?;
                let down = if before.ifindex == port.ifindex { before.flags & port_flags::DOWN } else { 0 };
                maps.set_port(*slot, Port { flags: port.flags | down, ..*port })
            }
            Write::Enter(ifindex, slot) => maps.set_slot(*ifindex, *slot),
            Write::Leave(ifindex) => maps.clear_slot(*ifindex),
            Write::Bind(key, Bound { slot, flags }) => {
                self.set_entry(*key, FdbEntry::new(*slot, *flags, self.now()))
            }
            Write::Teach(key, slot) => self.set_entry(*key, FdbEntry::new(*slot, 0, self.now())),
            Write::Forget(keys) => maps.fdb.del(keys.iter().copied()).map(drop),
            Write::Sweep => self.sweep(),
            Write::List(mac, slot) => maps.set_source(SourceKey { mac: *mac, slot: *slot }, listed::BY_PORT),
            Write::Unlist(mac, slot) => maps.clear_source(SourceKey { mac: *mac, slot: *slot }),
            Write::Listeners(mac, Listeners { slots, nodst }) => {
                let key = SourceKey { mac: *mac, slot: HOST_SLOT };
                if slots.is_empty() {
                    return maps.clear_source(key);
                }
                let nodst = if *nodst { listed::NODST } else { 0 };
                maps.set_source(key, listed::BY_PORT | nodst)
            }
        }
    }

    /// Says whether a port's interface is down or has no carrier.
    pub(crate) fn set_down(&mut self, slot: u16, down: bool) -> Result<()> {
        let port = self.maps.port(slot)?;
        let flags = if down { port.flags | port_flags::DOWN } else { port.flags & !port_flags::DOWN };
        if flags == port.flags { Ok(()) } else { self.maps.set_port(slot, Port { flags, ..port }) }
    }

    /// Adds or replaces an entry of the FDB. Aged ones make room for it.
    fn set_entry(&mut self, key: FdbKey, entry: FdbEntry) -> Result<()> {
        let mut done = self.maps.fdb.set(key, entry)?;
        if done == Err(Full) {
            self.sweep()?;
            done = self.maps.fdb.set(key, entry)?;
        }
        if done == Err(Full) {
            bail!(
                "fdb {}: the FDB is full ({} entries): delete some (vswitch fdb flush) or start the switch with a larger --fdb-max",
                key.mac,
                self.maps.fdb.max()
            );
        }
        Ok(())
    }

    /// Removes entries past their ageing time. They do not forward any more; this makes room.
    fn sweep(&mut self) -> Result<()> {
        let ageing = self.maps.settings()?.ageing;
        self.maps.fdb.sweep(self.now(), ageing)
    }
}
