//! How is a switch made of this build's one that another build might have made? Older, with maps of other shapes and with
//! fewer of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use aya::maps::{Array, Map, MapData, MapInfo};
use bytemuck::Pod;
use serde_json::Value;
use vswitch::{
    config::{SwitchConfig, print::print},
    dataplane::ledger::Identity,
};
use vswitch_ebpf::{
    abi::{ABI_VERSION, DEFAULT_FDB_MAX, FdbEntry, FdbKey, MAX_PORTS, fdb_flags},
    fdb::{Set, Shape as FdbShape},
    frame::MacAddr,
};
use vswitch_tests::{
    fdb as table,
    require::Need,
    topo::{Netns, expect_success},
};

pub(crate) const BPFTOOL: &[Need] = &[Need::Tool("bpftool")];

/// The version before this build's.
pub(crate) const BEFORE: u32 = 2;

pub(crate) fn root(version: u32, name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/vswitch").join(format!("v{version}")).join(name)
}

/// Makes a switch that is up one that a build of the version before this one's might have made, as far as anybody can tell:
/// the configuration was in flags of its maps, and nothing else said what it was. Returns where it is now.
pub(crate) fn age(name: &str) -> PathBuf {
    const { assert!(ABI_VERSION == BEFORE + 1, "a version that came after this helper has its own differences") };
    let to = root(BEFORE, name);
    rename(&root(ABI_VERSION, name), &to);
    let config = intent(&to);
    let settings: Vec<u32> = words(&to, "SETTINGS").remove(&vec![0; 4]).expect("the settings");
    let [ageing, refresh, flags, slots] = settings[..] else { panic!("four words") };
    let (wire, passthru) = (slots & 0xffff, slots >> 16);
    remake(&to, Shape { map: "SETTINGS", kind: "array", value: 20, entries: 1 }, 4, {
        let values = [ageing, refresh, flags, MAX_PORTS | wire << 16, passthru];
        BTreeMap::from([(vec![0; 4], values.map(u32::to_ne_bytes).concat())])
    });
    let interfaces = raw_elements(&to, "INTERFACES");
    remake(&to, Shape { map: "INTERFACES", kind: "array", value: 8, entries: 8192 }, 4, interfaces);
    let listed = words(&to, "SOURCES").into_iter().map(|(key, value)| {
        let of_all = key[6..] == [0, 0];
        let nodst = of_all && value[1] >> 31 != 0;
        (key, (1 | u32::from(nodst) << 1).to_ne_bytes().to_vec())
    });
    remake(&to, Shape { map: "SOURCES", kind: "hash", value: 4, entries: 8192 }, 8, listed.collect());
    let records = raw_elements(&to, "RECORDS").into_iter().map(|(key, mut record)| {
        let end = record.iter().position(|byte| *byte == 0).expect("a terminated name");
        let ifname = String::from_utf8(record[..end].to_vec()).expect("a name");
        // The uplink's flag was the port's; the first of the addresses that the user gave it was the record's.
        record[96] &= !(1 << 3);
        let first = config.port(&ifname).and_then(|port| port.mac.first());
        record[110..].copy_from_slice(&first.map_or([0; 6], |mac| mac.0));
        (key, record)
    });
    remake(
        &to,
        Shape { map: "RECORDS", kind: "array", value: 116, entries: MAX_PORTS },
        4,
        records.collect(),
    );
    flag_fdb(&to, &config);
    age_journal(&to);
    for map in ["STATES", "GENERATION", "VERDICTS", "LISTS", "MEMBERS", "FILTERS", "INTENT"] {
        fs::remove_file(to.join("maps").join(map)).expect("remove the pin");
    }
    to
}

/// Says by flags of the FDB what userspace remembers elsewhere now: which addresses follow from interfaces that vswitch made,
/// and which are in the uplink's filter.
fn flag_fdb(root: &Path, config: &SwitchConfig) {
    const STICKY: u8 = fdb_flags::STATIC | fdb_flags::STICKY;
    const DERIVED: u8 = 1 << 3;
    const FILTERED: u8 = 1 << 4;
    let filters = raw_elements(root, "FILTERS");
    let given: BTreeSet<MacAddr> = config.ports.iter().flat_map(|port| port.mac.clone()).collect();
    let mut table = array::<Set, { size_of::<Set>() / 8 }>(root, "FDB");
    for (number, before) in sets(root).1 {
        let mut set = before;
        for way in &mut set.ways {
            let (Some((key, entry)), STICKY) = (way.known(), way.entry.flags()) else { continue };
            let derived = if given.contains(&key.mac) { 0 } else { DERIVED };
            let filtered = filters.keys().any(|filter| filter[..6] == key.mac.0);
            let flags = STICKY | derived | if filtered { FILTERED } else { 0 };
            way.entry = FdbEntry::new(entry.slot(), flags, entry.stamp());
        }
        if set != before {
            table
                .set(number, bytemuck::cast::<_, [u64; size_of::<Set>() / 8]>(set), 0)
                .expect("write the FDB");
        }
    }
}

/// What an interrupted command wanted was a configuration file.
fn age_journal(root: &Path) {
    let journal = root.join("journal");
    if !journal.exists() {
        return;
    }
    let pin = journal.to_str().expect("a plain path");
    let wanted = elements(None, pin).remove(&vec![0; 4]).expect("the journal");
    let text = print(&config_in(&wanted)).into_bytes();
    fs::remove_file(&journal).expect("remove the pin");
    let shape = Shape { map: "journal", kind: "array", value: text.len(), entries: 1 };
    make(pin, shape, 4, BTreeMap::from([(vec![0; 4], text)]));
}

/// The switch's configuration, as it has it.
fn intent(root: &Path) -> SwitchConfig {
    config_in(&raw_elements(root, "INTENT").remove(&vec![0; 4]).expect("the intent"))
}

/// The configuration in a pinned document.
fn config_in(text: &[u8]) -> SwitchConfig {
    let mut document: Value = serde_json::from_slice(text).expect("a document");
    serde_json::from_value(document["switch"].take()).expect("a configuration")
}

/// The elements of a map that are not all zero.
fn raw_elements(root: &Path, map: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let pin = root.join("maps").join(map);
    let mut elements = elements(None, pin.to_str().expect("a plain path"));
    elements.retain(|_, value| value.iter().any(|byte| *byte != 0));
    elements
}

/// As [`raw_elements`], in words.
fn words(root: &Path, map: &str) -> BTreeMap<Vec<u8>, Vec<u32>> {
    let words = |bytes: Vec<u8>| {
        bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().expect("4 bytes"))).collect()
    };
    raw_elements(root, map).into_iter().map(|(key, value)| (key, words(value))).collect()
}

/// Puts another map in a pin's place, with these elements.
fn remake(root: &Path, shape: Shape, key: usize, elements: BTreeMap<Vec<u8>, Vec<u8>>) {
    let pin = root.join("maps").join(shape.map);
    fs::remove_file(&pin).expect("remove the pin");
    make(pin.to_str().expect("a plain path"), shape, key, elements);
}

/// Pins a map with these elements.
fn make(pin: &str, shape: Shape, key: usize, elements: BTreeMap<Vec<u8>, Vec<u8>>) {
    let Shape { map, kind, value, entries } = shape;
    let (key, size, count) = (key.to_string(), value.to_string(), entries.to_string());
    let create =
        ["map", "create", pin, "type", kind, "key", &key, "value", &size, "entries", &count, "name", map];
    bpftool(None, &create);
    write(None, pin, elements.into_iter());
}

/// Gives a switch to another version. The common directory is made again as often as somebody takes it away: the last
/// switch of a version does.
pub(crate) fn rename(from: &Path, to: &Path) {
    loop {
        match fs::create_dir(to.parent().expect("a parent")) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.expect("make the version's directory"),
        }
        match fs::rename(from, to) {
            Err(err) if err.kind() == io::ErrorKind::NotFound && from.exists() => {}
            done => return done.expect("make the switch another version's"),
        }
    }
}

/// Another shape for a map, in the words of `bpftool map create`: type, bytes of a value, elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) map: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) value: usize,
    pub(crate) entries: u32,
}

/// `bpftool`, in the switch's namespace where a device map's elements mean something.
fn started(netns: Option<&Netns>) -> Command {
    netns.map_or_else(|| Command::new("bpftool"), |netns| netns.command("bpftool"))
}

fn bpftool(netns: Option<&Netns>, args: &[&str]) -> Value {
    let text = expect_success(started(netns).arg("-j").args(args), None);
    serde_json::from_str(if text.trim().is_empty() { "null" } else { &text }).expect("bpftool's JSON")
}

/// Puts a map of another shape in a pin's place, with what the old one held as far as it fits.
pub(crate) fn reshape(netns: &Netns, root: &Path, shape: Shape) {
    let Shape { map, kind, value, entries } = shape;
    let pin = root.join("maps").join(map);
    let pin = pin.to_str().expect("a plain path");
    let (key_size, elements) =
        (MapInfo::from_pin(pin).expect("the map").key_size(), elements(Some(netns), pin));
    fs::remove_file(pin).expect("remove the pin");
    let (key, size, count) = (key_size.to_string(), value.to_string(), entries.to_string());
    let create =
        ["map", "create", pin, "type", kind, "key", &key, "value", &size, "entries", &count, "name", map];
    bpftool(Some(netns), &create);
    let fitting = elements.into_iter().map(|(key, mut bytes)| {
        bytes.resize(value, 0);
        (key, bytes)
    });
    write(Some(netns), pin, fitting.filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)));
}

/// The elements of a map; of a per-CPU one, those of all CPUs together, if its values are counters.
fn elements(netns: Option<&Netns>, pin: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let bytes = |value: &Value| -> Vec<u8> {
        let digits = value.as_array().expect("bytes").iter().map(|byte| byte.as_str().expect("a byte"));
        digits.map(|byte| u8::from_str_radix(byte.trim_start_matches("0x"), 16).expect("hex")).collect()
    };
    let mut elements = BTreeMap::new();
    for row in bpftool(netns, &["map", "dump", "pinned", pin]).as_array().expect("elements") {
        let value = match row["values"].as_array() {
            None if row["value"].is_array() => bytes(&row["value"]),
            // An element of a device map without a device.
            None => continue,
            Some(cpus) => cpus.iter().map(|cpu| bytes(&cpu["value"])).reduce(sum).expect("a CPU"),
        };
        elements.insert(bytes(&row["key"]), value);
    }
    elements
}

/// Adds counters.
fn sum(one: Vec<u8>, other: Vec<u8>) -> Vec<u8> {
    let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
    one.chunks(8).zip(other.chunks(8)).flat_map(|(a, b)| (number(a) + number(b)).to_ne_bytes()).collect()
}

/// Writes elements, in one process.
fn write(netns: Option<&Netns>, pin: &str, elements: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
    let text = |bytes: Vec<u8>| bytes.iter().map(|byte| format!(" 0x{byte:02x}")).collect::<String>();
    let lines = elements
        .map(|(key, value)| format!("map update pinned {pin} key{} value{}\n", text(key), text(value)));
    let batch = lines.collect::<String>();
    if !batch.is_empty() {
        expect_success(started(netns).args(["batch", "file", "-"]), Some(&batch));
    }
}

/// Every map in another shape: larger, smaller, of another type, of another size.
pub(crate) fn shapes() -> Vec<Shape> {
    let shape = |map, kind, value, entries| Shape { map, kind, value, entries };
    vec![
        shape("FDB", "array", 256, 16_384),
        shape("FDB", "array", 64, 16_384),
        // As it is, but nobody may map it into memory.
        shape("FDB", "array", 128, 16_384),
        shape("FDB", "array", 128, 32_768),
        shape("FDB", "hash", 128, 16_384),
        shape("FDB_USED", "array", 16, 1),
        shape("SETTINGS", "array", 32, 1),
        shape("PORTS", "array", 24, 1024),
        shape("PORTS", "hash", 16, 2048),
        shape("INTERFACES", "array", 8, 16_384),
        // As the version before had it, but nobody may map it into memory.
        shape("INTERFACES", "array", 8, 8192),
        shape("SOURCES", "hash", 16, 8192),
        shape("COUNTERS", "percpu_array", 256, 1024),
        shape("COUNTERS", "array", 64, 1024),
        shape("DEVMAP", "devmap", 4, 1024),
        shape("DEVMAP", "devmap", 8, 2048),
        shape("PRESENT", "devmap", 4, 1024),
        shape("RECORDS", "array", 160, 1024),
        shape("IDENTITY", "array", 40, 1),
        shape("IDENTITY", "array", 24, 1),
    ]
}

/// Those of maps that the version before did not have.
pub(crate) fn new_shapes() -> Vec<Shape> {
    let shape = |map, kind, value, entries| Shape { map, kind, value, entries };
    vec![
        // Nobody may map it into memory.
        shape("STATES", "array", 8, 1024),
        shape("GENERATION", "array", 16, 1),
        shape("VERDICTS", "percpu_array", 64, 512),
        shape("LISTS", "array", 8, 4),
        shape("MEMBERS", "array", 8, 32_768),
        shape("FILTERS", "hash", 8, 16_384),
    ]
}

/// Makes a switch that is up what ABI 1 made: there the FDB was a hash map, nothing counted its keys, no map had the ports'
/// interfaces, and the identity ended before the FDB's shape. Returns where it is now.
pub(crate) fn to_v1(netns: &Netns, name: &str) -> PathBuf {
    let second = age(name);
    let root = root(1, name);
    rename(&second, &root);
    let (shape, sets) = sets(&root);
    assert_eq!(shape.max, DEFAULT_FDB_MAX);
    let pin = |map| root.join("maps").join(map);
    for map in ["FDB", "FDB_USED", "PRESENT"] {
        fs::remove_file(pin(map)).expect("remove the pin");
    }
    let fdb = pin("FDB");
    let fdb = fdb.to_str().expect("a plain path");
    let entries = shape.max.to_string();
    bpftool(
        Some(netns),
        &["map", "create", fdb, "type", "hash", "key", "8", "value", "8", "entries", &entries, "name", "FDB"],
    );
    let known = sets.values().flat_map(Set::entries);
    let bytes = |(key, entry)| {
        (bytemuck::bytes_of::<FdbKey>(&key).to_vec(), bytemuck::bytes_of::<FdbEntry>(&entry).to_vec())
    };
    write(Some(netns), fdb, known.map(bytes));
    reshape(netns, &root, Shape { map: "IDENTITY", kind: "array", value: 32, entries: 1 });
    root
}

/// A map of one kind of values, as words of the machine.
pub(crate) fn array<T: Pod, const WORDS: usize>(root: &Path, map: &str) -> Array<MapData, [u64; WORDS]> {
    const { assert!(WORDS * size_of::<u64>() == size_of::<T>(), "as many words as the value has") };
    let data = MapData::from_pin(root.join("maps").join(map)).expect("open the map");
    Array::try_from(Map::Array(data)).expect("an array")
}

/// The FDB of this build, by set.
pub(crate) fn sets(root: &Path) -> (FdbShape, BTreeMap<u32, Set>) {
    let identity = array::<Identity, { size_of::<Identity>() / 8 }>(root, "IDENTITY");
    let shape = bytemuck::cast::<_, Identity>(identity.get(&0, 0).expect("read the identity")).fdb();
    let table = array::<Set, { size_of::<Set>() / 8 }>(root, "FDB");
    let set = |set| (set, bytemuck::cast(table.get(&set, 0).expect("read the FDB")));
    (shape, (0..shape.sets()).map(set).collect())
}

/// Lets the FDB have learned so many addresses of a port in slot 2. No frame may flow meanwhile.
pub(crate) fn fill(root: &Path, learned: u32) {
    let (shape, before) = sets(root);
    // As old as the youngest.
    let stamps = before.values().flat_map(|set| set.ways.map(|way| way.entry.stamp()));
    let now = stamps.max().expect("a set");
    let entries = (0..learned).map(|number| {
        let [_, x, y, z] = number.to_be_bytes();
        (FdbKey { mac: MacAddr([2, 0xfd, 0xb1, x, y, z]), vlan: 0 }, FdbEntry::new(2, 0, now))
    });
    let mut after = before.clone();
    table::fill(&mut after, shape, entries);
    let mut table = array::<Set, { size_of::<Set>() / 8 }>(root, "FDB");
    for (number, set) in after.into_iter().filter(|(number, set)| before[number] != *set) {
        table.set(number, bytemuck::cast::<_, [u64; size_of::<Set>() / 8]>(set), 0).expect("write the FDB");
    }
    let mut used = array::<u64, 1>(root, "FDB_USED");
    let [keys] = used.get(&0, 0).expect("read the count of keys");
    used.set(0, [keys + u64::from(learned)], 0).expect("write the count of keys");
}
