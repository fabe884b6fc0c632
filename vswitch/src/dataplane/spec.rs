//! What is each map of this build? A pinned one is compared before it is used.

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, MapInfo, MapType};
use bytemuck::{Pod, Zeroable};
use vswitch_ebpf::{
    abi::{
        Counters, INTERFACES_MAX, Interface, List, MAX_PORTS, MEMBERS_MAX, Port, SOURCES_MAX, Settings,
        SourceKey, lists,
    },
    fdb::Set,
    memory::{RECORDS as VERDICTS_MAX, Record},
};

use super::{
    ledger::{FILTERS_MAX, Filter, Identity, PortRecord},
    pins::Pins,
    raw::{BPF_F_NO_PREALLOC, RawMap},
    sys,
};

/// How the switch's maps are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To change the switch.
    Write,
    /// To look: the pins' modes decide who may.
    Read,
}

/// struct bpf_devmap_val: element of a device map.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Device {
    pub(super) ifindex: u32,
    /// One to run on what is sent there: none.
    pub(super) program: u32,
}

/// What a map of this build is.
pub(super) struct Spec {
    pub(super) name: &'static str,
    kind: MapType,
    /// Bytes of a key.
    key: u32,
    /// Bytes of a value.
    value: u32,
    /// 0: the user's choice.
    entries: u32,
    flags: u32,
    /// The first ABI version whose map of that name is this one, in layout and meaning. 0: all.
    pub(super) since: u32,
    /// Verdicts follow from it: whoever changes it raises the generation.
    pub(super) decides: bool,
}

const fn spec<K, V>(name: &'static str, kind: MapType, entries: u32) -> Spec {
    Spec {
        name,
        kind,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        entries,
        flags: 0,
        since: 0,
        decides: false,
    }
}

/// A map that verdicts follow from.
const fn table<K, V>(name: &'static str, kind: MapType, entries: u32) -> Spec {
    Spec { decides: true, ..spec::<K, V>(name, kind, entries) }
}

/// An array that userspace maps into its memory.
const fn shared<V>(name: &'static str, entries: u32) -> Spec {
    Spec { flags: BPF_F_MMAPABLE, ..spec::<u32, V>(name, MapType::Array, entries) }
}

const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The programs' maps.
const SPECS: [Spec; 14] = [
    Spec { since: 3, ..table::<u32, Settings>("SETTINGS", MapType::Array, 1) },
    Spec { since: 3, ..table::<u32, Port>("PORTS", MapType::Array, MAX_PORTS) },
    Spec { since: 3, decides: true, ..shared::<u64>("STATES", MAX_PORTS) },
    Spec { since: 3, ..shared::<u64>("GENERATION", 1) },
    Spec { since: 3, ..spec::<u32, Record>("VERDICTS", MapType::PerCpuArray, VERDICTS_MAX) },
    Spec { since: 3, ..table::<u32, List>("LISTS", MapType::Array, lists::COUNT) },
    Spec { since: 3, ..table::<u32, u32>("MEMBERS", MapType::Array, MEMBERS_MAX) },
    Spec { since: 3, decides: true, ..shared::<Interface>("INTERFACES", INTERFACES_MAX) },
    Spec { decides: true, ..shared::<Set>("FDB", 0) },
    Spec { since: 2, ..shared::<u64>("FDB_USED", 1) },
    Spec { since: 3, ..table::<SourceKey, u64>("SOURCES", MapType::Hash, SOURCES_MAX) },
    spec::<u32, Counters>("COUNTERS", MapType::PerCpuArray, MAX_PORTS),
    spec::<u32, Device>("DEVMAP", MapType::DevMap, MAX_PORTS),
    Spec { since: 2, ..spec::<u32, Device>(PRESENT, MapType::DevMap, MAX_PORTS) },
];

/// Userspace's own, which no program reads.
const LEDGER: [Spec; 3] = [
    Spec { since: 3, ..spec::<u32, PortRecord>("RECORDS", MapType::Array, MAX_PORTS) },
    spec::<u32, Identity>("IDENTITY", MapType::Array, 1),
    Spec { since: 3, flags: BPF_F_NO_PREALLOC, ..spec::<Filter, u32>("FILTERS", MapType::Hash, FILTERS_MAX) },
];

/// The ports' interfaces, which the kernel takes out when they go.
pub(super) const PRESENT: &str = "PRESENT";

/// A map that is there in a switch whose counters had another layout once: what they had come to, by slot.
pub(super) const BASES: &str = "BASES";

const BASES_SPEC: Spec = spec::<u32, Counters>(BASES, MapType::Array, MAX_PORTS);

/// All maps of a switch.
pub(super) fn specs() -> impl Iterator<Item = &'static Spec> {
    SPECS.iter().chain(&LEDGER)
}

/// The names of the programs' maps, as in the object.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SPECS.iter().map(|spec| spec.name)
}

/// Makes and pins those maps of userspace's that are not there.
pub(super) fn make_ledger(pins: &Pins) -> Result<()> {
    for Spec { name, kind, key, value, entries, .. } in &LEDGER {
        let path = pins.map(name);
        if path.exists() {
            continue;
        }
        let map = if *kind == MapType::Hash {
            RawMap::hash(name, *key, *value, *entries)?
        } else {
            RawMap::array(name, *value as usize, *entries)?
        };
        map.pin(&path).with_context(|| format!("pin map {name}"))?;
        pins.protect_map(name)?;
    }
    Ok(())
}

/// Opens one pinned map after comparing it with its spec: aya takes sizes on trust, and a larger value than expected
/// would be copied over the end of a buffer.
pub(super) fn open(pins: &Pins, name: &'static str, access: Access) -> Result<MapData> {
    let path = pins.map(name);
    // Asked first, and not told from the error: the kernel's ENOENT comes through aya in more than one form.
    if path.try_exists().is_ok_and(|exists| !exists) {
        bail!("its map {name} is missing");
    }
    let opened = match access {
        Access::Write => MapData::from_pin(&path).map_err(anyhow::Error::from),
        Access::Read => {
            sys::open_read_only(&path).map_err(anyhow::Error::from).and_then(|fd| Ok(MapData::from_fd(fd)?))
        }
    };
    let data = opened.with_context(|| format!("its map {name} cannot be opened"))?;
    let info = data.info().with_context(|| format!("its map {name} cannot be looked at"))?;
    let Some(spec) = specs().chain([&BASES_SPEC]).find(|spec| spec.name == name) else {
        bail!("map {name}: not one of this build's");
    };
    if let Err(difference) = check(spec, &info) {
        bail!("its map {name} is not this build's ({difference})");
    }
    Ok(data)
}

/// What a map is that is not the one that this build means.
pub(super) fn check(spec: &Spec, info: &MapInfo) -> Result<(), String> {
    /// The kernel adds it to the flags of a device map.
    const BPF_F_RDONLY_PROG: u32 = 1 << 7;
    let kind = info.map_type().ok();
    if kind != Some(spec.kind) {
        return Err(format!("its type is {kind:?} and not {:?}", spec.kind));
    }
    for (what, is, should) in [
        ("key", info.key_size(), spec.key),
        ("value", info.value_size(), spec.value),
        (
            "number of entries",
            info.max_entries(),
            if spec.entries == 0 { info.max_entries() } else { spec.entries },
        ),
        ("set of flags", info.map_flags() & !BPF_F_RDONLY_PROG, spec.flags),
    ] {
        if is != should {
            return Err(format!("its {what} is {is} and not {should}"));
        }
    }
    Ok(())
}
