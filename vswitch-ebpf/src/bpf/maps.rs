//! The switch's state as BPF maps, and the decision's view of it.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_jiffies64,
    macros::map,
    maps::{Array, DevMap, HashMap, PerCpuArray},
};
use vswitch_ebpf::{
    abi::{
        Counters, FdbEntry, FdbKey, INTERFACES_MAX, Interface, List, MAX_PORTS, MEMBERS_MAX, PROBES, Port,
        SOURCES_MAX, Settings, SourceKey, Stamp, lists, port_state,
    },
    fdb::Set,
    memory::{RECORDS as VERDICTS_MAX, Record},
    packet::Packet,
    tables::{Change, Look},
};

use super::{atomic, fdb};

#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// By slot.
#[map]
pub(crate) static PORTS: Array<Port> = Array::with_max_entries(MAX_PORTS, 0);

/// By slot: [`port_state`].
#[map]
pub(crate) static STATES: Array<u64> = Array::with_max_entries(MAX_PORTS, BPF_F_MMAPABLE);

/// How often anything was changed that a verdict may follow from.
#[map]
pub(crate) static GENERATION: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What each CPU remembers.
#[map]
pub(crate) static VERDICTS: PerCpuArray<Record> = PerCpuArray::with_max_entries(VERDICTS_MAX, 0);

/// By hook: the frame that is being decided about. Not on the stack, where the verifier knows each byte and looks at all that
/// follows once for each way in which it came about: of a map's element it knows nothing.
#[map]
pub(crate) static PACKETS: PerCpuArray<Packet> = PerCpuArray::with_max_entries(3, 0);

/// By [`lists`].
#[map]
pub(crate) static LISTS: Array<List> = Array::with_max_entries(lists::COUNT, 0);

/// The members of all lists: a slot each.
#[map]
pub(crate) static MEMBERS: Array<u32> = Array::with_max_entries(MEMBERS_MAX, 0);

/// ifindex -> slot. Most elements are free: userspace maps it into its memory to see which are not.
#[map]
pub(crate) static INTERFACES: Array<Interface> = Array::with_max_entries(INTERFACES_MAX, BPF_F_MMAPABLE);

/// Userspace maps it into its memory, as a system call could not change a word of an element. The loader says how many sets.
#[map]
pub(crate) static FDB: Array<Set> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How many keys and tombstones are in the FDB.
#[map]
pub(crate) static FDB_USED: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The source lists of the ports in source mode. Userspace writes, the dataplane reads.
#[map]
pub(crate) static SOURCES: HashMap<SourceKey, u64> = HashMap::with_max_entries(SOURCES_MAX, 0);

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

/// The maps, as the tc programs' decisions see them.
pub(crate) struct Maps;

/// The maps, as the XDP program's decisions see them: to look at.
pub(crate) struct XdpMaps;

impl Look for Maps {
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
    fn port(&self, slot: u16) -> Option<&Port> {
        PORTS.get(u32::from(slot)).filter(|port| port.ifindex != 0)
    }

    #[inline(always)]
    fn is_down(&self, slot: u16) -> bool {
        STATES.get(u32::from(slot)).is_some_and(|state| *state & u64::from(port_state::DOWN) != 0)
    }

    /// The kernel empties the element before it gives an index away (dev_map_notification, kernel/bpf/devmap.c).
    #[inline(always)]
    fn is_gone(&self, slot: u16) -> bool {
        PRESENT.get_ifindex(u32::from(slot)).is_none()
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
    fn listed(&self, key: SourceKey) -> u64 {
        // SAFETY: a copy of one aligned word; a recycled element tells of another sender or port, for one frame.
        unsafe { SOURCES.get(key) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn now(&self) -> Stamp {
        // SAFETY: reads a word; the verifier replaces the call by the load.
        unsafe { bpf_jiffies64() }
    }
}

impl Change for Maps {
    #[inline(always)]
    fn revive(&self, slot: u16) {
        if let Some(state) = STATES.get_ptr_mut(u32::from(slot)) {
            atomic::and(state, !u64::from(port_state::DOWN));
        }
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
    fn forget(&self) {
        if let Some(generation) = GENERATION.get_ptr_mut(0) {
            atomic::add(generation, 1);
        }
    }
}

impl Look for XdpMaps {
    #[inline(always)]
    fn settings(&self) -> Settings {
        Maps.settings()
    }

    #[inline(always)]
    fn slot_of(&self, ifindex: u32) -> Option<u16> {
        Maps.slot_of(ifindex)
    }

    #[inline(always)]
    fn port(&self, slot: u16) -> Option<&Port> {
        Maps.port(slot)
    }

    #[inline(always)]
    fn is_down(&self, slot: u16) -> bool {
        Maps.is_down(slot)
    }

    /// The redirect asks the device map itself, and tc decides if it finds nobody. `PRESENT` is for tc programs.
    #[inline(always)]
    fn is_gone(&self, _slot: u16) -> bool {
        false
    }

    #[inline(always)]
    fn fdb(&self, key: FdbKey) -> Option<FdbEntry> {
        Maps.fdb(key)
    }

    #[inline(always)]
    fn fdb_ahead(&self, key: FdbKey) {
        Maps.fdb_ahead(key);
    }

    #[inline(always)]
    fn listed(&self, key: SourceKey) -> u64 {
        Maps.listed(key)
    }

    #[inline(always)]
    fn now(&self) -> Stamp {
        Maps.now()
    }
}
