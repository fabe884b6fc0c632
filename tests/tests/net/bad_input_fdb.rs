//! `[[fdb]]` entries of a file for addresses that are somebody's already: refused, as `fdb add` refuses them.

use vswitch_tests::{frame::colons, hosts::until, require, require::Need, topo::Netns};

use crate::bad_input::{Bench, NEEDS, TempFile};

const UPLINK: &str = "[[port]]\nname = \"h1\"\nrole = \"uplink\"\n\n[[port]]\nname = \"h3\"\n\n";

/// A file that is the switch as it is, with one entry more.
fn file(bench: &Bench, mac: &str, ifname: &str) -> TempFile {
    let exported = String::from_utf8(bench.run("export").stdout).unwrap();
    TempFile::new(&format!("{exported}\n[[fdb]]\nmac = \"{mac}\"\nport = \"{ifname}\"\n"))
}

fn hosts_own(mac: &str) -> String {
    format!("fdb {mac}: is the host's own address: it stays while the uplink is a port")
}

fn ports_own(mac: &str) -> String {
    format!("fdb {mac}: is a port's known address: change the port (vswitch port set IF --mac ...)")
}

/// The host is behind its uplink's address, whoever wants to have it.
fn assert_host_is_reached(bench: &Bench) {
    until("the host answers", std::time::Duration::from_secs(5), || {
        let ping = bench.far.command("ping").args(["-c", "1", "-W", "1", "10.20.9.1"]).output();
        ping.expect("start ping").status.success()
    });
}

#[test]
fn the_hosts_address_is_no_ports() {
    require!(NEEDS);
    require!(&[Need::Tool("ping")]);
    let bench = Bench::up();
    bench.machine.ip("address add 10.20.9.1/24 dev h1");
    // A station behind the switch, whose frames to the host the FDB sends where they go.
    bench.far.ip("address add 10.20.9.3/24 dev p3");
    assert_host_is_reached(&bench);
    let host = colons(Bench::mac(1));
    for ifname in ["h3", "h1"] {
        let file = file(&bench, &host, ifname);
        bench.refuses(&format!("apply {}", file.path()), 1, &hosts_own(&host));
        assert_host_is_reached(&bench);
    }
    // What else is in the file is not done either.
    let wanted = file(&bench, &host, "h3");
    let text =
        std::fs::read_to_string(&wanted.0).unwrap().replacen("[switch]\n", "[switch]\nageing = 20\n", 1);
    assert!(text.contains("ageing = 20"), "{text}");
    std::fs::write(&wanted.0, text + "\n[[port]]\nname = \"h4\"\n").unwrap();
    bench.refuses(&format!("apply {}", wanted.path()), 1, &hosts_own(&host));
    assert_host_is_reached(&bench);
}

/// Known only once the uplink is a port: what was done until then is undone.
#[test]
fn nor_is_that_of_an_uplink_that_comes_with_the_file() {
    require!(NEEDS);
    let host = colons(Bench::mac(1));
    let entry = format!("[[fdb]]\nmac = \"{host}\"\nport = \"h3\"\n");
    let bench = Bench::new();
    let file = TempFile::new(&format!("{UPLINK}{entry}"));
    bench.refuses(&format!("apply {}", file.path()), 1, &hosts_own(&host));
    bench.assert_gone();
    bench.run("up h3");
    bench.refuses(&format!("apply {}", file.path()), 1, &hosts_own(&host));
    // Without the uplink it is anybody's.
    let file = TempFile::new(&format!("[[port]]\nname = \"h3\"\n\n{entry}"));
    bench.run(&format!("apply {}", file.path()));
    // And then the uplink cannot have it: by the same rule.
    let file = TempFile::new(&format!("{UPLINK}{entry}"));
    bench.refuses(&format!("apply {}", file.path()), 1, &hosts_own(&host));
    bench.refuses("port add h1 --uplink", 1, &hosts_own(&host));
}

#[test]
fn an_address_that_follows_from_a_port_is_that_ports() {
    require!(NEEDS);
    let there = Netns::new("there");
    let bench = Bench::up();
    bench.run(&format!("port add w0 --netns {}", there.name()));
    let shown: serde_json::Value = serde_json::from_slice(&bench.run("-j port show w0").stdout).unwrap();
    let derived = shown[0]["mac"][0].as_str().unwrap().to_owned();
    for ifname in ["h3", "w0"] {
        let file = file(&bench, &derived, ifname);
        bench.refuses(&format!("apply {}", file.path()), 1, &ports_own(&derived));
    }
    // Of those that the user has bound the file itself tells.
    let known = file(&bench, &Bench::known(), "h3");
    let line = std::fs::read_to_string(&known.0).unwrap().lines().count() - 1;
    let problem = format!(
        "{}:{line}: fdb {}: the address is already bound by the mac of port h2; remove one of them",
        known.path(),
        Bench::known()
    );
    bench.refuses(&format!("apply {}", known.path()), 2, &problem);
    // In one file an address may pass from a port to an entry of another.
    let text = std::fs::read_to_string(&known.0).unwrap();
    let released =
        text.lines().filter(|line| !line.starts_with("mac = [") || !line.contains(&Bench::known()));
    let moved = TempFile::new(&released.collect::<Vec<_>>().join("\n"));
    bench.run(&format!("apply {}", moved.path()));
    let row: serde_json::Value =
        serde_json::from_slice(&bench.run(&format!("-j fdb get {}", Bench::known())).stdout).unwrap();
    assert_eq!((&row[0]["ifname"], &row[0]["type"]), (&"h3".into(), &"static".into()));
}

/// The far end's address that a port has without the user's word may be somebody's by then.
#[test]
fn a_port_that_gets_its_far_ends_address_takes_it_from_nobody() {
    require!(NEEDS);
    let there = Netns::new("there");
    let bench = Bench::up();
    let (first, bound) = ("02:00:00:00:07:21", "02:00:00:00:07:22");
    bench.run(&format!("port add w0 --netns {} --mac {first}", there.name()));
    for (add, owner) in
        [(Some(format!("fdb add {bound} h3 --static")), bound.to_owned()), (None, colons(Bench::mac(1)))]
    {
        if let Some(add) = add {
            bench.run(&add);
        }
        there.ip(&format!("link set eth0 address {owner}"));
        let before = bench.run("fdb show").stdout;
        let exported = String::from_utf8(bench.run("export").stdout).unwrap();
        let without = exported.lines().filter(|line| !line.contains(first)).collect::<Vec<_>>();
        let file = TempFile::new(&without.join("\n"));
        let output = bench.command(&format!("apply {}", file.path())).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        // Either of the two has it, and the other is told so.
        assert!(String::from_utf8_lossy(&output.stderr).contains(&owner), "{output:?}");
        let learned = |text: &[u8]| {
            let text = String::from_utf8_lossy(text).into_owned();
            text.lines().filter(|line| !line.contains("learned")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(learned(&bench.run("fdb show").stdout), learned(&before));
    }
}
