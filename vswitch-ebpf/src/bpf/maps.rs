//! The switch's state as BPF maps, and the decision's view of it.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_jiffies64,
    macros::map,
    maps::{Array, DevMap, HashMap, PerCpuArray},
};
use vswitch_ebpf::{
    abi::{
        Counters, FdbEntry, FdbKey, INTERFACES_MAX, Identity, Interface, MAX_PORTS, PROBES, Port, PortRecord,
        SOURCES_MAX, Settings, SourceKey, Stamp, port_flags,
    },
    fdb::Set,
    tables::Tables,
};

use super::fdb;

#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// By slot.
#[map]
pub(crate) static PORTS: Array<Port> = Array::with_max_entries(MAX_PORTS, 0);

/// ifindex -> slot.
#[map]
pub(crate) static INTERFACES: Array<Interface> = Array::with_max_entries(INTERFACES_MAX, 0);

/// Userspace maps it into its memory, as a system call could not change a word of an element. The loader says how many sets.
#[map]
pub(crate) static FDB: Array<Set> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How many keys and tombstones are in the FDB.
#[map]
pub(crate) static FDB_USED: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The source lists of the ports in source mode. Userspace writes, the dataplane reads.
#[map]
pub(crate) static SOURCES: HashMap<SourceKey, u32> = HashMap::with_max_entries(SOURCES_MAX, 0);

/// By slot.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(MAX_PORTS, 0);

/// By slot: the ports that XDP may deliver to. The kernel empties an element when its interface goes.
#[map]
pub(crate) static DEVMAP: DevMap = DevMap::with_max_entries(MAX_PORTS, 0);

/// By slot: the ports' interfaces, for tc to ask whether they are still there. The kernel empties an element when its interface
/// goes. Not `DEVMAP`: a device map is for programs of one type alone (bpf_prog_map_compatible, kernel/bpf/core.c).
#[map]
pub(crate) static PRESENT: DevMap = DevMap::with_max_entries(MAX_PORTS, 0);

/// By slot; userspace's memory.
#[map]
pub(crate) static RECORDS: Array<PortRecord> = Array::with_max_entries(MAX_PORTS, 0);

/// Userspace's memory.
#[map]
pub(crate) static IDENTITY: Array<Identity> = Array::with_max_entries(1, 0);

/// The maps, as the decision sees them.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn settings(&self) -> Settings {
        SETTINGS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn slot_of(&self, ifindex: u32) -> Option<u16> {
        for probe in 0..PROBES {
            if let Some(interface) = INTERFACES.get(Interface::element(ifindex, probe))
                && interface.ifindex == ifindex
            {
                return Some(interface.slot as u16);
            }
        }
        None
    }

    #[inline(always)]
    fn port(&self, slot: u16) -> Option<Port> {
        PORTS.get(u32::from(slot)).copied().filter(|port| port.ifindex != 0)
    }

    #[inline(always)]
    fn revive(&self, slot: u16) {
        if let Some(port) = PORTS.get_ptr_mut(u32::from(slot)) {
            // SAFETY: an element of an array is never freed. Userspace may store a whole element at the same time; then
            // its word stands, and the next frame revives the port again.
            unsafe { (*port).flags &= !port_flags::DOWN };
        }
    }

    #[inline(always)]
    fn fdb(&self, key: FdbKey) -> Option<FdbEntry> {
        fdb::get(key.word())
    }

    #[inline(always)]
    fn fdb_ahead(&self, key: FdbKey) {
        fdb::touch(key.word());
    }

    #[inline(always)]
    fn listed(&self, key: SourceKey) -> u32 {
        // SAFETY: a copy of one aligned word; a recycled element tells of another sender or port, for one frame.
        unsafe { SOURCES.get(key) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn fdb_insert(&self, key: FdbKey, entry: FdbEntry) -> bool {
        fdb::vswitch_fdb_insert(key.word(), entry.0) != 0
    }

    #[inline(always)]
    fn fdb_replace(&self, key: FdbKey, old: FdbEntry, new: FdbEntry) {
        fdb::vswitch_fdb_replace(key.word(), old.0, new.0);
    }

    #[inline(always)]
    fn now(&self) -> Stamp {
        // SAFETY: reads a word; the verifier replaces the call by the load.
        unsafe { bpf_jiffies64() }
    }
}
