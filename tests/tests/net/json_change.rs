//! Does each change do what it says, once, and only that: flags, files, entries?

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vswitch_tests::{
    hosts::{Hosts, Killed},
    lab::{Lab, Outside},
    model::FLAGS,
    require,
    require::{NAMESPACES, Need},
    topo::expect_success,
    vswitch::{self, Vswitch},
};

fn hosts() -> Hosts<Vswitch> {
    Hosts::new(Vswitch::new().datapath("b", "xdp"), Lab::new(Outside::Station, &["a", "b"]))
}

/// `vswitch ARGS` with a text as its standard input.
fn with_input(hosts: &Hosts<Vswitch>, args: &str, input: &str) -> String {
    expect_success(&mut vswitch::command(&hosts.lab.switch, &hosts.switch.name, args), Some(input))
}

fn export(hosts: &Hosts<Vswitch>) -> String {
    String::from_utf8(hosts.vswitch("export").stdout).unwrap()
}

/// The kernel's numbers of the switch's links: another number is another link, and frames passed in between.
fn links(hosts: &Hosts<Vswitch>) -> Vec<(String, u64)> {
    let dir = vswitch::pins(&hosts.switch.name).join("links");
    let mut links: Vec<_> = fs::read_dir(dir)
        .expect("the switch's links")
        .flatten()
        .map(|pin| {
            let mut command = Command::new("bpftool");
            let text = expect_success(command.args(["-j", "link", "show", "pinned"]).arg(pin.path()), None);
            let json: Value = serde_json::from_str(&text).expect("bpftool's JSON");
            (pin.file_name().into_string().unwrap(), json["id"].as_u64().expect("an id"))
        })
        .collect();
    links.sort();
    links
}

#[test]
fn every_port_setting_comes_back_as_it_was_set() {
    require!(NAMESPACES);
    require!(&[Need::Tool("bpftool")]);
    let hosts = hosts();
    let before = links(&hosts);
    for (key, _) in FLAGS.into_iter().filter(|(key, _)| *key != "nodst") {
        for ifname in ["h0", "h1", "nic0"] {
            let flag = key.replace('_', "-");
            let get = || hosts.json(&format!("port show {ifname}"))[0].clone();
            let mut expected = get();
            let default = expected[key].as_bool().unwrap();
            for value in [!default, default] {
                let word = if value { "on" } else { "off" };
                let ops = hosts.json(&format!("port set {ifname} --{flag} {word}"));
                assert_eq!(ops.as_array().unwrap().len(), 1, "{ops}");
                expected[key] = value.into();
                assert_eq!(get(), expected, "after {ifname} --{flag} {word}");
            }
        }
    }
    hosts.vswitch("port set h0 --mac 02:00:00:00:77:02 --mac 02:00:00:00:77:01");
    assert_eq!(hosts.json("port show h0")[0]["mac"], json!(["02:00:00:00:77:02", "02:00:00:00:77:01"]));
    assert_eq!(hosts.json("fdb get 02:00:00:00:77:02")[0]["ifname"], "h0");
    hosts.vswitch("port set h0 --mac 02:00:00:00:77:03");
    assert_eq!(hosts.json("port show h0")[0]["mac"], json!(["02:00:00:00:77:03"]));
    assert_eq!(links(&hosts), before, "settings are not worth a link");
    hosts.ping("a", "b", "-c 5 -i 0.01 -W 1").assert_all("pings after all is as it was");

    for datapath in ["tc", "xdp", "auto"] {
        hosts.vswitch(&format!("port set h0 --datapath {datapath}"));
        let expected = if datapath == "auto" { "tc" } else { datapath };
        assert_eq!(hosts.json("port show h0")[0]["datapath"], expected);
        hosts.await_ping("a", "b");
        hosts.ping("a", "b", "-c 5 -i 0.01 -W 1").assert_all("pings by another datapath");
    }
}

#[test]
fn a_file_applied_twice_changes_nothing_and_touches_no_link() {
    require!(NAMESPACES);
    require!(&[Need::Tool("bpftool")]);
    let hosts = hosts();
    hosts.vswitch("port set h1 --isolated on --flood off --mac 02:00:00:00:77:02 --mac 02:00:00:00:77:01");
    hosts.vswitch("fdb add 02:00:00:00:77:09 h0 --static");
    hosts.vswitch("port add vm0 --tap");
    let (file, before) = (export(&hosts), links(&hosts));
    for _ in 0..2 {
        assert_eq!(with_input(&hosts, "-j apply -", &file), "[]\n");
        assert_eq!((export(&hosts), links(&hosts)), (file.clone(), before.clone()));
    }
    assert_eq!(with_input(&hosts, "apply -", &file), "nothing to do\n");

    // What differs is told, by a dry run before it is done, and undone by the first file.
    let other = file
        .replace("learning = true", "learning = false")
        .replace("name = \"h0\"", "name = \"h0\"\nhairpin = true");
    let plan = with_input(&hosts, "-j apply - --dry-run", &other);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan.as_array().unwrap().len(), 2, "{plan}");
    assert!(plan.as_array().unwrap().iter().all(|op| op["done"] == false), "{plan}");
    assert_eq!((export(&hosts), links(&hosts)), (file.clone(), before.clone()), "a dry run changes nothing");
    let done: Value = serde_json::from_str(&with_input(&hosts, "-j apply -", &other)).unwrap();
    let ops = |rows: &Value| rows.as_array().unwrap().iter().map(|op| op["op"].clone()).collect::<Vec<_>>();
    assert_eq!(ops(&done), ops(&plan), "what is done is what the dry run said");
    assert_eq!(hosts.json("port show h0")[0]["hairpin"], true);
    with_input(&hosts, "apply -", &file);
    assert_eq!((export(&hosts), links(&hosts)), (file, before), "settings are not worth a link");
}

#[test]
fn an_exported_switch_comes_back_whole() {
    require!(NAMESPACES);
    let hosts = hosts();
    hosts.vswitch("port set h1 --isolated on --mcast-flood off --mac 02:00:00:00:77:01");
    hosts.vswitch("fdb add 02:00:00:00:77:09 h0 --static");
    hosts.vswitch("port add vm0 --tap");
    let web = vswitch_tests::topo::Netns::new("web");
    hosts.vswitch(&format!("port add web0 --netns {} --peer lan0 --hairpin on", web.name()));
    let file = export(&hosts);
    let tables = || {
        let ports = hosts.json("port show");
        let keys = ["ifname", "role", "mode", "datapath", "hairpin", "isolated", "mcast_flood", "flood"];
        let rows = ports.as_array().unwrap().iter();
        rows.map(|port| keys.map(|key| port[key].clone())).collect::<Vec<_>>()
    };
    let before = tables();
    hosts.vswitch("down");
    assert!(web.find_ifindex("lan0").is_none());
    with_input(&hosts, "apply -", &file);
    assert_eq!(export(&hosts), file);
    assert_eq!(tables(), before);
    assert!(web.find_ifindex("lan0").is_some());
    hosts.await_ping("a", "b");
    hosts.ping("ext", "b", "-c 5 -i 0.01 -W 1").assert_all("pings through a switch that is back");
    assert!(with_input(&hosts, "check -", &file).contains("valid"));
}

#[test]
fn entries_are_added_found_deleted_and_flushed() {
    require!(NAMESPACES);
    let hosts = hosts();
    let get = |mac: &str| {
        let args = format!("-j fdb get {mac}");
        let output = vswitch::command(&hosts.lab.switch, &hosts.switch.name, &args).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).ok().map(|rows| rows[0].clone())
    };
    let (aged, fixed) = ("02:00:00:00:77:01", "02:00:00:00:77:02");
    let added = Instant::now();
    hosts.vswitch(&format!("fdb add {aged} h0"));
    hosts.vswitch(&format!("fdb add {fixed} h0 --static"));
    let entry = get(aged).unwrap();
    assert_eq!((&entry["type"], &entry["ifname"]), (&json!("learned"), &json!("h0")));
    let age = entry["age"].as_u64().unwrap();
    assert!(age <= added.elapsed().as_secs(), "{age} s old after {:?}", added.elapsed());
    assert_eq!(get(fixed).unwrap()["type"], "static");
    // What ages moves where it is said to, what is bound stays where it is until it is released.
    hosts.vswitch(&format!("fdb add {aged} h1"));
    assert_eq!(get(aged).unwrap()["ifname"], "h1");
    hosts.vswitch(&format!("fdb add {aged} h0"));
    let bound =
        vswitch::command(&hosts.lab.switch, &hosts.switch.name, &format!("fdb add {fixed} h1 --static"));
    assert_eq!({ bound }.output().unwrap().status.code(), Some(1));
    assert_eq!(get(fixed).unwrap()["ifname"], "h0");

    assert_eq!(hosts.json("fdb flush h1")[0]["removed"].as_u64(), Some(1), "b was learned there");
    assert!(get(aged).is_some() && get(fixed).is_some());
    assert!(hosts.json("fdb flush")[0]["removed"].as_u64().unwrap() >= 1);
    assert!(get(aged).is_none() && get(fixed).is_some());
    assert_eq!(hosts.json("fdb show host").as_array().unwrap().len(), 1, "the host's own stays");
    hosts.vswitch(&format!("fdb del {fixed}"));
    assert!(get(fixed).is_none());
    hosts.ping("a", "b", "-c 5 -i 0.01 -W 1").assert_all("pings after a flush");
}

#[test]
fn stats_are_told_anew_every_second() {
    require!(NAMESPACES);
    let hosts = hosts();
    let mut command = vswitch::command(&hosts.lab.switch, &hosts.switch.name, "-j stats h0 --watch 1");
    let mut watch = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut packets = || {
        let rows: Value = serde_json::from_str(&lines.next().expect("another reading")).unwrap();
        rows[0]["rx"]["packets"].as_u64().unwrap()
    };
    let started = Instant::now();
    let first = packets();
    hosts.ping("a", "b", "-c 10 -i 0.01 -W 1").assert_all("pings");
    let second = packets();
    packets();
    let elapsed = started.elapsed();
    assert!(second >= first + 10, "{first} and then {second}");
    assert!(Duration::from_millis(1500) < elapsed && elapsed < Duration::from_secs(10), "{elapsed:?}");
    vswitch_tests::hosts::signal(&watch.0, libc::SIGINT);
    assert!(watch.0.wait().unwrap().success(), "Ctrl-C is how it ends");
}
