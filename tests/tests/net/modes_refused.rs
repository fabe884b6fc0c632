//! Modes that cannot be: refused in one line with the reason, and nothing is changed.

use vswitch_tests::{frame::colons, require};

use crate::bad_input::{Bench, NEEDS};

const SENDER: &str = "02:00:00:00:00:09";

#[test]
fn passthru_beside_another_port() {
    require!(NEEDS);
    let bench = Bench::up();
    bench.refuses(
        "port add h4 --mode passthru",
        2,
        "port h4: mode passthru of h4 takes everything, so that h2 cannot be a downlink beside it; remove one of them",
    );
    let alone = Bench::new();
    alone.run("up --uplink h1");
    alone.run("port add h2 --mode passthru");
    for mode in ["passthru", "bridge", "vepa", "private", "source"] {
        alone.refuses(
            &format!("port add h3 --mode {mode}"),
            2,
            "port h3: mode passthru of h2 takes everything, so that h3 cannot be a downlink beside it; remove one of them",
        );
    }
}

#[test]
fn passthru_on_a_live_port() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up --uplink h1 h2");
    for (from, into) in
        [("bridge", "passthru"), ("vepa", "passthru"), ("private", "passthru"), ("source", "passthru")]
    {
        bench.run(&format!("port set h2 --mode {from}"));
        bench.refuses(&format!("port set h2 --mode {into}"), 1, &live(&bench, from, into));
    }
    bench.run("port del h2");
    bench.run("port add h2 --mode passthru");
    for into in ["bridge", "vepa", "private", "source"] {
        bench.refuses(&format!("port set h2 --mode {into}"), 1, &live(&bench, "passthru", into));
    }
}

fn live(bench: &Bench, from: &str, into: &str) -> String {
    format!(
        "port h2: mode {from} -> {into} cannot change while it is a port; vswitch -s {} port del h2, then add it again",
        bench.name
    )
}

#[test]
fn source_lists_of_other_modes() {
    require!(NEEDS);
    let bench = Bench::up();
    for mode in ["bridge", "vepa", "private"] {
        bench.run(&format!("port set h3 --mode {mode}"));
        let list = format!("port h3: a source list is for mode source, and this is mode {mode}; remove one");
        bench.refuses(&format!("port set h3 --source {SENDER}"), 2, &list);
        bench.refuses(&format!("port source add h3 {SENDER}"), 2, &list);
        let nodst = format!("port h3: nodst is for mode source, and this is mode {mode}; remove one");
        bench.refuses("port set h3 --nodst on", 2, &nodst);
    }
    let list = "port h4: a source list is for mode source, and this is mode bridge; remove one";
    bench.refuses(&format!("port add h4 --source {SENDER}"), 2, list);
    let nodst = "port h4: nodst is for mode source, and this is mode vepa; remove one";
    bench.refuses("port add h4 --mode vepa --nodst on", 2, nodst);
    // A list goes with its mode, unless somebody asks for both.
    bench.run(&format!("port set h3 --mode source --source {SENDER} --nodst on"));
    let list = "port h3: a source list is for mode source, and this is mode vepa; remove one";
    bench.refuses(&format!("port set h3 --mode vepa --source {SENDER}"), 2, list);
    bench.run("port set h3 --mode vepa");
    bench.run("port set h3 --mode source");
    bench.refuses(
        &format!("port source del h3 {SENDER}"),
        1,
        &format!("port h3: {SENDER} is not in its source list; `vswitch port show` prints it"),
    );
}

#[test]
fn modes_of_uplinks() {
    require!(NEEDS);
    let bench = Bench::up();
    for mode in ["vepa", "private", "passthru", "source"] {
        let what = format!("mode {mode} is for downlinks, and this is an uplink; remove it");
        bench.refuses(&format!("port add h4 --uplink --mode {mode}"), 2, &format!("port h4: {what}"));
        if mode != "passthru" {
            bench.refuses(&format!("port set h1 --mode {mode}"), 2, &format!("port h1: {what}"));
        }
    }
}

#[test]
fn addresses_of_somebody_else() {
    require!(NEEDS);
    let bench = Bench::up();
    let (known, host) = (Bench::known(), colons(Bench::mac(1)));
    for mode in ["bridge", "vepa", "private", "source"] {
        let line = format!("port h4: mac {known} is already bound to port h2; remove one of them");
        bench.refuses(&format!("port add h4 --mode {mode} --mac {known}"), 2, &line);
        let line = format!("address {host}: is the host's own, of uplink h1: choose another");
        bench.refuses(&format!("port add h4 --mode {mode} --mac {host}"), 1, &line);
        // The interface that would have been made is not left behind either.
        let far = bench.far.name();
        let line = format!("port web0: mac {known} is already bound to port h2; remove one of them");
        bench.refuses(&format!("port add web0 --netns {far} --mode {mode} --mac {known}"), 2, &line);
        let line = format!("address {host}: is the host's own, of uplink h1: choose another");
        bench.refuses(&format!("port add web0 --netns {far} --mode {mode} --mac {host}"), 1, &line);
    }
}
