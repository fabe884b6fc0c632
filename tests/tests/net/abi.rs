//! Is what another build has pinned ever used unchecked, and is its state kept? Its maps are larger, smaller, of other
//! types: what may be read is carried over, what may not be is refused.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::maps::{Array, Map, MapData, MapInfo};
use serde_json::Value;
use vswitch_ebpf::{
    abi::{ABI_VERSION, FdbEntry, FdbKey, Identity, fdb_flags},
    fdb::Set,
    frame::MacAddr,
};
use vswitch_tests::{
    campaign, fdb as table,
    hosts::{Hosts, until},
    lab::{Lab, OUTSIDE, Outside, STATION_IF},
    require,
    require::{NAMESPACES, Need},
    sequence::{Place, Sequence},
    topo::{Netns, expect_success},
    vswitch::{self, Vswitch},
};

use crate::bad_input::{Bench, NEEDS};

pub(crate) const BPFTOOL: &[Need] = &[Need::Tool("bpftool")];

/// The version before this build's. Its maps are whatever a test makes them.
const BEFORE: u32 = ABI_VERSION - 1;

fn root(version: u32, name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/vswitch").join(format!("v{version}")).join(name)
}

/// Makes a switch that is up one of another ABI: as far as anybody can tell, a build of that version has made it. Returns
/// where it is now.
pub(crate) fn age(name: &str) -> PathBuf {
    let (from, to) = (root(ABI_VERSION, name), root(BEFORE, name));
    fs::create_dir_all(to.parent().expect("a parent")).expect("make the older version's directory");
    fs::rename(from, &to).expect("make the switch an older one");
    to
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
fn shapes() -> Vec<Shape> {
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

#[test]
fn a_map_of_another_shape_is_never_used() {
    require!(NEEDS);
    require!(BPFTOOL);
    for shape in shapes() {
        let bench = Bench::up();
        reshape(&bench.machine, &root(ABI_VERSION, &bench.name), shape);
        for command in ["show", "port set h2 --flood off", "upgrade", "run"] {
            let output = bench.command(command).output().expect("start vswitch");
            let said = String::from_utf8_lossy(&output.stderr);
            if matches!(shape.map, "DEVMAP" | "FDB_USED" | "PRESENT") && command == "show" {
                // It does not open them.
                continue;
            }
            assert_eq!(output.status.code(), Some(1), "{shape:?}: {command}: {said}");
            let what = format!("incomplete: its map {} is not this build's (its ", shape.map);
            assert!(said.contains(&what) && said.lines().count() == 1, "{shape:?}: {command}: {said}");
        }
    }
}

#[test]
fn a_switch_of_another_abi_is_told_of_and_not_touched() {
    require!(NEEDS);
    let bench = Bench::up();
    let name = &bench.name;
    let older = age(name);
    let line = format!(
        r#"switch "{name}": was made by another build (ABI {BEFORE}, this one has {ABI_VERSION}): let it go over to this one with `vswitch -s {name} upgrade`"#
    );
    for command in
        ["show", "port", "port set h2 --flood off", "fdb flush", "stats", "export", "up h4", "down"]
    {
        bench.refuses(command, 1, &line);
    }
    let newer = root(ABI_VERSION + 1, name);
    fs::create_dir_all(newer.parent().unwrap()).unwrap();
    fs::rename(&older, &newer).unwrap();
    let line = format!(
        r#"switch "{name}": was made by a newer build (ABI {}, this one has {ABI_VERSION}): use that one"#,
        ABI_VERSION + 1
    );
    for command in ["show", "up h4", "upgrade", "down"] {
        bench.refuses(command, 1, &line);
    }
    // It leaves its lock, as it does where it has run.
    let run = bench.command("run").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&run.stderr), format!("vswitch: {line}\n"));
    fs::create_dir_all(older.parent().unwrap()).unwrap();
    fs::rename(&newer, &older).unwrap();
    // Other tests may have theirs beside it.
    let _others = fs::remove_dir(newer.parent().unwrap());
    bench.run("upgrade");
    assert_eq!(String::from_utf8_lossy(&bench.run("upgrade").stdout), "nothing to do\n");
    bench.run("down");
    bench.assert_gone();
    assert!(!older.exists());
}

fn hosts() -> Hosts<Vswitch> {
    let switch = Vswitch::new().datapath("b", "xdp").datapath("c", "xdp");
    Hosts::new(switch, Lab::new(Outside::Station, &["a", "b", "c"]))
}

const STATIONS: [&str; 4] = ["a", "b", "c", OUTSIDE];

fn load(hosts: &Hosts<Vswitch>) -> Sequence {
    let place = |name| {
        let member = hosts.lab.member(name);
        Place { netns: &member.netns, ifname: STATION_IF, mac: member.mac }
    };
    let places: Vec<_> = STATIONS.into_iter().map(place).collect();
    Sequence::start(&places, &[(0, 1), (1, 2), (2, 1), (2, 3), (3, 0), (0, 3), (1, 0)])
}

/// Address -> port, kind.
fn fdb(hosts: &Hosts<Vswitch>) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = hosts.json("fdb show");
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["mac"]), (text(&row["ifname"]), text(&row["type"]))))
        .collect()
}

/// Fills the FDB with so many learned and static entries, of a port in slot 2. No frame may flow meanwhile.
fn fill(root: &Path, learned: u32, fixed: u32) {
    let open = |map| MapData::from_pin(root.join("maps").join(map)).unwrap();
    let identity =
        Array::<_, [u64; size_of::<Identity>() / 8]>::try_from(Map::Array(open("IDENTITY"))).unwrap();
    let shape = bytemuck::cast::<_, Identity>(identity.get(&0, 0).unwrap()).fdb();
    let mut table = Array::<_, [u64; size_of::<Set>() / 8]>::try_from(Map::Array(open("FDB"))).unwrap();
    let sets = (0..shape.sets()).map(|set| (set, bytemuck::cast(table.get(&set, 0).unwrap())));
    let before: BTreeMap<u32, Set> = sets.collect();
    // As old as the youngest.
    let stamps = before.values().flat_map(|set| set.ways.map(|way| way.entry.stamp()));
    let now = stamps.max().unwrap();
    let entries = (0..learned + fixed).map(|number| {
        let [_, x, y, z] = number.to_be_bytes();
        let flags = if number < fixed { fdb_flags::STATIC } else { 0 };
        let mac = MacAddr([2, 0xfd, 0xb0, x, y, z]);
        (FdbKey { mac, vlan: 0 }, FdbEntry::new(2, flags, now))
    });
    let mut after = before.clone();
    table::fill(&mut after, shape, entries);
    for (number, set) in after.into_iter().filter(|(number, set)| before[number] != *set) {
        table.set(number, bytemuck::cast::<_, [u64; size_of::<Set>() / 8]>(set), 0).unwrap();
    }
    let mut used = Array::<_, u64>::try_from(Map::Array(open("FDB_USED"))).unwrap();
    used.set(0, used.get(&0, 0).unwrap() + u64::from(learned + fixed), 0).unwrap();
}

#[test]
fn state_is_carried_over_whatever_shape_it_had() {
    require!(NAMESPACES);
    require!(BPFTOOL);
    let hosts = hosts();
    let name = &hosts.switch.name;
    hosts.vswitch("fdb add 02:00:00:00:77:01 h0 --static");
    hosts.vswitch("port set h2 --mode vepa --isolated on");
    hosts.vswitch("port set h2 --mode bridge");
    fill(&root(ABI_VERSION, name), 3000, 500);
    for shape in shapes() {
        let (config, before) = (hosts.vswitch("export").stdout, fdb(&hosts));
        let counted = |hosts: &Hosts<Vswitch>| hosts.json("stats")[0]["rx"]["packets"].as_u64().unwrap();
        let frames = counted(&hosts);
        let older = age(name);
        reshape(&hosts.lab.switch, &older, shape);
        hosts.vswitch("upgrade");
        assert!(!older.exists(), "{shape:?}");
        let exported = hosts.vswitch("export").stdout;
        assert_eq!(String::from_utf8_lossy(&exported), String::from_utf8_lossy(&config), "{shape:?}");
        let after = fdb(&hosts);
        let kept = before.iter().filter(|(mac, entry)| after.get(*mac) == Some(entry)).count();
        println!("{shape:?}: {kept} of {} FDB entries", before.len());
        assert!(kept * 100 >= before.len() * 99, "{shape:?}: {kept} of {}", before.len());
        for (mac, entry) in before.iter().filter(|(_, (_, kind))| kind != "learned") {
            assert_eq!(after.get(mac), Some(entry), "{shape:?}: {mac}");
        }
        // What the map held, which programs no longer counted in.
        assert!(counted(&hosts) >= frames, "{shape:?}: {frames} and then {}", counted(&hosts));
        for (from, to) in [("a", "b"), ("b", OUTSIDE), (OUTSIDE, "c")] {
            hosts.ping(from, to, "-c 3 -i 0.01 -W 1").assert_all(&format!("pings after {shape:?}"));
        }
    }
}

#[test]
fn going_over_to_another_abi_costs_no_frame() {
    require!(NAMESPACES);
    require!(BPFTOOL);
    let hosts = hosts();
    let name = &hosts.switch.name;
    for (from, to) in Hosts::<Vswitch>::pairs(&STATIONS) {
        hosts.await_ping(from, to);
    }
    let load = load(&hosts);
    let rounds = campaign::rounds(4, 50);
    let received = |hosts: &Hosts<Vswitch>| -> Vec<u64> {
        let rows = hosts.json("stats");
        rows.as_array().unwrap().iter().map(|row| row["rx"]["packets"].as_u64().unwrap()).collect()
    };
    let mut last = received(&hosts);
    for round in 0..rounds {
        let older = age(name);
        if round % 2 == 1 {
            // Then all that the switch has is copied, and not shared: the old programs go on with what was there.
            for (map, kind, value, entries) in [
                ("SETTINGS", "array", 32, 1),
                ("PORTS", "array", 24, 1024),
                ("INTERFACES", "array", 16, 8192),
                ("FDB", "array", 64, 16_384),
                ("RECORDS", "array", 160, 1024),
                ("DEVMAP", "devmap", 4, 1024),
            ] {
                reshape(&hosts.lab.switch, &older, Shape { map, kind, value, entries });
            }
        }
        hosts.vswitch("upgrade");
        thread::sleep(Duration::from_millis(50));
        let now = received(&hosts);
        assert!(last.iter().zip(&now).all(|(last, now)| now >= last), "{last:?} and then {now:?}");
        last = now;
    }
    let frames = campaign::number("VSWITCH_FRAMES", 0, 1_000_000);
    until("as many frames", Duration::from_secs(600), || load.sent() >= frames);
    let tally = load.finish();
    println!("{tally:?} in {rounds} rounds");
    tally.assert_whole();
}

/// The counters that a switch of another layout had go on, also when it is done twice.
#[test]
fn counters_of_another_layout_go_on() {
    require!(NAMESPACES);
    require!(BPFTOOL);
    let hosts = hosts();
    let name = &hosts.switch.name;
    let received = || hosts.json("stats h0")[0]["rx"]["packets"].as_u64().unwrap();
    for _again in 0..2 {
        hosts.ping("a", "b", "-c 20 -i 0.01 -W 1").assert_all("pings");
        let before = received();
        let older = age(name);
        reshape(
            &hosts.lab.switch,
            &older,
            Shape { map: "COUNTERS", kind: "array", value: 256, entries: 1024 },
        );
        hosts.vswitch("upgrade");
        assert_eq!(received(), before);
        hosts.ping("a", "b", "-c 20 -i 0.01 -W 1").assert_all("pings");
        assert!(received() >= before + 20);
    }
    // A port that takes the slot of another begins with nothing.
    hosts.vswitch("port del h0");
    hosts.vswitch("port add h0");
    assert!(received() < 20);
    let _one = vswitch::json(&hosts.lab.switch, name, "show");
}
