//! Files that make no switch, or not the one that is up.

use std::{fs, process::Stdio};

use vswitch_tests::{frame::colons, require, topo::Netns};

use crate::bad_input::{Bench, NEEDS, TempFile};

const WRONG: &str = r#"[switch]
ageing = "300"
fdb-mx = 4

[[port]]
name = "h1"
role = "uplinc"
learning = 1

[[port]]
name = "h1"

[[port]]
mode = "bridge"

[[port]]
name = "h3"
mac = ["02:00:00:00:00:01", "03:00:00:00:00:01", "x"]
nodst = true

[[fdb]]
mac = "02:00:00:00:00:01"
port = "h9"
"#;

const LINES: [&str; 11] = [
    r#"2: switch: ageing is a string; write ageing = 300"#,
    r#"3: switch: unknown key "fdb-mx"; did you mean "fdb-max"?"#,
    r#"7: port h1: unknown role "uplinc"; did you mean "uplink"?"#,
    r#"8: port h1: learning is an integer; write learning = true or learning = false"#,
    r#"11: port h1: the interface is in this switch twice; remove one of the two"#,
    r#"13: port #3: name is missing; add the interface's name"#,
    r#"18: port h3: mac "x" is not a MAC address: it has 1 of 6 bytes; write it like 02:00:00:00:00:01"#,
    r#"18: port h3: mac "03:00:00:00:00:01" is a group address: a station's address is even in its first byte"#,
    r#"19: port h3: nodst is for mode source, and this is mode bridge; remove one"#,
    r#"22: fdb 02:00:00:00:00:01: the address is already bound by the mac of port h3; remove one of them"#,
    r#"23: fdb 02:00:00:00:00:01: h9 is not a port of this switch; add the port or remove the entry"#,
];

#[test]
fn every_mistake_of_a_file_at_once_with_its_line() {
    require!(NEEDS);
    for bench in [Bench::new(), Bench::up()] {
        let file = TempFile::new(WRONG);
        let lines = LINES.map(|line| format!("{}:{line}", file.path()));
        for verb in ["check", "apply", "apply --dry-run", "run"] {
            bench.refuses_command(bench.command(&format!("{verb} {}", file.path())), 2, &lines);
        }
    }
}

#[test]
fn what_is_no_toml_or_no_file() {
    require!(NEEDS);
    let bench = Bench::new();
    let file = TempFile::new("[switch]\nageing = \n[[port]]\nname = \"h1\"\nname = \"h2\"\n");
    let lines = [
        format!("{}:2: TOML: string values must be quoted; expected literal string", file.path()),
        format!(r#"{}:5: TOML: duplicate key "name"; remove one of the two"#, file.path()),
    ];
    bench.refuses_command(bench.command(&format!("apply {}", file.path())), 2, &lines);

    let line = "/nosuch.toml: cannot be read: No such file or directory";
    bench.refuses("apply /nosuch.toml", 1, line);
    bench.refuses("check /nosuch.toml", 1, line);
    let file = TempFile::new("");
    fs::write(&file.0, [b'[', 0xff]).unwrap();
    let line = format!("{}: cannot be read: stream did not contain valid UTF-8", file.path());
    bench.refuses(&format!("apply {}", file.path()), 1, &line);

    let mut command = bench.command("apply -");
    command.stdin(Stdio::null());
    // An empty file is a switch without ports, which is one.
    assert!(command.output().unwrap().status.success());
    bench.run("down");
    bench.assert_gone();
}

/// What files were right with is not refused: `access` was the word for a downlink.
#[test]
fn a_word_of_an_older_release_is_read_with_a_note() {
    require!(NEEDS);
    let bench = Bench::new();
    let file = TempFile::new("[[port]]\nname = \"h2\"\nrole = \"access\"\n");
    for verb in ["check", "apply"] {
        let output = bench.command(&format!("{verb} {}", file.path())).output().unwrap();
        let note = format!("note: {}:3: role \"access\" is called \"downlink\" now\n", file.path());
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), &*note)
        );
    }
    let export = bench.run("export").stdout;
    assert!(!String::from_utf8_lossy(&export).contains("role"), "the default is not written");
    bench.run("down");
    bench.assert_gone();
}

#[test]
fn a_file_for_another_switch() {
    require!(NEEDS);
    let bench = Bench::new();
    let file = TempFile::new("[switch]\nname = \"other\"\n");
    let line = format!(
        "{}:2: switch other: the command is for switch {}; leave the name out on one side",
        file.path(),
        bench.name
    );
    bench.refuses(&format!("apply {}", file.path()), 2, &line);
    for (name, c) in [("a.b", '.'), ("a/b", '/'), ("..", '.')] {
        let file = TempFile::new(&format!("[switch]\nname = {name:?}\n"));
        let line = format!(
            "{}:2: switch {name}: {c:?} cannot be in a switch's name; use letters, digits, '-' and '_'",
            file.path()
        );
        let mut command = bench.machine.command(vswitch_tests::vswitch::binary());
        command.args(["apply", &file.path().to_string()]);
        bench.refuses_command(command, 2, &[line]);
    }
}

/// The third port is refused when it is its turn: two are ports by then, one of them made, one changed for XDP.
fn third_fails(bench: &Bench, there: &Netns) -> TempFile {
    let host = colons(Bench::mac(1));
    TempFile::new(&format!(
        r#"[[port]]
name = "h1"
role = "uplink"

[[port]]
name = "w0"
netns = "{}"

[[port]]
name = "h4"
datapath = "xdp"

[[port]]
name = "h5"
mac = "{host}"
"#,
        there.name()
    ))
    .also(bench)
}

impl TempFile {
    /// What `bench` has up already stays in the file.
    fn also(self, bench: &Bench) -> Self {
        if bench.pins().exists() {
            let text = fs::read_to_string(&self.0).unwrap();
            let known = Bench::known();
            let more = format!(
                "[[port]]\nname = \"h2\"\nmac = \"{known}\"\n\n[[port]]\nname = \"h3\"\nflood = false\n"
            );
            fs::write(&self.0, text + &more).unwrap();
        }
        self
    }
}

#[test]
fn apply_takes_back_what_it_has_done() {
    require!(NEEDS);
    let there = Netns::new("there");
    let line = format!("address {}: is the host's own, of uplink h1: choose another", colons(Bench::mac(1)));
    for bench in [Bench::new(), Bench::up()] {
        let was_up = bench.pins().exists();
        let file = third_fails(&bench, &there);
        bench.refuses(&format!("apply {}", file.path()), 1, &line);
        assert_eq!(there.find_ifindex("eth0"), None);
        if !was_up {
            bench.assert_gone();
        }
    }
}

/// Seen before anything is done: no port is taken away and put back for nothing.
#[test]
fn apply_looks_at_every_port_first() {
    require!(NEEDS);
    let bench = Bench::up();
    let file = TempFile::new("[[port]]\nname = \"h1\"\nrole = \"uplink\"\n\n[[port]]\nname = \"nosuch\"\n");
    let links = || {
        let shown = bench.machine.command("bpftool").args(["-j", "link"]).output();
        shown.map_or_else(|_| Vec::new(), |output| output.stdout)
    };
    let before = links();
    bench.refuses(
        &format!("apply {}", file.path()),
        1,
        r#"interface "nosuch": not found (`ip link` shows those of this network namespace)"#,
    );
    let ids = |text: &[u8]| {
        let links: Vec<serde_json::Value> = serde_json::from_slice(text).unwrap_or_default();
        let own = links.iter().filter(|link| link["devname"] == "h2" || link["devname"] == "h3");
        own.map(|link| link["id"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&links()), ids(&before));
}

#[test]
fn what_cannot_change_while_it_is_up() {
    require!(NEEDS);
    let bench = Bench::up();
    let name = &bench.name;
    let file = TempFile::new("[switch]\nfdb-max = 8\n");
    let line = format!(
        "switch {name}: fdb-max 65536 -> 8 cannot change while it is up; vswitch -s {name} down, then up again"
    );
    bench.refuses(&format!("apply {}", file.path()), 1, &line);
    bench.refuses(&format!("apply --dry-run {}", file.path()), 1, &line);
    let line = format!(
        r#"switch "{name}": up already: change it with `vswitch -s {name} port` or `vswitch -s {name} apply`"#
    );
    bench.refuses("up h4", 1, &line);
}
