//! When does an entry stop forwarding? At its ageing time, by the dataplane's own clock: no process runs here.

use std::{
    thread,
    time::{Duration, Instant},
};

use vswitch_tests::{
    fabric::Fabric,
    frame::{BROADCAST, UNKNOWN, to},
    lab::{Lab, Outside},
    observe::Receipts,
    require,
    require::NAMESPACES,
    vswitch::{Vswitch, ageing},
};

const AGEING: Duration = Duration::from_secs(2);
/// A stamp is renewed at most this often: a second, but not more than a quarter of the ageing time.
const REFRESH: Duration = Duration::from_millis(500);
/// The coarse clock's tick and a stamp's unit, with room.
const TICK: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(100);

/// When a station was heard last: between these two moments.
#[derive(Clone, Copy)]
struct Heard {
    from: Instant,
    until: Instant,
}

fn hello(fabric: &Fabric, station: &str) -> Heard {
    let from = Instant::now();
    fabric.exchange(&[(station, to(BROADCAST))]);
    Heard { from, until: Instant::now() }
}

/// One who asks; one that is silent after its first frame; one that sent another, too early to be noted; one that goes
/// on talking; and one that never spoke, with a static entry.
fn fabric(vswitch: Vswitch) -> Fabric {
    Fabric::new(vswitch, Lab::new(Outside::Station, &["asks", "silent", "again", "talks", "fixed"]))
}

fn ages_in_time(vswitch: Vswitch) {
    let mut fabric = fabric(vswitch);
    fabric.add_static(UNKNOWN, "fixed");
    let silent = hello(&fabric, "silent");
    hello(&fabric, "again");
    let mut talks = hello(&fabric, "talks");
    thread::sleep(REFRESH / 2);
    let again = hello(&fabric, "again");

    let (mut forwarded, mut flooded) = (0, 0);
    while silent.until.elapsed() < AGEING + AGEING / 2 {
        if talks.until.elapsed() > AGEING / 4 {
            talks = hello(&fabric, "talks");
        }
        let asked = Instant::now();
        let sends = [
            ("asks", to("silent")),
            ("asks", to("again")),
            ("asks", to("talks")),
            ("asks", to(UNKNOWN)),
            ("host", to("silent")),
        ];
        let receipts = fabric.exchange(&sends);
        let answered = Instant::now();
        assert_eq!(receipts[2].to_string(), "talks", "whoever talks is known");
        assert_eq!(receipts[3].to_string(), "fixed", "what is static stays");
        for (name, heard, receipts) in [("silent", silent, &receipts[0]), ("again", again, &receipts[1])] {
            // The last frame may have been too early to renew the stamp.
            let grace = if name == "again" { REFRESH } else { Duration::ZERO };
            let known = known(name, receipts);
            if answered + TICK < heard.from - grace + AGEING {
                assert!(known, "{name} is forgotten too early: {receipts}");
                forwarded += 1;
            } else if asked > heard.until + AGEING + LATE {
                assert!(!known, "{name} is remembered {:?} after it was heard", heard.until.elapsed());
                flooded += 1;
            }
        }
        assert!(receipts[4].copies("silent") == 1, "the host's frame arrives either way: {}", receipts[4]);
        thread::sleep(Duration::from_millis(10));
    }
    assert!(forwarded > 4 && flooded > 4, "{forwarded} and {flooded} frames tell nothing");
    hello(&fabric, "silent");
    fabric.check("and learned again", &[("asks", to("silent"), "silent"), ("host", to("silent"), "silent")]);
}

/// To it alone, or to everybody.
fn known(name: &str, receipts: &Receipts) -> bool {
    assert_eq!(receipts.copies(name), 1, "{name} receives it either way: {receipts}");
    match receipts.heard.len() {
        1 => true,
        others => {
            assert_eq!(others, 5, "flooded to all but the sender and the host: {receipts}");
            false
        }
    }
}

#[test]
fn an_entry_forwards_until_its_time_and_not_longer() {
    require!(NAMESPACES);
    ages_in_time(Vswitch::with(&ageing(AGEING)));
}

#[test]
fn an_entry_forwards_until_its_time_and_not_longer_on_xdp() {
    require!(NAMESPACES);
    let vswitch = Vswitch::with(&ageing(AGEING));
    ages_in_time(vswitch.datapath("asks", "xdp").datapath("silent", "xdp").datapath("talks", "xdp"));
}

#[test]
fn with_ageing_0_nothing_is_learned() {
    require!(NAMESPACES);
    let mut fabric = Fabric::new(Vswitch::with("--ageing 0"), Lab::new(Outside::Station, &["a", "b", "c"]));
    fabric.add_static(UNKNOWN, "c");
    fabric.introduce();
    fabric.check(
        "everyone has spoken",
        &[
            ("a", to("b"), "b c ext"),
            ("ext", to("a"), "a b c"),
            ("host", to("a"), "a b c ext"),
            ("a", to("host"), "host"),
            ("a", to(UNKNOWN), "c"),
        ],
    );
}
