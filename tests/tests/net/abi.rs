//! Is what another build has pinned ever used unchecked, and is its state kept? Its maps are larger, smaller, of other
//! types: what may be read is carried over, what may not be is refused.

use std::{collections::BTreeMap, fs, path::PathBuf, thread, time::Duration};

use serde_json::Value;
use vswitch_ebpf::abi::ABI_VERSION;
use vswitch_tests::{
    campaign,
    hosts::{Hosts, until},
    lab::{Lab, OUTSIDE, Outside, STATION_IF},
    require,
    require::NAMESPACES,
    sequence::{Place, Sequence},
    topo::Netns,
    vswitch::{self, Vswitch},
};

use crate::{
    abi_shapes::{BEFORE, BPFTOOL, Shape, age, fill, new_shapes, rename, reshape, root, shapes, to_v1},
    bad_input::{Bench, NEEDS, TempFile, same},
};

#[test]
fn a_map_of_another_shape_is_never_used() {
    require!(NEEDS);
    require!(BPFTOOL);
    for shape in shapes().into_iter().chain(new_shapes()) {
        let bench = Bench::up();
        reshape(&bench.machine, &root(ABI_VERSION, &bench.name), shape);
        for command in ["show", "port set h2 --flood off", "upgrade", "run"] {
            let output = bench.command(command).output().expect("start vswitch");
            let said = String::from_utf8_lossy(&output.stderr);
            let unseen =
                ["DEVMAP", "FDB_USED", "PRESENT", "STATES", "GENERATION", "VERDICTS", "LISTS", "MEMBERS"];
            if unseen.contains(&shape.map) && command == "show" {
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
    require!(BPFTOOL);
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
    rename(&older, &newer);
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
    rename(&newer, &older);
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

#[test]
fn state_is_carried_over_whatever_shape_it_had() {
    require!(NAMESPACES);
    require!(BPFTOOL);
    let hosts = hosts();
    let name = &hosts.switch.name;
    hosts.vswitch("fdb add 02:00:00:00:77:01 h0 --static");
    hosts.vswitch("port set h2 --mode vepa --isolated on");
    hosts.vswitch("port set h2 --mode bridge");
    let entry = |number: u32| {
        let [_, _, y, z] = number.to_be_bytes();
        format!("\n[[fdb]]\nmac = \"02:fd:b0:00:{y:02x}:{z:02x}\"\nport = \"h0\"\n")
    };
    let exported = String::from_utf8(hosts.vswitch("export").stdout).unwrap();
    let file = TempFile::new(&(exported + &(0..500).map(entry).collect::<String>()));
    hosts.vswitch(&format!("apply {}", file.path()));
    fill(&root(ABI_VERSION, name), 3000);
    carried_over(&hosts, "ABI 1", || to_v1(&hosts.lab.switch, name));
    for shape in shapes() {
        carried_over(&hosts, &format!("{shape:?}"), || {
            let older = age(name);
            reshape(&hosts.lab.switch, &older, shape);
            older
        });
    }
}

/// Makes the switch an older one, which is then at a place of its own, and upgrades it.
fn carried_over(hosts: &Hosts<Vswitch>, what: &str, make_older: impl FnOnce() -> PathBuf) {
    let (config, before) = (hosts.vswitch("export").stdout, fdb(hosts));
    let counted = || hosts.json("stats")[0]["rx"]["packets"].as_u64().unwrap();
    let frames = counted();
    let older = make_older();
    hosts.vswitch("upgrade");
    assert!(!older.exists(), "{what}");
    let exported = hosts.vswitch("export").stdout;
    assert_eq!(String::from_utf8_lossy(&exported), String::from_utf8_lossy(&config), "{what}");
    let after = fdb(hosts);
    let kept = before.iter().filter(|(mac, entry)| after.get(*mac) == Some(entry)).count();
    println!("{what}: {kept} of {} FDB entries", before.len());
    assert!(kept * 100 >= before.len() * 99, "{what}: {kept} of {}", before.len());
    for (mac, entry) in before.iter().filter(|(_, (_, kind))| kind != "learned") {
        assert_eq!(after.get(mac), Some(entry), "{what}: {mac}");
    }
    // What the map held, which programs no longer counted in.
    assert!(counted() >= frames, "{what}: {frames} and then {}", counted());
    for (from, to) in [("a", "b"), ("b", OUTSIDE), (OUTSIDE, "c")] {
        hosts.ping(from, to, "-c 3 -i 0.01 -W 1").assert_all(&format!("pings after {what}"));
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
        match round % 3 {
            0 => drop(age(name)),
            1 => drop(to_v1(&hosts.lab.switch, name)),
            // Then all that the switch has is copied, and not shared: the old programs go on with what was there.
            _ => {
                let older = age(name);
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

/// What an older build knew by flags of its maps: the address of a far end that it had made, what is in the uplink's filter,
/// who listens to whom, and the order of a port's addresses.
#[test]
fn what_flags_said_is_known_by_intent_and_ledger() {
    require!(NEEDS);
    require!(BPFTOOL);
    let (bench, there) = (Bench::new(), Netns::new("there"));
    let filters = || bench.machine.bridge("fdb show dev h1");
    let (nobody, before) = (bench.state(), filters());
    bench.run("up --uplink h1 --ageing 77 --host-access off");
    let far = there.name();
    for add in [
        format!("w0 --netns {far}"),
        format!("w1 --netns {far} --peer eth1 --mac 02:00:00:00:09:09 --mac 02:00:00:00:09:02 --isolated on"),
        format!("w2 --netns {far} --peer eth2 --mode source --source 02:00:00:00:08:01 --nodst on"),
        "h2 --datapath xdp --mac 02:00:00:00:09:03 --learning off --flood off".to_owned(),
    ] {
        bench.run(&format!("port add {add}"));
    }
    let ports = || vswitch::json(&bench.machine, &bench.name, "port show");
    let (config, shown, filtered) = (bench.run("export").stdout, ports(), filters());
    assert_eq!(filtered.lines().count(), before.lines().count() + 5, "{filtered}");
    for to_older in [|bench: &Bench| age(&bench.name), |bench: &Bench| to_v1(&bench.machine, &bench.name)] {
        to_older(&bench);
        bench.run("upgrade");
        assert_eq!(String::from_utf8_lossy(&bench.run("export").stdout), String::from_utf8_lossy(&config));
        assert_eq!(ports(), shown);
        assert_eq!(filters(), filtered);
    }
    bench.run("port del w1");
    assert_eq!(filters().lines().count(), before.lines().count() + 3);
    bench.run("down");
    assert_eq!(filters(), before);
    same(&nobody, &bench.state(), "a switch that was another build's");
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
