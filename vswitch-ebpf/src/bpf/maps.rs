//! The switch's state as BPF maps, and the decision's view of it.

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_NOEXIST},
    helpers::bpf_jiffies64,
    macros::map,
    maps::{Array, DevMap, HashMap, PerCpuArray},
};
use vswitch_ebpf::{
    abi::{
        Counters, DEFAULT_FDB_MAX, FdbEntry, FdbKey, INTERFACES_MAX, Identity, Interface, MAX_PORTS, PROBES,
        Port, PortRecord, RECENT_MAX, Recent, SOURCES_MAX, Settings, SourceKey, Stamp, port_flags,
    },
    tables::Tables,
};

use super::recent;

#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// By slot.
#[map]
pub(crate) static PORTS: Array<Port> = Array::with_max_entries(MAX_PORTS, 0);

/// ifindex -> slot.
#[map]
pub(crate) static INTERFACES: Array<Interface> = Array::with_max_entries(INTERFACES_MAX, 0);

/// Preallocated and with a limit. Not LRU, which would let one port evict everybody's entries.
#[map]
pub(crate) static FDB: HashMap<FdbKey, FdbEntry> = HashMap::with_max_entries(DEFAULT_FDB_MAX, 0);

/// The source lists of the ports in source mode. Userspace writes, the dataplane reads.
#[map]
pub(crate) static SOURCES: HashMap<SourceKey, u32> = HashMap::with_max_entries(SOURCES_MAX, 0);

/// By slot.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(MAX_PORTS, 0);

/// By slot: the ports that XDP may deliver to. The kernel clears an element when its interface goes.
#[map]
pub(crate) static DEVMAP: DevMap = DevMap::with_max_entries(MAX_PORTS, 0);

/// By slot; userspace's memory.
#[map]
pub(crate) static RECORDS: Array<PortRecord> = Array::with_max_entries(MAX_PORTS, 0);

/// Userspace's memory.
#[map]
pub(crate) static IDENTITY: Array<Identity> = Array::with_max_entries(1, 0);

/// What this CPU has lately heard from the FDB.
#[map]
pub(crate) static RECENT: PerCpuArray<Recent> = PerCpuArray::with_max_entries(RECENT_MAX, 0);

/// Another number whenever an answer of the FDB may have become another one.
#[map]
pub(crate) static CHANGES: Array<u64> = Array::with_max_entries(1, 0);

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
    fn fdb(&self, key: FdbKey, now: Stamp) -> Option<FdbEntry> {
        match recent::get(key, now) {
            Some(entry) => Some(entry),
            None => recent::ask(key, now),
        }
    }

    #[inline(always)]
    fn listed(&self, key: SourceKey) -> u32 {
        // SAFETY: a copy of one aligned word; a recycled element tells of another sender or port, for one frame.
        unsafe { SOURCES.get(key) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn fdb_insert(&self, key: FdbKey, entry: FdbEntry) -> bool {
        const E2BIG: i32 = 7;
        FDB.insert(key, entry, u64::from(BPF_NOEXIST)) != Err(-E2BIG)
    }

    #[inline(always)]
    fn fdb_renew(&self, key: FdbKey, entry: FdbEntry) {
        // Not a store through a pointer: the element may be another address' by now. Gone is fine: the next frame
        // learns again.
        let _gone = FDB.insert(key, entry, u64::from(BPF_EXIST));
        recent::forget(key);
    }

    #[inline(always)]
    fn fdb_move(&self, key: FdbKey, entry: FdbEntry) {
        let _gone = FDB.insert(key, entry, u64::from(BPF_EXIST));
        recent::forget_all();
    }

    #[inline(always)]
    fn now(&self) -> Stamp {
        // SAFETY: reads a word; the verifier replaces the call by the load.
        unsafe { bpf_jiffies64() }
    }
}
