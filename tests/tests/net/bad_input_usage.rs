//! Commands that make no sense, or not here.

use vswitch_tests::{require, topo::Netns, vswitch};

use crate::bad_input::{Bench, NEEDS};

#[test]
fn words_that_are_none() {
    require!(NEEDS);
    let bench = Bench::up();
    for (args, line) in [
        (
            "frob",
            "unrecognized subcommand 'frob'; tip: a similar subcommand exists: 'fdb'; usage: vswitch [OPTIONS] <COMMAND>",
        ),
        // Ambiguous: show or stats.
        (
            "s",
            "unrecognized subcommand 's'; tip: some similar subcommands exist: 'stats', 'show'; usage: vswitch [OPTIONS] <COMMAND>",
        ),
        ("port frob", "unrecognized subcommand 'frob'; usage: vswitch port [OPTIONS] [COMMAND]"),
        (
            "port add h4 --frob",
            "unexpected argument '--frob' found; tip: to pass '--frob' as a value, use '-- --frob'; usage: vswitch port add <IF>",
        ),
        (
            "port add",
            "the following required arguments were not provided: <IF>; usage: vswitch port add <IF>",
        ),
        (
            "port set h2 --flood maybe",
            "invalid value 'maybe' for '--flood <on|off>' [possible values: on, off]",
        ),
        ("port set h2", "port h2: nothing to set; `vswitch port set --help` lists what can be"),
        (
            "port add h4 --datapath frob",
            "invalid value 'frob' for '--datapath <DATAPATH>' [possible values: auto, xdp, xdp-generic, tc]",
        ),
        (
            "port add w0 --peer eth1",
            "port w0: peer without netns; add the netns that it is in, or leave it out",
        ),
        (
            "port add w0 --tap --netns x",
            "port w0: a tap has no far end in a namespace; leave out either tap or netns",
        ),
        ("port add w0 --tap --uplink", "port w0: an uplink leads outside, not to a tap; remove tap or role"),
        ("up --fdb-max 0", "switch NAME: fdb-max 0 is out of range; choose 1 to 16777216 addresses"),
        (
            "up --ageing 1000001",
            "switch NAME: ageing 1000001 is out of range; choose 0 to 1000000 seconds (0: nothing is learned)",
        ),
        (
            "fdb add 02:00:00:00:00:01 h2 --vlan 5",
            "fdb 02:00:00:00:00:01: vlan 5 is not supported yet; use vlan 0",
        ),
    ] {
        bench.refuses(args, 2, &line.replace("NAME", &bench.name));
    }
    let line =
        |port: &str| format!("port {port}: nodst is for mode source, and this is mode bridge; remove one");
    bench.refuses("port add h4 --nodst on", 2, &line("h4"));
    bench.refuses("port set h2 --nodst on", 2, &line("h2"));
    for name in ["a.b", ".a", "a/b"] {
        let c = if name == "a/b" { '/' } else { '.' };
        let line = format!(
            "invalid value '{name}' for '--switch <SWITCH>': {c:?} cannot be in a switch's name; use letters, digits, '-' and '_'"
        );
        let mut command = bench.machine.command(vswitch::binary());
        command.args(["-s", name, "up", "h4"]);
        bench.refuses_command(command, 2, &[line]);
    }
}

#[test]
fn ports_that_are_none() {
    require!(NEEDS);
    let bench = Bench::up();
    let name = &bench.name;
    for verb in ["port show", "port del", "port set --flood off", "stats", "fdb show"] {
        let line = format!("port h5: is not a port of {name}; `vswitch -s {name} port` lists its ports");
        bench.refuses(&format!("{verb} h5"), 1, &line);
    }
    let line = format!(r#""h5": not a port of switch "{name}" (vswitch port show lists them)"#);
    bench.refuses("fdb flush h5", 1, &line);
}

#[test]
fn a_switch_that_is_not_there() {
    require!(NEEDS);
    let bench = Bench::new();
    let name = &bench.name;
    let line = format!(r#"switch "{name}": there is none of that name: make it with `vswitch -s {name} up`"#);
    for args in ["show", "port", "port add h1", "port del h1", "fdb", "fdb flush", "stats", "export", "run"] {
        bench.refuses(args, 1, &line);
    }
    bench.refuses(
        "down",
        1,
        &format!(r#"switch "{name}": there is none of that name: nothing to take away"#),
    );
    bench.assert_gone();
}

#[test]
fn namespaces_that_are_not_there_or_not_the_switchs() {
    require!(NEEDS);
    let bench = Bench::up();
    let (name, home) = (&bench.name, bench.machine.name());
    let missing = r#"namespace "nosuch": not found (ip netns list shows them)"#;
    bench.refuses("-n nosuch port show", 1, missing);
    bench.refuses("-n nosuch up h4", 1, missing);
    bench.refuses("port add w0 --netns nosuch", 1, &format!(r#""w0": {missing}"#));

    let line = format!(r#"switch "{name}": lives in namespace {home}: use -n {home}"#);
    let elsewhere = Netns::new("elsewhere");
    for args in ["port show", "port add p4", "down", "export", "fdb flush", "up p4", "apply -"] {
        let far = bench.far.name();
        bench.refuses(&format!("-n {far} {args}"), 1, &line);
        bench.refuses_command(vswitch::command(&elsewhere, name, args), 1, &[&line]);
        // The advice is good.
        let mut command = vswitch::command(&elsewhere, name, &format!("-n {home} export"));
        assert!(command.output().unwrap().status.success());
    }
}
