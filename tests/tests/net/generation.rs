//! Does whoever changes what a verdict follows from say so? The programs remember verdicts for as long as the generation of
//! the tables stays what it is.

use std::{fs, os::unix::fs::symlink, time::Duration};

use vswitch_tests::{
    controller::Controller,
    frame::colons,
    hosts::until,
    model::{FLAGS, PLAIN},
    require,
};

use crate::{
    abi_shapes::array,
    bad_input::{Bench, NEEDS, TempFile},
};

/// A controller has noticed by then.
const AT_ONCE: Duration = Duration::from_secs(5);

fn generation(bench: &Bench) -> u64 {
    let [generation] = array::<u64, 1>(&bench.pins(), "GENERATION").get(&0, 0).expect("read the generation");
    generation
}

/// Each command changes something else that a decision reads.
#[test]
fn every_command_raises_the_generation() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up --uplink h1 h2 h3");
    let (known, other) = ("02:00:00:00:07:01", "02:00:00:00:07:02");
    let mut commands: Vec<String> = Vec::new();
    for (name, flag) in FLAGS.into_iter().filter(|(name, _)| *name != "nodst") {
        let states = if *flag(&mut { PLAIN }) { ["off", "on"] } else { ["on", "off"] };
        commands.extend(states.map(|state| format!("port set h2 --{} {state}", name.replace('_', "-"))));
    }
    commands.extend(["vepa", "private", "bridge"].map(|mode| format!("port set h2 --mode {mode}")));
    commands.extend(
        [
            "port set h3 --mode source --source SENDER --nodst on",
            "port source add h3 OTHER",
            "port source del h3 OTHER",
            "port set h3 --nodst off",
            "port source flush h3",
            "port set h3 --mode bridge",
            "port set h2 --mac SENDER",
            "port set h2 --mac OTHER",
            "fdb add SENDER h3",
            "fdb del SENDER",
            "fdb add SENDER h3 --static",
            "fdb del SENDER",
            "fdb add SENDER h3",
            "fdb flush",
            "port add h4 --datapath xdp",
            "port set h4 --datapath tc",
            "port del h4",
            "port add h5 --uplink",
            "port set h5 --uplink=off",
            "port del h5",
        ]
        .map(|command| command.replace("SENDER", known).replace("OTHER", other)),
    );
    for command in commands {
        let before = generation(&bench);
        bench.run(&command);
        assert!(generation(&bench) > before, "{command}");
    }
    let exported = String::from_utf8(bench.run("export").stdout).unwrap();
    for setting in ["ageing = 77", "host-access = false", "macvlan-compat = true"] {
        let file = TempFile::new(&exported.replacen("[switch]\n", &format!("[switch]\n{setting}\n"), 1));
        let before = generation(&bench);
        bench.run(&format!("apply {}", file.path()));
        assert!(generation(&bench) > before, "{setting}");
    }
    // What other programs remember is not what these would decide.
    let mark = bench.pins().join("programs/build");
    fs::remove_file(&mark).unwrap();
    symlink("another", &mark).unwrap();
    let before = generation(&bench);
    bench.run("upgrade");
    assert!(generation(&bench) > before, "upgrade");
    // And who changes nothing makes nobody forget.
    let before = generation(&bench);
    for command in ["port set h2 --isolated off", "upgrade", "port show", "export"] {
        bench.run(command);
    }
    assert_eq!(generation(&bench), before);
}

/// As does a controller, for what happens to interfaces and to entries.
#[test]
fn a_controller_raises_it_too() {
    require!(NEEDS);
    let bench = Bench::new();
    for number in 1..=3 {
        bench.machine.ip(&format!("link set h{number} up"));
        bench.far.ip(&format!("link set p{number} up"));
    }
    bench.run("up --uplink h1 h2 h3 --ageing 1");
    let _controller = Controller::start(&bench.machine, &bench.name, "");
    let address = colons([2, 0, 0, 0, 2, 99]);
    for change in [
        "link set h2 mtu 1400".to_owned(),
        "link set h2 down".to_owned(),
        "link set h2 up".to_owned(),
        format!("link set h1 address {address}"),
        "link del h3".to_owned(),
    ] {
        let before = generation(&bench);
        bench.machine.ip(&change);
        until(&change, AT_ONCE, || generation(&bench) > before);
    }
    let before = generation(&bench);
    bench.plug(3);
    until("an interface that is back", AT_ONCE, || generation(&bench) > before);
    bench.run("fdb add 02:00:00:00:07:03 h2");
    let before = generation(&bench);
    until("an entry that has aged is removed", AT_ONCE, || generation(&bench) > before);
}
