//! Is a single frame lost, doubled or led astray when the controller dies or another build takes the switch over?
//!
//! The full form sends 10,000,000 frames while the controller is killed 100 times, and as many while 50 upgrades are made:
//! minutes. `VSWITCH_FRAMES` and `VSWITCH_ROUNDS` override both forms.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use aya::{
    maps::MapInfo,
    programs::{links::FdLink, links::PinnedLink, loaded_programs},
};
use serde_json::Value;
use vswitch_tests::{
    campaign,
    controller::{AT_ONCE, Controller},
    hosts::{Hosts, until},
    lab::{Lab, OUTSIDE, Outside, STATION_IF},
    require,
    require::{NAMESPACES, Need},
    sequence::{Place, Sequence},
    vswitch::{self, Vswitch, filters},
};

const STATIONS: [&str; 4] = ["a", "b", "c", OUTSIDE];
/// Among them every kind of way: tc and XDP, to the uplink and from it.
const FLOWS: [(usize, usize); 7] = [(0, 1), (1, 2), (2, 1), (2, 3), (3, 0), (0, 3), (1, 0)];

const ROUNDS: u64 = 8;
const FULL_ROUNDS: u64 = 100;

fn hosts() -> Hosts<Vswitch> {
    let switch = Vswitch::new().datapath("b", "xdp").datapath("c", "xdp");
    let hosts = Hosts::new(switch, Lab::new(Outside::Station, &["a", "b", "c"]));
    for (from, to) in Hosts::<Vswitch>::pairs(&STATIONS) {
        hosts.await_ping(from, to);
    }
    hosts
}

fn load(hosts: &Hosts<Vswitch>) -> Sequence {
    let place = |name| {
        let member = hosts.lab.member(name);
        Place { netns: &member.netns, ifname: STATION_IF, mac: member.mac }
    };
    let places: Vec<_> = STATIONS.into_iter().map(place).collect();
    Sequence::start(&places, &FLOWS)
}

/// What of the switch is in the kernel: the programs that use its FDB, the maps that those use, and its links.
fn objects(pins: &Path) -> [usize; 3] {
    let fdb = MapInfo::from_pin(pins.join("maps/FDB")).expect("the FDB").id();
    let mut maps = BTreeSet::new();
    let mut programs = 0;
    for program in loaded_programs().flatten() {
        let used = program.map_ids().ok().flatten().unwrap_or_default();
        if used.contains(&fdb) {
            programs += 1;
            maps.extend(used);
        }
    }
    [programs, maps.len(), fs::read_dir(pins.join("links")).expect("the links").count()]
}

/// The links' numbers, and what they run.
fn links(pins: &Path) -> BTreeMap<String, (u32, u32)> {
    let entries = fs::read_dir(pins.join("links")).expect("the links").flatten();
    let look = |pin: PathBuf| {
        let info = FdLink::from(PinnedLink::from_pin(pin).expect("a link")).info().expect("a link's info");
        (info.id(), info.program_id())
    };
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), look(entry.path()))).collect()
}

/// Every counter, by its place in the answer.
fn counters(hosts: &Hosts<Vswitch>) -> BTreeMap<String, u64> {
    fn walk(path: &str, value: &Value, into: &mut BTreeMap<String, u64>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    walk(&format!("{path}.{key}"), value, into);
                }
            }
            Value::Number(number) => drop(into.insert(path.to_owned(), number.as_u64().expect("a count"))),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => {}
        }
    }
    let mut counters = BTreeMap::new();
    for row in hosts.json("stats").as_array().expect("rows") {
        walk(row["ifname"].as_str().expect("a name"), row, &mut counters);
    }
    counters
}

#[track_caller]
fn assert_monotonic(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    for (name, before) in before {
        assert!(after[name] >= *before, "{name} went from {before} to {}", after[name]);
    }
}

/// The binary with an object that differs in a byte that means nothing: the last of an ELF file's identification.
pub(crate) struct OtherBuild(PathBuf);

/// Length of the identification, whose end is padding.
const EI_NIDENT: usize = 16;

impl OtherBuild {
    pub(crate) fn new() -> Self {
        let object = env::var_os("VSWITCH_BPF_OBJECT").expect("VSWITCH_BPF_OBJECT");
        let object = fs::read(object).expect("read the object");
        let mut binary = fs::read(vswitch::binary()).expect("read the binary");
        let found = binary.windows(object.len()).position(|window| window == object);
        binary[found.expect("the object is in the binary") + EI_NIDENT - 1] ^= 1;
        let path = env::temp_dir().join(format!("{}-other", vswitch::unique_name()));
        fs::write(&path, binary).expect("write the other build");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
        Self(path)
    }

    /// `vswitch ARGS` of this build.
    pub(crate) fn command(&self, netns: &vswitch_tests::topo::Netns, name: &str, args: &str) -> Command {
        let mut command = netns.command(&self.0);
        command.args(["-s", name]).args(args.split_whitespace());
        command
    }
}

impl Drop for OtherBuild {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

const OBJECT: &[Need] = &[Need::FileIn("VSWITCH_BPF_OBJECT")];

/// Does `round` so often, under load, and looks after each.
fn under_load(hosts: &Hosts<Vswitch>, rounds: u64, mut round: impl FnMut(u64)) {
    let pins = vswitch::pins(&hosts.switch.name);
    let before = objects(&pins);
    let first = counters(hosts);
    let mut last = first.clone();
    let load = load(hosts);
    let frames = campaign::number("VSWITCH_FRAMES", 0, 10_000_000);
    for number in 0..rounds {
        round(number);
        // Programs go by a work queue.
        until("as many programs, maps and links as before", AT_ONCE, || objects(&pins) == before);
        let now = counters(hosts);
        assert_monotonic(&last, &now);
        last = now;
        until("its share of the frames", Duration::from_secs(120), || {
            load.sent() >= frames * (number + 1) / rounds
        });
    }
    let tally = load.finish();
    println!("{tally:?} in {rounds} rounds, {before:?} programs, maps and links");
    tally.assert_whole();
    let now = counters(hosts);
    assert_monotonic(&last, &now);
    // And each was counted.
    let rx = |counters: &BTreeMap<String, u64>| -> u64 {
        STATIONS.iter().map(|name| counters[&format!("{}.rx.packets", hosts.lab.port(name))]).sum()
    };
    assert!(
        rx(&now) - rx(&first) >= tally.sent,
        "{} of {} frames were counted",
        rx(&now) - rx(&first),
        tally.sent
    );
}

#[test]
fn a_controller_that_is_killed_again_and_again_costs_no_frame() {
    require!(NAMESPACES);
    let hosts = hosts();
    under_load(&hosts, campaign::rounds(ROUNDS, FULL_ROUNDS), |number| {
        let controller = Controller::spawn(&hosts.lab.switch, &hosts.switch.name, "");
        if number % 4 != 0 {
            controller.await_ready();
        }
        // Some time in what it does first, or while it waits.
        thread::sleep(Duration::from_micros(number * 7919 % 40_000));
        controller.kill();
    });
}

#[test]
fn an_upgrade_costs_no_frame() {
    require!(NAMESPACES);
    require!(OBJECT);
    let hosts = hosts();
    let pins = vswitch::pins(&hosts.switch.name);
    let other = OtherBuild::new();
    let entries = |hosts: &Hosts<Vswitch>| hosts.json("fdb show").as_array().expect("rows").len();
    let known = entries(&hosts);
    under_load(&hosts, campaign::rounds(ROUNDS, FULL_ROUNDS).div_ceil(2), |_| {
        let before = links(&pins);
        let upgrade =
            || other.command(&hosts.lab.switch, &hosts.switch.name, "upgrade").output().expect("start it");
        let (first, again) = (upgrade(), upgrade());
        assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
        assert_eq!(String::from_utf8_lossy(&first.stdout).lines().count(), STATIONS.len());
        assert_eq!(String::from_utf8_lossy(&again.stdout), "nothing to do\n");
        let between = links(&pins);
        // And back, this time by the controller.
        let controller = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
        let after = links(&pins);
        drop(controller);
        for (name, (id, program)) in before {
            assert_eq!((between[&name].0, after[&name].0), (id, id), "{name} is the same link");
            assert!(![between[&name].1, after[&name].1].contains(&program), "{name} runs another program");
        }
        assert_eq!(entries(&hosts), known, "the FDB stays");
    });
}

/// The load by itself: what is lost here is not to be blamed on a kill.
#[test]
fn frames_of_a_switch_that_is_left_alone_arrive_once() {
    require!(NAMESPACES);
    under_load(&hosts(), 1, |_| thread::sleep(Duration::from_millis(500)));
}

/// Nor does one need the ports to be there, or to be called what they were: below Linux 6.6 their programs are found by name.
#[test]
fn an_upgrade_finds_ports_that_nobody_has_followed() {
    require!(NAMESPACES);
    let hosts = Hosts::new(Vswitch::new(), Lab::new(Outside::Station, &["a", "b", "c"]));
    let machine = &hosts.lab.switch;
    machine.ip("link del h1");
    machine.rename("h2", "web0");
    let before = filters(machine, "h0");
    // As if another build's upgrade had been interrupted.
    fs::remove_file(vswitch::pins(&hosts.switch.name).join("programs/build")).unwrap();
    hosts.vswitch("upgrade");
    assert_eq!(filters(machine, "web0"), filters(machine, "h0"), "the same new programs");
    assert!(before.is_empty() || before != filters(machine, "h0"));
    for (from, to) in [("a", "c"), ("c", OUTSIDE)] {
        hosts.ping(from, to, "-c 3 -i 0.01 -W 1").assert_all("pings of those that are there");
    }
}
