//! Is every error of a file reported, at its line, and once?

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::config::{
    Datapath, Flags, Mode, Role,
    samples::{OFFICE, station},
};

#[track_caller]
fn refuses(text: &str, expected: &[&str]) {
    let errors = parse("vs.toml", text, None).unwrap_err();
    assert_eq!(errors.to_string().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn an_empty_file_is_a_switch_with_every_default() {
    assert_eq!(parse("x", "", None), Ok(SwitchConfig::new("vs0")));
    assert_eq!(parse("x", "# nothing\r\n[switch]\r\n", Some("vs1")), Ok(SwitchConfig::new("vs1")));
}

#[test]
fn every_key() {
    let flags = PORT_FLAGS.map(|flag| format!("{} = {}\n", flag.key, !flag.usual)).concat();
    let text = r#"
        [switch]
        name = "lab"
        ageing = 0x10
        fdb-max = 1_000
        host-access = false
        macvlan-compat = true
        [[port]]
        name = "nic0"
        role = "uplink"
        mode = "bridge"
        datapath = "xdp-generic"
        [[port]]
        name = "web0"
        role = "downlink"
        netns = "web"
        mac = "02-00-00-00-00-01"
        mode = "source"
        source = ["02:00:00:00:00:07"]
        FLAGS
        tap = false
        [[fdb]]
        mac = "02:00:00:00:00:09"
        port = "nic0"
        vlan = 0
    "#;
    let nic = PortConfig { role: Role::Uplink, datapath: Datapath::XdpGeneric, ..PortConfig::new("nic0") };
    let web = PortConfig {
        ifname: "web0".to_owned(),
        role: Role::Downlink,
        mode: Mode::Source,
        mac: vec![station(1)],
        source: vec![station(7)],
        flags: PORT_FLAGS.iter().fold(Flags::default(), |flags, flag| flags.with(flag.bit, !flag.usual)),
        datapath: Datapath::Auto,
        far_end: FarEnd::Veth { netns: "web".to_owned(), peer: "eth0".to_owned() },
    };
    let config = SwitchConfig {
        name: "lab".to_owned(),
        ageing: 16,
        fdb_max: 1000,
        host_access: false,
        macvlan_compat: true,
        ports: vec![nic, web],
        fdb: vec![StaticEntry { mac: station(9), vlan: 0, ifname: "nic0".to_owned() }],
    };
    assert_eq!(parse("x", &text.replace("FLAGS", &flags), None), Ok(config));
}

#[test]
fn a_downlink_is_read_by_its_former_name_and_told_of() {
    let text = "[[port]]\nname = 'web0'\nrole = 'access'\n[[port]]\nname = 'db0'\nrole = 'downlink'\n";
    let config = SwitchConfig {
        ports: vec![PortConfig::new("web0"), PortConfig::new("db0")],
        ..SwitchConfig::new("vs0")
    };
    let note = r#"vs.toml:3: role "access" is called "downlink" now"#.to_owned();
    assert_eq!(parse_noting("vs.toml", text, None), Ok((config, vec![note])));
    assert!("access".parse::<Role>().is_err(), "only files are that old");
}

#[test]
fn all_errors_at_once_in_the_order_of_lines() {
    refuses(
        r#"[switch]
name = "a/b"
ageing = "long"
fdb_max = 10
[[port]]
name = "web0"
mode = "brigde"
mac = ["02:00:00:00:00:01",
       "zz",
       "01:00:5e:00:00:01"]
har-pin = true
[[port]]
name = "web0"
mac = "02:00:00:00:00:01"
tap = true
netns = "db"
[[fdb]]
mac = "02:00:00:00:00:09"
port = "db0"
"#,
        &[
            "vs.toml:2: switch a/b: '/' cannot be in a switch's name; use letters, digits, '-' and '_'",
            "vs.toml:3: switch a/b: ageing is a string; write ageing = 300",
            r#"vs.toml:4: switch a/b: unknown key "fdb_max"; did you mean "fdb-max"?"#,
            r#"vs.toml:7: port web0: unknown mode "brigde"; did you mean "bridge"?"#,
            r#"vs.toml:9: port web0: mac "zz" is not a MAC address: it has 1 of 6 bytes; write it like 02:00:00:00:00:01"#,
            r#"vs.toml:10: port web0: mac "01:00:5e:00:00:01" is a group address: a station's address is even in its first byte"#,
            r#"vs.toml:11: port web0: unknown key "har-pin"; did you mean "hairpin"?"#,
            "vs.toml:13: port web0: the interface is in this switch twice; remove one of the two",
            "vs.toml:14: port web0: mac 02:00:00:00:00:01 is already bound to port web0; remove one of them",
            "vs.toml:15: port web0: a tap has no far end in a namespace; leave out either tap or netns",
            "vs.toml:19: fdb 02:00:00:00:00:09: db0 is not a port of this switch; add the port or remove the entry",
        ],
    );
}

#[test]
fn wrong_types() {
    refuses(
        r#"
[switch]
name = 1
fdb-max = 1.5
host-access = "on"
[[port]]
name = true
hairpin = 1
mac = [5]
netns = 1979-05-27
peer = "eth0"
[[fdb]]
mac = 5
port = []
vlan = "none"
"#,
        &[
            r#"vs.toml:3: switch: name is an integer; write name = "vs0""#,
            "vs.toml:4: switch: fdb-max is a float; write fdb-max = 65536",
            "vs.toml:5: switch: host-access is a string; write host-access = true or host-access = false",
            r#"vs.toml:7: port #1: name is a boolean; write name = "web0""#,
            "vs.toml:8: port #1: hairpin is an integer; write hairpin = true or hairpin = false",
            r#"vs.toml:9: port #1: mac is an integer; write mac = "02:00:00:00:00:01""#,
            r#"vs.toml:10: port #1: netns is a datetime; write netns = "web""#,
            r#"vs.toml:13: fdb #1: mac is an integer; write mac = "02:00:00:00:00:01""#,
            r#"vs.toml:14: fdb #1: port is an array; write port = "web0""#,
            "vs.toml:15: fdb #1: vlan is a string; write vlan = 0",
        ],
    );
}

#[test]
fn numbers_out_of_range() {
    refuses(
        "[switch]\nageing = -1\nfdb-max = 99999999999999999999999999999999999999999\n[[fdb]]\nvlan = 0x10000\nmac = '02:00:00:00:00:01'\nport = 'a'\n[[port]]\nname = 'a'",
        &[
            "vs.toml:2: switch: ageing -1 is out of range; choose 0 to 1000000 seconds (0: nothing is learned)",
            "vs.toml:3: switch: fdb-max 99999999999999999999999999999999999999999 is out of range; choose 1 to 16777216 addresses",
            "vs.toml:5: fdb 02:00:00:00:00:01: vlan 0x10000 is out of range; choose 0 to 4094 (0: untagged)",
        ],
    );
    refuses(
        "[switch]\nageing = 2000000",
        &[
            "vs.toml:2: switch: ageing 2000000 is out of range; choose 0 to 1000000 seconds (0: nothing is learned)",
        ],
    );
}

/// The toml crate takes whatever follows a digit and an underscore for an integer.
#[test]
fn numbers_that_are_none() {
    refuses(
        "[switch]\nageing = 1_000zz\nfdb-max = 1_0\u{1b}",
        &[
            r#"vs.toml:2: switch: ageing "1000zz" is not a number; write ageing = 300"#,
            r#"vs.toml:3: switch: fdb-max "10\u{1b}" is not a number; write fdb-max = 65536"#,
        ],
    );
}

#[test]
fn what_is_missing() {
    refuses(
        "[[port]]\n[[port]]\nname = 'web0'\npeer = 'eth0'\n[[fdb]]\n[[fdb]]\nmac = '02:00:00:00:00:01'\n",
        &[
            "vs.toml:1: port #1: name is missing; add the interface's name",
            "vs.toml:4: port web0: peer without netns; add the netns that it is in, or leave it out",
            "vs.toml:5: fdb #1: mac is missing; add the station's address",
            "vs.toml:5: fdb #1: port is missing; add the name of the port behind which the address is",
            "vs.toml:6: fdb 02:00:00:00:00:01: port is missing; add the name of the port behind which the address is",
        ],
    );
}

#[test]
fn tables() {
    refuses(
        "ageing = 3\nzzz = 1\nport = 'web0'\n[swich]\nageing = 300\n[fdb]\nmac = 'zz'\nport = 'web0'\n",
        &[
            "vs.toml:1: file: ageing outside a table; put it under [switch]",
            r#"vs.toml:2: file: unknown table "zzz"; known are [switch], [[port]], [[fdb]]"#,
            "vs.toml:3: port: a string where an array of tables should be; write [[port]]",
            r#"vs.toml:4: file: unknown table "swich"; did you mean [switch]?"#,
            "vs.toml:6: fdb: a table where an array of tables should be; write [[fdb]]",
            r#"vs.toml:7: fdb zz: mac "zz" is not a MAC address: it has 1 of 6 bytes; write it like 02:00:00:00:00:01"#,
            "vs.toml:8: fdb zz: web0 is not a port of this switch; add the port or remove the entry",
        ],
    );
    refuses(
        "[[switch]]\n[[port]]\nname = 'a'\nx = 1",
        &[
            "vs.toml:1: switch: an array where a table should be; write [switch]",
            &format!(
                r#"vs.toml:4: port a: unknown key "x"; known are name, role, netns, peer, tap, mode, mac, source, datapath, {}"#,
                PORT_FLAGS.map(|flag| flag.key).join(", ")
            ),
        ],
    );
    refuses("port = [1]", &["vs.toml:1: port: an integer where a table should be; write [[port]]"]);
}

#[test]
fn syntax() {
    refuses("[switch\nageing = 1\n", &["vs.toml:1: TOML: unclosed table; expected `]`"]);
    refuses("\n\nfoo bar\n", &["vs.toml:3: TOML: key with no value; expected `=`"]);
    refuses(
        "[[port]]\nname = 'a'\nname = 'b'\nrole = uplink\nmac = 'zz'\n[[fdb]]\nport = 'b'\n",
        &[
            r#"vs.toml:3: TOML: duplicate key "name"; remove one of the two"#,
            "vs.toml:4: TOML: string values must be quoted; expected literal string",
            r#"vs.toml:5: port a: mac "zz" is not a MAC address: it has 1 of 6 bytes; write it like 02:00:00:00:00:01"#,
        ],
    );
    refuses(
        "[[port]]\nname = 'a'\nname = 'b'\nnodst = true\n",
        &[
            r#"vs.toml:3: TOML: duplicate key "name"; remove one of the two"#,
            "vs.toml:4: port a: nodst is for mode source, and this is mode bridge; remove one",
        ],
    );
}

#[test]
fn a_problem_of_nothing_in_the_file_has_no_line() {
    let errors = parse("vs.toml", "", Some("a/b")).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "vs.toml: switch a/b: '/' cannot be in a switch's name; use letters, digits, '-' and '_'"
    );
}

#[test]
fn the_command_and_the_file_name_different_switches() {
    assert_eq!(parse("x", "[switch]\nname = 'vs1'", Some("vs1")), Ok(SwitchConfig::new("vs1")));
    let errors = parse("x", "[switch]\nname = 'vs1'", Some("vs0")).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "x:2: switch vs1: the command is for switch vs0; leave the name out on one side"
    );
}

/// The time of a test run in which each entry looked at all others would be hours.
#[test]
fn a_file_for_a_full_fdb() {
    let mut config = SwitchConfig::new("vs0");
    config.ports = (0..1023).map(|n| PortConfig::new(&format!("p{n}"))).collect();
    let mac = |n: u32| MacAddr([2, 0, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
    let entry = |n| StaticEntry { mac: mac(n), vlan: 0, ifname: format!("p{}", n % 1023) };
    config.fdb = (0..65_536).map(entry).collect();
    let read = parse("x", &crate::config::print::print(&config), None);
    assert_eq!(read.as_ref(), Ok(&config));
    assert_eq!(crate::change::plan::plan(Some(&config), &config), Ok(Vec::new()));
}

proptest! {
    /// A file with a hole or with something in it that does not belong there is a switch or has errors, each one line.
    #[test]
    fn a_damaged_file_has_lines_of_errors(at in any::<Index>(), hole in 0..4usize, filling in "[\\PC\n\"]{0,3}") {
        let at = at.index(OFFICE.len());
        let end = (at + hole).min(OFFICE.len());
        let text = format!("{}{filling}{}", &OFFICE[..at], &OFFICE[end..]);
        let last = text.lines().count();
        match parse("x", &text, None) {
            Ok(config) => prop_assert_eq!(config.validate(), []),
            Err(ConfigErrors(errors)) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(!error.what.contains('\n'), "{error:?}");
                    prop_assert!(error.line.is_none_or(|line| (1..=last.max(1) + 1).contains(&line)), "{error:?}");
                }
            }
        }
    }
}
