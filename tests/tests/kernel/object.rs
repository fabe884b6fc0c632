//! How does a generated switch get into the kernel, and its state out again? The BPF object, its maps, and test runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    mem::size_of,
    path::PathBuf,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, xdp::DevMap},
    programs::{SchedClassifier, TcAttachType, Xdp, tc::qdisc_add_clsact},
};
use vswitch_ebpf::{
    abi::{
        Counters, FdbEntry, FdbKey, HOST_SLOT, Interface, List, Port, Settings, SourceKey, Stamp, lists,
        port_flags, port_state,
    },
    fdb::{Set, Shape, Way},
};
use vswitch_tests::{
    cases::FDB_MAX,
    fdb::fill,
    host_tables::{HostTables, header, ifindex},
    model::Frame,
};

/// Slots with an interface in the test's namespace.
pub(crate) const SLOTS: std::ops::RangeInclusive<u16> = 1..=8;

/// Of the FDB under test.
const FDB: Shape = Shape { max: FDB_MAX as u32, secret: 0x0123_4567_89ab_cdef };

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Wire<T>(T);

// SAFETY: bytemuck::Pod promises what aya::Pod asks for: any bytes are a value, and a value has no padding.
unsafe impl<T: bytemuck::Pod> Pod for Wire<T> {}

pub(crate) type Fdb = BTreeMap<FdbKey, FdbEntry>;

/// What a program did with a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    /// `skb->mark` afterwards; as it was for XDP.
    pub(crate) mark: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    Ingress,
    Egress,
    Xdp,
}

pub(crate) struct Object {
    ebpf: Ebpf,
    settings: Array<MapData, Wire<Settings>>,
    ports: Array<MapData, Wire<Port>>,
    /// What is in `ports`, so that only what changes is written.
    put: BTreeMap<u16, Port>,
    states: Array<MapData, u64>,
    generation: Array<MapData, u64>,
    /// Whether what is changed makes what was decided forgotten: off, to see what is remembered.
    forgets: bool,
    lists: Array<MapData, Wire<List>>,
    members: Array<MapData, u32>,
    sources: HashMap<MapData, Wire<SourceKey>, u64>,
    fdb: Array<MapData, Wire<Set>>,
    fdb_used: Array<MapData, u64>,
    counters: PerCpuArray<MapData, Wire<Counters>>,
    counted: BTreeMap<u16, Counters>,
    /// Keys that are said to be in the FDB and are not: its size is fixed when the object is loaded.
    ballast: usize,
    // Held for the programs; every slot has its interface in it.
    _devmaps: [DevMap<MapData>; 2],
}

/// Names the object under test.
pub(crate) const VARIABLE: &str = "VSWITCH_BPF_OBJECT";

/// The object that `cargo xtask build` leaves behind.
pub(crate) fn path() -> PathBuf {
    env::var_os(VARIABLE).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/vswitch.o")),
        PathBuf::from,
    )
}

impl Object {
    /// Loads the object, with each interface where the n-th probe finds it. They must exist: the devmap takes no other.
    pub(crate) fn load(probe: u32) -> Self {
        let path = path();
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FDB", FDB.sets())
            .override_global("FDB_MASK", &(FDB.sets() - 1), true)
            .override_global("FDB_MAX", &FDB.max, true)
            .override_global("FDB_SECRET", &FDB.secret, true)
            .load_file(&path)
            .unwrap_or_else(|error| panic!("load {}: {error:?}", path.display()));
        for name in [Program::Ingress.name(), Program::Egress.name(), "vswitch_clock"] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("load {name}: {error}"));
        }
        let program: &mut Xdp = ebpf.program_mut(Program::Xdp.name()).unwrap().try_into().unwrap();
        program.load().unwrap_or_else(|error| panic!("load vswitch_xdp: {error}"));

        let mut take = |name| ebpf.take_map(name).unwrap_or_else(|| panic!("no map {name}"));
        let mut interfaces = Array::<_, Wire<Interface>>::try_from(take("INTERFACES")).unwrap();
        let mut devmaps = ["DEVMAP", "PRESENT"].map(|name| DevMap::try_from(take(name)).unwrap());
        for slot in SLOTS {
            let element = Interface::element(ifindex(slot), probe);
            let interface = Interface { ifindex: ifindex(slot), slot: u32::from(slot) };
            interfaces.set(element, Wire(interface), 0).unwrap();
            devmaps.iter_mut().for_each(|map| map.set(u32::from(slot), ifindex(slot), None, 0).unwrap());
        }
        Self {
            settings: take("SETTINGS").try_into().unwrap(),
            ports: take("PORTS").try_into().unwrap(),
            put: BTreeMap::new(),
            states: take("STATES").try_into().unwrap(),
            generation: take("GENERATION").try_into().unwrap(),
            forgets: true,
            lists: take("LISTS").try_into().unwrap(),
            members: take("MEMBERS").try_into().unwrap(),
            sources: take("SOURCES").try_into().unwrap(),
            fdb: take("FDB").try_into().unwrap(),
            fdb_used: take("FDB_USED").try_into().unwrap(),
            counters: take("COUNTERS").try_into().unwrap(),
            ebpf,
            counted: BTreeMap::new(),
            ballast: 0,
            _devmaps: devmaps,
        }
    }

    /// Puts the host's hook on an uplink, where clones for it will pass.
    pub(crate) fn attach_egress(&mut self, ifname: &str) {
        // Kernels with tcx need no qdisc, and may have none.
        let _ = qdisc_add_clsact(ifname);
        let name = Program::Egress.name();
        let program: &mut SchedClassifier = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
        program
            .attach(ifname, TcAttachType::Egress)
            .unwrap_or_else(|error| panic!("attach to {ifname}: {error:?}"));
    }

    /// Makes the kernel's switch the one in `tables`, except for its FDB.
    pub(crate) fn configure(&mut self, tables: &HostTables) {
        self.change(tables);
        self.ballast = FDB_MAX - tables.fdb_max;
        self.set_fdb(&Fdb::new());
    }

    /// Changes settings, ports and lists as userspace does.
    pub(crate) fn change(&mut self, tables: &HostTables) {
        self.settings.set(0, Wire(tables.settings), 0).unwrap();
        self.set_ports(tables);
        let old: Vec<_> = self.sources.keys().map(Result::unwrap).collect();
        old.iter().for_each(|key| self.sources.remove(key).unwrap());
        let uplinks = tables.ports.iter().filter(|(_, port)| port.flags & port_flags::UPLINK != 0);
        let uplinks: Vec<_> = uplinks.map(|(slot, _)| *slot).collect();
        let mut first = 0;
        for (which, members) in
            [(lists::DOMAIN, tables.ports.keys().copied().collect()), (lists::UPLINKS, uplinks)]
        {
            let list = self.write_row(&mut first, &members);
            self.lists.set(which, Wire(list), 0).unwrap();
        }
        for (key, listed) in &tables.sources {
            let mut value = *listed;
            if key.slot == HOST_SLOT {
                let by =
                    tables.sources.keys().filter(|other| other.mac == key.mac && other.slot != HOST_SLOT);
                let list = self.write_row(&mut first, &by.map(|other| other.slot).collect::<Vec<_>>());
                value = if List(*listed).nodst() { list.with_nodst() } else { list }.0;
            }
            self.sources.insert(Wire(*key), value, 0).unwrap();
        }
        self.forget();
    }

    fn write_row(&mut self, first: &mut u32, members: &Vec<u16>) -> List {
        let list = List::new(*first, members.len() as u16);
        for member in members {
            self.members.set(*first, u32::from(*member), 0).unwrap();
            *first += 1;
        }
        list
    }

    /// As whoever changes a table does afterwards.
    pub(crate) fn forget(&mut self) {
        if self.forgets {
            self.generation.set(0, self.generation() + 1, 0).unwrap();
        }
    }

    /// Changes something and does not say so.
    pub(crate) fn quietly(&mut self, change: impl FnOnce(&mut Self)) {
        self.forgets = false;
        change(self);
        self.forgets = true;
    }

    /// How often anything was changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get(&0, 0).unwrap()
    }

    pub(crate) fn set_fdb(&mut self, fdb: &Fdb) {
        let mut sets = BTreeMap::new();
        fill(&mut sets, FDB, fdb.iter().map(|(key, entry)| (*key, *entry)));
        for number in 0..FDB.sets() {
            let set = sets.get(&number).copied().unwrap_or_default();
            if self.fdb.get(&number, 0).unwrap().0 != set {
                self.fdb.set(number, Wire(set), 0).unwrap();
            }
        }
        self.fdb_used.set(0, (self.ballast + fdb.len()) as u64, 0).unwrap();
        self.forget();
    }

    pub(crate) fn fdb(&self) -> Fdb {
        let ways = || self.fdb.iter().flat_map(|set| set.unwrap().0.ways);
        let keys = ways().filter(|way| way.key != 0).count();
        assert_eq!(self.fdb_used.get(&0, 0).unwrap(), (self.ballast + keys) as u64, "keys counted");
        let known: Vec<_> = ways().filter_map(Way::known).collect();
        let fdb: Fdb = known.iter().copied().collect();
        assert_eq!(known.len(), fdb.len(), "an address has two entries");
        fdb
    }

    /// By slot, what was counted since the last call; slots that counted nothing are left out.
    pub(crate) fn counted(&mut self) -> BTreeMap<u16, Counters> {
        let mut news = BTreeMap::new();
        for slot in (0..1).chain(SLOTS) {
            let per_cpu = self.counters.get(&u32::from(slot), 0).unwrap();
            let total =
                per_cpu.iter().fold(Counters::default(), |sum, one| combine(&sum, &one.0, u64::wrapping_add));
            let old = self.counted.insert(slot, total).unwrap_or_default();
            if total != old {
                news.insert(slot, combine(&total, &old, u64::wrapping_sub));
            }
        }
        news
    }

    pub(crate) fn set_ports(&mut self, tables: &HostTables) {
        for slot in SLOTS {
            let port = tables.ports.get(&slot).copied().unwrap_or_default();
            if self.put.insert(slot, port) != Some(port) {
                self.ports.set(u32::from(slot), Wire(port), 0).unwrap();
            }
            let down = tables.down.borrow().contains(&slot);
            let state = if down { u64::from(port_state::DOWN) } else { 0 };
            self.states.set(u32::from(slot), state, 0).unwrap();
        }
        self.forget();
    }

    /// The ports that are down.
    pub(crate) fn down(&self) -> BTreeSet<u16> {
        let down = |slot: &u16| self.states.get(&u32::from(*slot), 0).unwrap() != 0;
        SLOTS.filter(down).collect()
    }

    /// The ports of the switch as the programs left them.
    pub(crate) fn ports(&mut self) -> BTreeMap<u16, Port> {
        self.put = SLOTS.map(|slot| (slot, self.ports.get(&u32::from(slot), 0).unwrap().0)).collect();
        self.put.iter().filter(|(_, port)| port.ifindex != 0).map(|(&slot, &port)| (slot, port)).collect()
    }

    /// Runs a program on a frame of the port or uplink in `slot`.
    pub(crate) fn run(&self, program: Program, slot: u16, frame: &Frame, mark: u32) -> Ran {
        self.repeat(program, slot, frame, mark, 1).0
    }

    /// The programs' time.
    pub(crate) fn now(&self) -> Stamp {
        let (frame, mut after) = ([0; 14], [0u32; 48]);
        let clock: &SchedClassifier = self.ebpf.program("vswitch_clock").unwrap().try_into().unwrap();
        clock.test_run(options(&frame, &[], &mut after, 1)).unwrap();
        u64::from(after[SKB_CB]) | u64::from(after[SKB_CB + 1]) << 32
    }

    /// How many instructions the kernel's verifier looked at before it let the program in.
    pub(crate) fn verified(&self, program: Program) -> u32 {
        let program = self.ebpf.program(program.name()).unwrap();
        program.info().unwrap().verified_instruction_count().unwrap()
    }

    /// Runs it often, and returns what it did and how long one run took on average.
    pub(crate) fn repeat(
        &self,
        program: Program,
        slot: u16,
        frame: &Frame,
        mark: u32,
        repeat: u32,
    ) -> (Ran, Duration) {
        let mut bytes = header(frame).to_vec();
        bytes.resize(frame.len.try_into().unwrap(), 0);
        let test = match program {
            Program::Xdp => {
                let mut md = [0u32; 6];
                (md[XDP_DATA_END], md[XDP_INGRESS_IFINDEX]) = (frame.len, ifindex(slot));
                let xdp: &Xdp = self.ebpf.program(program.name()).unwrap().try_into().unwrap();
                xdp.test_run(options(&bytes, &md, &mut [], repeat)).map(|result| (result, mark))
            }
            Program::Ingress | Program::Egress => {
                let mut skb = [0u32; 48];
                (skb[SKB_MARK], skb[SKB_IFINDEX]) = (mark, ifindex(slot));
                if frame.gso {
                    (skb[SKB_GSO_SEGS], skb[SKB_GSO_SIZE]) = (2, 500);
                }
                let mut after = [0u32; 48];
                let tc: &SchedClassifier = self.ebpf.program(program.name()).unwrap().try_into().unwrap();
                tc.test_run(options(&bytes, &skb, &mut after, repeat)).map(|result| (result, after[SKB_MARK]))
            }
        };
        let (result, mark) = test.unwrap_or_else(|error| panic!("{program:?} on {frame:?}: {error:?}"));
        (Ran { code: result.return_value.cast_signed(), mark }, result.duration)
    }
}

impl Program {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "vswitch_in",
            Self::Egress => "vswitch_out",
            Self::Xdp => "vswitch_xdp",
        }
    }
}

fn options<'a>(bytes: &'a [u8], context: &'a [u32], after: &'a mut [u32], repeat: u32) -> TestRunOptions<'a> {
    TestRunOptions {
        data_in: Some(bytes),
        repeat,
        ctx_in: (!context.is_empty()).then(|| bytemuck::cast_slice(context)),
        ctx_out: (!after.is_empty()).then(|| bytemuck::cast_slice_mut(after)),
        ..TestRunOptions::default()
    }
}

fn combine(a: &Counters, b: &Counters, with: fn(u64, u64) -> u64) -> Counters {
    let mut all = *a;
    let words: &mut [u64; size_of::<Counters>() / 8] = bytemuck::cast_mut(&mut all);
    let others: &[u64; size_of::<Counters>() / 8] = bytemuck::cast_ref(b);
    words.iter_mut().zip(others).for_each(|(word, other)| *word = with(*word, *other));
    all
}

// Word offsets in `struct __sk_buff` and `struct xdp_md` (linux/bpf.h).
const SKB_MARK: usize = 2;
const SKB_IFINDEX: usize = 10;
const SKB_CB: usize = 12;
const SKB_GSO_SEGS: usize = 41;
const SKB_GSO_SIZE: usize = 44;
const XDP_DATA_END: usize = 1;
const XDP_INGRESS_IFINDEX: usize = 3;
