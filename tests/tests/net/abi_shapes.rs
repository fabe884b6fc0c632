//! How is a switch made of this build's one that another build might have made? Older, with maps of other shapes and with
//! fewer of them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapInfo};
use bytemuck::Pod;
use serde_json::Value;
use vswitch::dataplane::ledger::Identity;
use vswitch_ebpf::{
    abi::{ABI_VERSION, DEFAULT_FDB_MAX, FdbEntry, FdbKey, fdb_flags},
    fdb::{Set, Shape as FdbShape},
    frame::MacAddr,
};
use vswitch_tests::{
    fdb as table,
    require::Need,
    topo::{Netns, expect_success},
};

pub(crate) const BPFTOOL: &[Need] = &[Need::Tool("bpftool")];

/// The version before this build's. Its maps are whatever a test makes them.
pub(crate) const BEFORE: u32 = ABI_VERSION - 1;

pub(crate) fn root(version: u32, name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/vswitch").join(format!("v{version}")).join(name)
}

/// Makes a switch that is up one of another ABI: as far as anybody can tell, a build of that version has made it. Returns
/// where it is now.
pub(crate) fn age(name: &str) -> PathBuf {
    let to = root(BEFORE, name);
    rename(&root(ABI_VERSION, name), &to);
    to
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

/// In the switch's namespace, where a device map's elements mean something.
fn bpftool(netns: &Netns, args: &[&str]) -> Value {
    let text = expect_success(netns.command("bpftool").arg("-j").args(args), None);
    serde_json::from_str(if text.trim().is_empty() { "null" } else { &text }).expect("bpftool's JSON")
}

/// Puts a map of another shape in a pin's place, with what the old one held as far as it fits.
pub(crate) fn reshape(netns: &Netns, root: &Path, shape: Shape) {
    let Shape { map, kind, value, entries } = shape;
    let pin = root.join("maps").join(map);
    let pin = pin.to_str().expect("a plain path");
    let (key_size, elements) = (MapInfo::from_pin(pin).expect("the map").key_size(), elements(netns, pin));
    fs::remove_file(pin).expect("remove the pin");
    let (key, size, count) = (key_size.to_string(), value.to_string(), entries.to_string());
    let create =
        ["map", "create", pin, "type", kind, "key", &key, "value", &size, "entries", &count, "name", map];
    bpftool(netns, &create);
    let fitting = elements.into_iter().map(|(key, mut bytes)| {
        bytes.resize(value, 0);
        (key, bytes)
    });
    write(netns, pin, fitting.filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)));
}

/// The elements of a map; of a per-CPU one, those of all CPUs together, if its values are counters.
fn elements(netns: &Netns, pin: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
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
fn write(netns: &Netns, pin: &str, elements: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
    let text = |bytes: Vec<u8>| bytes.iter().map(|byte| format!(" 0x{byte:02x}")).collect::<String>();
    let lines = elements
        .map(|(key, value)| format!("map update pinned {pin} key{} value{}\n", text(key), text(value)));
    let batch = lines.collect::<String>();
    if !batch.is_empty() {
        expect_success(netns.command("bpftool").args(["batch", "file", "-"]), Some(&batch));
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
        shape("SOURCES", "hash", 8, 8192),
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

/// Makes a switch that is up what ABI 1 made: there the FDB was a hash map, nothing counted its keys, no map had the ports'
/// interfaces, and the identity ended before the FDB's shape. Returns where it is now.
pub(crate) fn to_v1(netns: &Netns, name: &str) -> PathBuf {
    const { assert!(BEFORE == 1, "a version that came after this helper has its own differences") };
    let root = age(name);
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
        netns,
        &["map", "create", fdb, "type", "hash", "key", "8", "value", "8", "entries", &entries, "name", "FDB"],
    );
    let known = sets.values().flat_map(Set::entries);
    let bytes = |(key, entry)| {
        (bytemuck::bytes_of::<FdbKey>(&key).to_vec(), bytemuck::bytes_of::<FdbEntry>(&entry).to_vec())
    };
    write(netns, fdb, known.map(bytes));
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

/// Fills the FDB with so many learned and static entries, of a port in slot 2. No frame may flow meanwhile.
pub(crate) fn fill(root: &Path, learned: u32, fixed: u32) {
    let (shape, before) = sets(root);
    // As old as the youngest.
    let stamps = before.values().flat_map(|set| set.ways.map(|way| way.entry.stamp()));
    let now = stamps.max().expect("a set");
    let entries = (0..learned + fixed).map(|number| {
        let [_, x, y, z] = number.to_be_bytes();
        let flags = if number < fixed { fdb_flags::STATIC } else { 0 };
        let mac = MacAddr([2, 0xfd, 0xb0, x, y, z]);
        (FdbKey { mac, vlan: 0 }, FdbEntry::new(2, flags, now))
    });
    let mut after = before.clone();
    table::fill(&mut after, shape, entries);
    let mut table = array::<Set, { size_of::<Set>() / 8 }>(root, "FDB");
    for (number, set) in after.into_iter().filter(|(number, set)| before[number] != *set) {
        table.set(number, bytemuck::cast::<_, [u64; size_of::<Set>() / 8]>(set), 0).expect("write the FDB");
    }
    let mut used = array::<u64, 1>(root, "FDB_USED");
    let [keys] = used.get(&0, 0).expect("read the count of keys");
    used.set(0, [keys + u64::from(learned + fixed)], 0).expect("write the count of keys");
}
