//! Addresses that cannot be, that somebody else has, or for which there is no room.

use vswitch_tests::{
    fabric::Fabric,
    frame::{BROADCAST, UNKNOWN, colons, to},
    lab::{Lab, Outside},
    require,
    vswitch::{self, Vswitch},
};

use crate::bad_input::{Bench, NEEDS, TempFile, same};

#[test]
fn those_that_no_station_has() {
    require!(NEEDS);
    let bench = Bench::up();
    for (mac, what) in [
        ("ff:ff:ff:ff:ff:ff", "is a group address: a station's address is even in its first byte"),
        ("01:00:5e:00:00:01", "is a group address: a station's address is even in its first byte"),
        ("00:00:00:00:00:00", "is no station's address; write the one that it sends from"),
        ("02:00:00:00:00", "is not a MAC address: it has 5 of 6 bytes; write it like 02:00:00:00:00:01"),
        (
            "02:00:00:00:00:0g",
            r#"is not a MAC address: "0g" is not two hexadecimal digits; write it like 02:00:00:00:00:01"#,
        ),
    ] {
        let option = format!(r#"invalid value '{mac}' for '--mac <MAC>': "{mac}" {what}"#);
        bench.refuses(&format!("port add h4 --mac {mac}"), 2, &option);
        bench.refuses(&format!("port set h3 --mac {mac}"), 2, &option);
        let argument = format!(r#"invalid value '{mac}' for '<MAC>': "{mac}" {what}"#);
        bench.refuses(&format!("fdb add {mac} h3 --static"), 2, &argument);
    }
}

#[test]
fn those_that_another_has() {
    require!(NEEDS);
    let bench = Bench::up();
    let (known, host, bound) = (Bench::known(), colons(Bench::mac(1)), "02:00:00:00:07:02");
    bench.run(&format!("fdb add {bound} h2 --static"));
    for (args, ifname) in [("port add h4", "h4"), ("port set h3", "h3")] {
        let line = format!("port {ifname}: mac {known} is already bound to port h2; remove one of them");
        bench.refuses(&format!("{args} --mac {known}"), 2, &line);
        let line = format!("address {host}: is the host's own, of uplink h1: choose another");
        bench.refuses(&format!("{args} --mac {host}"), 1, &line);
        let line = format!(
            "fdb {bound}: the address is already bound by the mac of port {ifname}; remove one of them"
        );
        bench.refuses(&format!("{args} --mac {bound}"), 2, &line);
    }
    for suffix in ["", " --static"] {
        let line = format!("fdb {host}: is the host's own address: it stays while the uplink is a port");
        bench.refuses(&format!("fdb add {host} h3{suffix}"), 1, &line);
        let line = format!(
            "fdb {known}: is a port's known address: change the port (vswitch port set IF --mac ...)"
        );
        bench.refuses(&format!("fdb add {known} h3{suffix}"), 1, &line);
        let line = format!(
            "fdb {bound}: is bound to port h2 already: delete that entry first (vswitch fdb del {bound})"
        );
        bench.refuses(&format!("fdb add {bound} h3{suffix}"), 1, &line);
    }
    // Once more the same is no mistake.
    let before = bench.state();
    bench.run(&format!("fdb add {bound} h2 --static"));
    same(&before, &bench.state(), "all of this");

    let line = format!("fdb {host}: is the host's own address: it stays while the uplink is a port");
    bench.refuses(&format!("fdb del {host}"), 1, &line);
    let line =
        format!("fdb {known}: is a port's known address: change the port (vswitch port set IF --mac ...)");
    bench.refuses(&format!("fdb del {known}"), 1, &line);
    bench.refuses(
        "fdb del 02:00:00:00:09:09",
        1,
        "fdb 02:00:00:00:09:09: no such entry (vswitch fdb show lists them)",
    );
    let name = &bench.name;
    let line =
        format!("fdb get 02:00:00:00:09:09: {name} does not know the address; frames to it are flooded");
    bench.refuses("fdb get 02:00:00:00:09:09", 1, &line);
    let line = format!(r#""h5": not a port of switch "{name}" (vswitch port show lists them)"#);
    bench.refuses("fdb add 02:00:00:00:09:09 h5 --static", 1, &line);
}

/// By a file as by a command: it would cut the host off, and taking it back would leave nobody with the address.
#[test]
fn the_hosts_own_in_a_file() {
    require!(NEEDS);
    let bench = Bench::up();
    let host = colons(Bench::mac(1));
    let of_host = format!("fdb {host}: is the host's own address: it stays while the uplink is a port");
    let exported = String::from_utf8(bench.run("export").stdout).unwrap();
    for ifname in ["h3", "h1"] {
        let file = TempFile::new(&format!("{exported}\n[[fdb]]\nmac = \"{host}\"\nport = \"{ifname}\"\n"));
        bench.refuses(&format!("apply {}", file.path()), 1, &of_host);
    }
    // Also where the uplink comes with the entry, and where the switch does.
    bench.run("port del h1");
    let file = TempFile::new(&format!("{exported}\n[[fdb]]\nmac = \"{host}\"\nport = \"h3\"\n"));
    bench.refuses(&format!("apply {}", file.path()), 1, &of_host);
    bench.run("down");
    bench.refuses(&format!("apply {}", file.path()), 1, &of_host);
    bench.assert_gone();
}

#[test]
fn a_full_fdb_takes_no_static_entry() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up h1 h2 --fdb-max 4 --ageing 0");
    for last in 1..=4 {
        bench.run(&format!("fdb add 02:00:00:00:07:0{last} h1 --static"));
    }
    let full = |mac: &str| {
        format!(
            "fdb {mac}: the FDB is full (4 entries): delete some (vswitch fdb flush) or start the switch with a larger --fdb-max"
        )
    };
    bench.refuses("fdb add 02:00:00:00:07:05 h1 --static", 1, &full("02:00:00:00:07:05"));
    bench.refuses("fdb add 02:00:00:00:07:05 h1", 1, &full("02:00:00:00:07:05"));
    let name = &bench.name;
    let line = format!("switch {name}: 5 addresses are bound to ports, fdb-max is 4; raise it");
    bench.refuses("port add h3 --mac 02:00:00:00:07:05", 2, &line);
}

/// Nobody has removed them, for there is no controller.
#[test]
fn aged_entries_make_room_for_what_is_bound() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up h1 h2 --fdb-max 4 --ageing 1");
    for last in 1..=4 {
        bench.run(&format!("fdb add 02:00:00:00:07:0{last} h1"));
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    bench.run("fdb add 02:00:00:00:07:05 h2 --static");
    bench.run("port set h1 --mac 02:00:00:00:07:01");
}

/// Full of what was learned: a port with addresses cannot be added, and is not there afterwards.
#[test]
fn a_full_fdb_floods_and_counts() {
    require!(NEEDS);
    let switch = Vswitch::with("--fdb-max 4");
    let name = switch.name.clone();
    let fabric = Fabric::new(switch, Lab::new(Outside::Nothing, &["a", "b", "c"]));
    let sends: Vec<_> = (1..=8).map(|last| ("a", to(BROADCAST).from([2, 0, 0, 0, 9, last]))).collect();
    for got in fabric.exchange(&sends) {
        assert!(got == "b c", "{got}");
    }
    // To one of the addresses that there was no room for, and to one that nobody has.
    let machine = &fabric.lab.switch;
    let known = vswitch::json(machine, &name, "fdb show");
    assert_eq!(known.as_array().unwrap().len(), 4, "{known}");
    for got in fabric.exchange(&[("b", to([2, 0, 0, 0, 9, 8])), ("b", to(UNKNOWN))]) {
        assert!(got == "a c", "{got}");
    }
    let stats = vswitch::json(machine, &name, &format!("stats {}", fabric.lab.port("a")));
    assert_eq!(stats[0]["fdb_full"], 4, "{stats}");

    let output =
        vswitch::command(machine, &name, "port add w0 --tap --mac 02:00:00:00:07:05").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "vswitch: fdb 02:00:00:00:07:05: the FDB is full (4 entries): delete some (vswitch fdb flush) or start the switch with a larger --fdb-max\n"
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(machine.find_ifindex("w0"), None);
    // Of two addresses one would find room if the port had one to give; it keeps the one that it had.
    vswitch::run(machine, &name, "fdb flush");
    vswitch::run(machine, &name, &format!("port set {} --mac 02:00:00:00:07:01", fabric.lab.port("c")));
    fabric.exchange(&sends);
    let before = vswitch::json(machine, &name, "port show");
    let args = format!("port set {} --mac 02:00:00:00:07:02 --mac 02:00:00:00:07:03", fabric.lab.port("c"));
    let output = vswitch::command(machine, &name, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(vswitch::json(machine, &name, "port show"), before);
    assert_eq!(vswitch::json(machine, &name, "port show").as_array().unwrap().len(), 3);
}
