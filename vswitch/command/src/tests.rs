//! Which command lines are understood, and what is said of the others?

use vswitch::cli::Usage;

use super::*;

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(std::iter::once("vswitch").chain(line.split_whitespace()))
        .map_err(|error| Usage::from_clap(&error).to_string())
}

#[test]
fn the_grammar_is_consistent() {
    command().debug_assert();
}

#[test]
fn good_lines_are_understood() {
    let lines = [
        "up",
        "upgrade",
        "-s lab upgrade -j",
        "up --uplink nic0 web0 db0 -j",
        "up --uplink nic0 --uplink nic1 web0 --ageing 0 --fdb-max 10 --host-access off --macvlan-compat",
        "-s vs1 -n lab down",
        "--switch vs1 --netns lab down",
        "apply file.toml --dry-run",
        "apply -",
        "check file.toml",
        "export",
        "run",
        "run file.toml --log-packets",
        "show",
        "sho",
        "port",
        "po sh",
        "port -j",
        "port show web0",
        "port add web0 --netns web --peer lan0 -n lab",
        "port add vm0 --tap --isolated on --learning off --flood off --mcast-flood on --bcast-flood on",
        "port add nic0 --uplink --datapath xdp-generic --hairpin on",
        "port set web0 --mac 02:00:00:00:00:01 --mac 02:00:00:00:00:02 --mode private",
        "port set web0 --uplink=off",
        "port del web0",
        "fdb",
        "fdb show web0",
        "fdb get 02:00:00:00:00:01",
        "fdb add 02:00:00:00:00:01 web0 --static --vlan 7",
        "fdb del 02:00:00:00:00:01 --vlan 7",
        "fdb flush",
        "fdb fl web0",
        "stats",
        "st web0 --watch 1 -j",
        "bench --quick --scenario tcp,udp",
    ];
    for line in lines {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
    }
}

#[test]
fn bad_lines_get_one_line() {
    let lines = [
        (
            "po s",
            "unrecognized subcommand 's'; tip: some similar subcommands exist: 'source', 'show', 'set'; usage: vswitch port",
        ),
        ("s", "unrecognized subcommand 's'; tip: "),
        ("bridge", "unrecognized subcommand 'bridge'"),
        ("-s a/b show", "invalid value 'a/b' for '--switch <SWITCH>': '/' cannot be in a switch's name"),
        ("up --ageing never", "invalid value 'never' for '--ageing <SECONDS>'"),
        (
            "up --host-access maybe",
            "invalid value 'maybe' for '--host-access <on|off>' [possible values: on, off]",
        ),
        ("apply", "the following required arguments were not provided: <FILE>; usage: vswitch apply"),
        ("port add", "the following required arguments were not provided: <IF>; usage: vswitch port add"),
        (
            "port set web0 --mode trunk",
            "invalid value 'trunk' for '--mode <MODE>' [possible values: bridge, ",
        ),
        (
            "port set web0 --datapath ebpf",
            "invalid value 'ebpf' for '--datapath <DATAPATH>' [possible values: auto, ",
        ),
        ("port set web0 --mac 01:00:5e:00:00:01", "invalid value '01:00:5e:00:00:01' for '--mac <MAC>': "),
        ("port set web0 --colour red", "unexpected argument '--colour' found; "),
        ("fdb add 02:00:00:00:00 web0", "invalid value '02:00:00:00:00' for '<MAC>': "),
        ("fdb add 00:00:00:00:00:00 web0", "invalid value '00:00:00:00:00:00' for '<MAC>': "),
        (
            "fdb add 02:00:00:00:00:01 web0 --vlan 4095",
            "invalid value '4095' for '--vlan <N>': 4095 is not in ",
        ),
        ("stats --watch 0", "invalid value '0' for '--watch <SECONDS>': 0 is not in "),
        ("-n a --netns b show", "the argument '-n <NETNS>' cannot be used with '--netns <NETNS>'"),
    ];
    for (line, expected) in lines {
        let message = parse(line).expect_err(line);
        assert!(message.starts_with(expected), "{line}: {message}");
        assert!(!message.contains('\n'), "{line}: {message}");
    }
}

#[test]
fn a_word_cannot_speak_to_the_terminal() {
    let error = Cli::try_parse_from(["vswitch", "sh\u{1b}[2Jow"]).unwrap_err();
    let message = Usage::from_clap(&error).to_string();
    // Escaped here, or left out by clap, as its features are.
    assert!(message.starts_with("unrecognized subcommand 'sh"), "{message}");
    assert!(!message.contains(char::is_control), "{message}");
}

#[test]
fn where_to_work_is_said_before_or_after_the_command() {
    let netns = |line: &str| parse(line).unwrap().netns().map(str::to_owned);
    assert_eq!(netns("show"), None);
    for line in ["-n lab show", "--netns lab show", "show -n lab", "port add web0 --netns web -n lab"] {
        assert_eq!(netns(line).as_deref(), Some("lab"), "{line}");
    }
    assert_eq!(netns("port add web0 --netns web"), None);
}

#[test]
fn every_command_has_examples() {
    fn check(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("EXAMPLES\n  vswitch "), "{}", command.get_name());
        for subcommand in command.get_subcommands() {
            check(subcommand);
        }
    }
    check(&command());
}

#[test]
fn the_version_names_build_and_abi() {
    assert_eq!(command().render_version(), format!("vswitch 0.1.0 ({BUILD}, ABI {ABI_VERSION})\n"));
}
