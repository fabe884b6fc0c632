//! Is an address only ever known behind the port that it has spoken from, whoever frees the room of others meanwhile?

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use vswitch_tests::{
    frame::{colons, to},
    hosts::Hosts,
    lab::{Lab, Outside, STATION_IF},
    require,
    require::NAMESPACES,
    vswitch::Vswitch,
    wire::{Ear, Station},
};

/// Few sets, whose ways are another address's again and again.
const FDB: &str = "--fdb-max 64";
const ADDRESSES: u16 = 512;
const TIME: Duration = Duration::from_secs(2);

#[test]
fn whoever_is_learned_while_others_are_forgotten_is_where_they_spoke() {
    require!(NAMESPACES);
    let switch = Vswitch::with(FDB).datapath("b", "xdp");
    let hosts = Hosts::new(switch, Lab::new(Outside::Nothing, &["a", "b", "sink"]));
    let sink = hosts.lab.mac("sink");
    hosts.vswitch(&format!("fdb add {} h2 --static", colons(sink)));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (name, number) in [("a", 0xa), ("b", 0xb)] {
            let member = hosts.lab.member(name);
            let station = Station::new(name, &member.netns, STATION_IF, member.mac, Ear::Deaf);
            let source = |address: u16| {
                let [high, low] = address.to_be_bytes();
                [2, 0, 0, number, high, low]
            };
            let frames: Vec<_> = (0..ADDRESSES).map(|n| to(sink).bytes(sink, source(n), 0)).collect();
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    station.burst(&frames, false);
                }
            });
        }
        let (start, mut seen) = (Instant::now(), 0);
        while start.elapsed() < TIME {
            for entry in hosts.json("fdb show").as_array().unwrap() {
                let (mac, port) = (entry["mac"].as_str().unwrap(), entry["ifname"].as_str().unwrap());
                let expected = match mac.strip_prefix("02:00:00:").map(|rest| &rest[..2]) {
                    Some("0a") => "h0",
                    Some("0b") => "h1",
                    _ => continue,
                };
                if port != expected {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{entry}, which only the station behind {expected} has used");
                }
                seen += 1;
            }
            hosts.vswitch("fdb flush");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(seen > 0, "nobody was learned");
    });
}

/// Though no room is freed for one or two alone.
#[test]
fn whoever_is_deleted_leaves_room_for_others() {
    require!(NAMESPACES);
    let hosts = Hosts::new(Vswitch::with(FDB), Lab::new(Outside::Nothing, &["a"]));
    let used = || hosts.json("show")[0]["fdb_used"].as_u64().unwrap();
    let before = used();
    let mac = |number: u64| colons([2, 0, 0, 0xc, 0, u8::try_from(number).unwrap()]);
    let add = |number| drop(hosts.vswitch(&format!("fdb add {} h0 --static", mac(number))));
    (0..20).for_each(&add);
    (0..20).for_each(|number| drop(hosts.vswitch(&format!("fdb del {}", mac(number)))));
    assert_eq!(used(), before);
    (20..20 + 64 - before).for_each(&add);
    assert_eq!(used(), 64);
}
