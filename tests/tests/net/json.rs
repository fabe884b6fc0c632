//! Is what `-j` prints the contract that scripts rely on?

use std::process::{Command, Output};

use serde_json::{Value, json};
use vswitch_tests::{
    hosts::Hosts,
    lab::{HOST, Lab, Outside, UPLINK},
    model::FLAGS,
    require,
    require::{NAMESPACES, Need},
    topo::{Netns, expect_success},
    vswitch::{self, Vswitch},
};

const NEEDS: &[Need] = &[Need::Tool("jq")];
/// Besides the flags.
const PORT: &str = "datapath faults filters ifindex ifname mac mode notes promisc role source state";
const FDB: &str = "age ifname mac type vlan";
const STATS: &str = "drops fdb_full forwarded host ifname rx tx";
const DROPS: &str = "invalid_source isolated malformed mtu_exceeded no_receiver pause port_down private reflected \
                     same_port spoofed_source";
const SHOW: &str =
    "abi ageing build datapaths faults fdb_max fdb_used host_access macvlan_compat name netns ports";
const OP: &str = "done op";
const EXPORT: &str = "ageing fdb fdb_max host_access macvlan_compat name port";
/// Besides the flags.
const EXPORT_PORT: &str = "datapath mac mode name netns peer role source tap";

fn hosts() -> Hosts<Vswitch> {
    Hosts::new(Vswitch::new().datapath("b", "xdp"), Lab::new(Outside::Station, &["a", "b"]))
}

/// A port's keys: these and its flags'.
fn with_flags(keys: &str) -> String {
    let mut keys: Vec<&str> = keys.split(' ').chain(FLAGS.map(|(name, _)| name)).collect();
    keys.sort_unstable();
    keys.join(" ")
}

/// What `vswitch -j ARGS` prints, after `jq` has found an array of objects in it that all have these keys.
fn rows(hosts: &Hosts<Vswitch>, args: &str, keys: &str) -> Vec<Value> {
    let output = hosts.vswitch(&format!("-j {args}"));
    objects(args, &output, keys)
}

fn objects(args: &str, output: &Output, keys: &str) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let filter = "if type == \"array\" then .[] | keys | join(\" \") else error(\"no array\") end";
    let found = expect_success(Command::new("jq").args(["-r", filter]), Some(&text));
    for row in found.lines() {
        assert_eq!(row, keys, "the keys of vswitch -j {args}");
    }
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

fn keys(value: &Value) -> String {
    value.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_table_is_an_array_of_objects_with_the_keys_of_the_contract() {
    require!(NAMESPACES);
    require!(NEEDS);
    let hosts = hosts();
    hosts.await_ping("a", HOST);
    hosts.vswitch("fdb add 02:00:00:00:77:01 h0 --static");

    let ports = rows(&hosts, "port show", &with_flags(PORT));
    let column = |key: &str| ports.iter().map(|port| port[key].clone()).collect::<Vec<_>>();
    assert_eq!(column("ifname"), [UPLINK, "h0", "h1"]);
    assert_eq!(column("role"), ["uplink", "downlink", "downlink"]);
    assert_eq!(column("mode"), ["bridge"; 3]);
    assert_eq!(column("state"), ["forwarding"; 3]);
    assert_eq!(column("datapath"), ["tc", "tc", "xdp"]);
    assert_eq!(column("ifindex")[1], hosts.lab.switch.ifindex("h0"));
    assert_eq!(rows(&hosts, "port show h0", &with_flags(PORT)), ports[1..2]);

    let entries = rows(&hosts, "fdb show", FDB);
    let of_kind = |kind: &str| entries.iter().filter(|entry| entry["type"] == kind).collect::<Vec<_>>();
    let [local] = of_kind("local")[..] else { panic!("{entries:?}") };
    assert_eq!((&local["ifname"], &local["age"]), (&json!("host"), &Value::Null));
    let [fixed] = of_kind("static")[..] else { panic!("{entries:?}") };
    let expected =
        json!({"mac": "02:00:00:00:77:01", "vlan": 0, "ifname": "h0", "type": "static", "age": null});
    assert_eq!(*fixed, expected);
    let learned = of_kind("learned");
    assert!(learned.len() >= 2 && learned.iter().all(|entry| entry["age"].is_u64()), "{learned:?}");
    assert_eq!(rows(&hosts, "fdb get 02:00:00:00:77:01", FDB), [expected]);
    assert_eq!(rows(&hosts, "fdb show host", FDB).len(), 1);

    let stats = rows(&hosts, "stats", STATS);
    let names: Vec<_> = stats.iter().map(|row| row["ifname"].clone()).collect();
    assert_eq!(names, [UPLINK, "h0", "h1", "host"]);
    for row in &stats {
        assert_eq!(
            (keys(&row["rx"]), keys(&row["tx"])),
            ("bytes packets".into(), "bytes errors packets".into())
        );
        assert_eq!(keys(&row["drops"]), DROPS);
        // Each frame is counted once, at the step that decides.
        let number = |path: &str| row.pointer(path).and_then(Value::as_u64).unwrap();
        let dropped: u64 = row["drops"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(number("/rx/packets"), number("/forwarded") + number("/host") + dropped, "{row}");
        assert!(number("/rx/packets") > 0, "{row}");
    }
    assert_eq!(rows(&hosts, "stats h1", STATS).len(), 1);

    let [show] = &rows(&hosts, "show", SHOW)[..] else { panic!("one switch") };
    assert_eq!(show["name"], hosts.switch.name);
    assert_eq!(
        show["ports"],
        json!({"count": 3, "uplinks": 1, "downlinks": 2, "forwarding": 3, "degraded": 0})
    );
    assert_eq!(show["datapaths"], json!({"tc": 2, "xdp": 1}));

    let keys_of_port = with_flags(EXPORT_PORT);
    let [export] = &rows(&hosts, "export", EXPORT)[..] else { panic!("one switch") };
    assert!(export["port"].as_array().unwrap().iter().all(|port| keys(port) == keys_of_port), "{export}");
    assert_eq!(export["fdb"], json!([{"mac": "02:00:00:00:77:01", "port": "h0", "vlan": 0}]));
}

#[test]
fn every_change_is_told_as_operations() {
    require!(NAMESPACES);
    require!(NEEDS);
    let lab = Lab::new(Outside::Nothing, &["a", "b"]);
    lab.downlinks().for_each(|member| lab.cable(&member.name));
    let hosts = Hosts { switch: Vswitch::new(), lab };
    let changes = [
        ("up --ageing 60 h0", 2),
        ("port add h1", 1),
        ("port set h1 --isolated on", 1),
        ("port set h1 --isolated on", 0),
        ("fdb add 02:00:00:00:77:01 h0 --static", 1),
        ("fdb del 02:00:00:00:77:01", 1),
        ("port del h1", 1),
        ("down", 1),
    ];
    for (args, count) in changes {
        let ops = rows(&hosts, args, OP);
        assert_eq!(ops.len(), count, "{args}: {ops:?}");
        assert!(ops.iter().all(|op| op["done"] == true && op["op"].is_string()), "{args}: {ops:?}");
    }
}

#[test]
fn exit_codes_tell_done_from_failed_from_wrong() {
    require!(NAMESPACES);
    let hosts = hosts();
    let cases = [
        ("show", 0),
        ("po sh", 0),
        ("-j p sh h0", 0),
        ("p s h0", 2),
        ("f g 02:00:00:00:00:fe", 0),
        ("port", 0),
        ("fdb", 0),
        ("fdb get 02:00:00:00:99:99", 1),
        ("port show nosuch", 1),
        ("port del nosuch", 1),
        ("stats nosuch", 1),
        ("up h0", 1),
        ("port set h0", 2),
        ("port set h0 --isolated maybe", 2),
        ("fdb get no-mac", 2),
        ("nosuch", 2),
        ("apply /nonexistent.toml", 1),
    ];
    for (args, code) in cases {
        let output = vswitch::command(&hosts.lab.switch, &hosts.switch.name, args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "vswitch {args}: {stderr}");
        assert_eq!(stderr.lines().count(), usize::from(code != 0), "vswitch {args}: {stderr}");
    }
}

#[test]
fn abbreviations_say_what_the_whole_words_say() {
    require!(NAMESPACES);
    let hosts = hosts();
    for (short, long) in [("po sh", "port show"), ("po", "port show"), ("exp", "export"), ("sh", "show")] {
        assert_eq!(hosts.vswitch(short).stdout, hosts.vswitch(long).stdout, "{short}");
    }
}

#[test]
fn a_port_with_its_own_veth_or_tap_comes_and_goes_with_it() {
    require!(NAMESPACES);
    let hosts = hosts();
    let web = Netns::new("web");
    let switch = &hosts.lab.switch;
    hosts.vswitch(&format!("port add web0 --netns {} --peer eth7 --mac 02:00:00:00:77:07", web.name()));
    let far = web.ip("-o link show eth7");
    assert!(far.contains("02:00:00:00:77:07") && far.contains(",UP"), "{far}");
    web.ip("address add 10.9.0.77/24 dev eth7");
    assert_eq!(hosts.json("port show web0")[0]["mac"], json!(["02:00:00:00:77:07"]));
    hosts.await_ping("a", "b");
    hosts.ping_address("a", "10.9.0.77", "-c 5 -i 0.01 -W 1").assert_all("pings to a port with its own veth");
    hosts.vswitch("port add vm0 --tap");
    assert!(switch.ip("-d -o link show vm0").contains("tun type tap"));
    for ifname in ["web0", "vm0"] {
        hosts.vswitch(&format!("port del {ifname}"));
        assert!(switch.find_ifindex(ifname).is_none(), "{ifname} is left");
    }
    assert!(web.find_ifindex("eth7").is_none());
    hosts.vswitch("port del h0");
    assert!(switch.find_ifindex("h0").is_some(), "an interface that was there before stays");
    hosts.vswitch("port add h0");
    hosts.await_ping("b", "a");
}
