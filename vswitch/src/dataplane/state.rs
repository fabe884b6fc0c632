//! Which ports does a switch have, in which slots, and what is known of each?

use anyhow::{Result, bail};
use aya::programs::ProgramInfo;
use vswitch_ebpf::{
    abi::{Counters, FdbEntry, FdbKey, Port, Settings, fdb_flags},
    fdb::Shape,
    frame::MacAddr,
};

use super::{
    Dataplane,
    clock::Clock,
    ledger::{IFNAMSIZ, PortRecord, record_flags},
    links::Hook,
};
use crate::config::{Datapath, FarEnd, PortConfig, Role};

/// A port as the maps have it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) slot: u16,
    pub(crate) record: PortRecord,
    pub(crate) port: Port,
}

impl Member {
    /// The interface's name.
    pub(crate) fn ifname(&self) -> String {
        text(&self.record.ifname)
    }

    /// Whether it is an uplink.
    pub(crate) fn is_uplink(&self) -> bool {
        self.record.flags & record_flags::UPLINK != 0
    }

    /// Towards the outside or not.
    pub(crate) fn role(&self) -> Role {
        if self.is_uplink() { Role::Uplink } else { Role::Downlink }
    }

    /// The hooks by which the switch sees its frames while its interface is there.
    pub(crate) fn hooks(&self) -> Vec<Hook> {
        let mut hooks = vec![Hook::In];
        if self.is_uplink() {
            hooks.push(Hook::Out);
        }
        match datapath(self.record.active) {
            Datapath::Xdp => hooks.push(Hook::Xdp),
            Datapath::XdpGeneric => hooks.push(Hook::XdpGeneric),
            Datapath::Tc | Datapath::Auto => {}
        }
        hooks
    }

    /// The namespace that its far end was made in, if vswitch made it.
    pub(crate) fn netns(&self) -> Option<String> {
        Some(text(&self.record.netns)).filter(|netns| !netns.is_empty())
    }

    /// Whether its interface is there.
    pub(crate) fn is_present(&self) -> bool {
        self.port.ifindex != 0
    }
}

impl Dataplane {
    /// All ports, by slot.
    pub(crate) fn members(&self) -> Result<Vec<Member>> {
        let ports = self.maps.tables().all_ports()?;
        let member = |(slot, record)| {
            let port = ports.get(usize::from(slot)).copied().unwrap_or_default();
            Member { slot, record, port }
        };
        Ok(self.ledger.records()?.into_iter().map(member).collect())
    }

    /// The port with this interface.
    pub(crate) fn member(&self, ifname: &str) -> Result<Member> {
        let is_named = |record: &PortRecord| text(&record.ifname) == ifname;
        match self.ledger.records()?.into_iter().find(|(_, record)| is_named(record)) {
            Some((slot, record)) => Ok(Member { slot, record, port: self.maps.tables().port(slot)? }),
            None => {
                bail!(r#""{ifname}": not a port of switch "{}" (vswitch port show lists them)"#, self.name)
            }
        }
    }

    /// Whether a port is called so.
    pub(crate) fn is_port(&self, ifname: &str) -> Result<bool> {
        Ok(self.ledger.records()?.iter().any(|(_, record)| text(&record.ifname) == ifname))
    }

    /// The port that an interface is.
    pub(crate) fn member_of(&self, ifindex: u32) -> Result<Option<Member>> {
        let Some(slot) = self.maps.tables().slot_of(ifindex)? else { return Ok(None) };
        let member = self.member_at(slot)?;
        Ok((member.record.ifindex == ifindex && self.is_there(slot)?).then_some(member))
    }

    /// The port in a slot: to ask for one by name is to read them all.
    pub(crate) fn member_at(&self, slot: u16) -> Result<Member> {
        Ok(Member { slot, record: self.ledger.record(slot)?, port: self.maps.tables().port(slot)? })
    }

    /// The kernel's number of the switch's XDP program, by which it is told from others'.
    pub(crate) fn xdp_program_id(&self) -> Option<u32> {
        ProgramInfo::from_pin(self.pins.program(Hook::Xdp.program())).ok().map(|info| info.id())
    }

    /// What holds for the whole switch, as the programs have it.
    pub(crate) fn settings(&self) -> Result<Settings> {
        self.maps.tables().settings()
    }

    /// Whether a port's interface is the one that was attached. The kernel takes it out of the map when it goes; its index, and
    /// with that what the record says, may be a stranger's by now.
    pub(crate) fn is_there(&self, slot: u16) -> Result<bool> {
        self.maps.is_there(slot)
    }

    /// Notes which interface a port's is, for as long as it is there, so that tc may deliver to it.
    pub(crate) fn set_present(&mut self, slot: u16, ifindex: u32) -> Result<()> {
        self.maps.set_present(slot, ifindex)
    }

    /// Forgets a port's interface.
    pub(crate) fn clear_present(&mut self, slot: u16) -> Result<()> {
        self.maps.clear_present(slot)
    }

    /// Lets XDP deliver to a port's interface.
    pub(crate) fn set_xdp(&mut self, slot: u16, ifindex: u32) -> Result<()> {
        self.maps.set_devmap(slot, ifindex)
    }

    /// Stops XDP from delivering to a port.
    pub(crate) fn clear_xdp(&mut self, slot: u16) -> Result<()> {
        self.maps.clear_devmap(slot)
    }

    /// A slot's counters, summed over the CPUs.
    pub(crate) fn counters(&self, slot: u16) -> Result<Counters> {
        self.maps.counters(slot)
    }

    /// Sets a slot's counters to zero: it has a new owner.
    pub(crate) fn clear_counters(&mut self, slot: u16) -> Result<()> {
        self.maps.clear_counters(slot)
    }

    /// The most entries that the FDB holds.
    pub(crate) fn fdb_max(&self) -> u32 {
        self.maps.tables().fdb.max()
    }

    /// How large the FDB is, and how its addresses are spread.
    pub(super) fn fdb_shape(&self) -> Shape {
        self.maps.tables().fdb.shape()
    }

    /// How the dataplane counts time.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }
}

/// What an FDB entry is to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Learned, or added by the user to age.
    Learned,
    /// Bound to a port by `fdb add --static`.
    Static,
    /// One of a port's known addresses, or that of a far end which vswitch made.
    Known,
    /// The host's.
    Local,
}

/// Tells by the flags what an entry is.
pub(crate) fn entry_kind(entry: FdbEntry) -> EntryKind {
    let flags = entry.flags();
    if flags & fdb_flags::LOCAL == fdb_flags::LOCAL {
        EntryKind::Local
    } else if flags & fdb_flags::STICKY != 0 {
        EntryKind::Known
    } else if flags & fdb_flags::STATIC != 0 {
        EntryKind::Static
    } else {
        EntryKind::Learned
    }
}

/// The FDB's key of an address while the switch is not VLAN-aware.
pub(crate) fn key(mac: MacAddr) -> FdbKey {
    FdbKey { mac, vlan: 0 }
}

/// The record of a port that is about to be added.
pub(crate) fn new_record(config: &PortConfig) -> Result<PortRecord> {
    let role = if config.role == Role::Uplink { record_flags::UPLINK } else { 0 };
    let (made, netns, peer) = match &config.far_end {
        FarEnd::Existing => (0, "", ""),
        FarEnd::Tap => (record_flags::CREATED_TAP, "", ""),
        FarEnd::Veth { netns, peer } => (record_flags::CREATED_VETH, netns.as_str(), peer.as_str()),
    };
    Ok(PortRecord {
        ifname: bytes::<IFNAMSIZ>(&config.ifname)?,
        peer: bytes::<IFNAMSIZ>(peer)?,
        netns: bytes::<64>(netns)?,
        flags: made | role,
        undo: 0,
        ifindex: 0,
        datapath: datapath_number(Some(config.datapath)),
        active: 0,
        station: [0; 6],
    })
}

/// A datapath as [`PortRecord`] has it: 0 for auto or none.
pub(crate) const fn datapath_number(datapath: Option<Datapath>) -> u8 {
    match datapath {
        None | Some(Datapath::Auto) => 0,
        Some(Datapath::Xdp) => 1,
        Some(Datapath::XdpGeneric) => 2,
        Some(Datapath::Tc) => 3,
    }
}

/// The reverse of [`datapath_number`].
pub(crate) fn datapath(number: u8) -> Datapath {
    match number {
        1 => Datapath::Xdp,
        2 => Datapath::XdpGeneric,
        3 => Datapath::Tc,
        _ => Datapath::Auto,
    }
}

/// A zero-terminated text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// A text, zero-terminated.
pub(crate) fn bytes<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match bytes.get_mut(..text.len()) {
        Some(room) if text.len() < N => room.copy_from_slice(text.as_bytes()),
        Some(_) | None => bail!(r#""{text}": longer than the {} bytes that there is room for"#, N - 1),
    }
    Ok(bytes)
}
