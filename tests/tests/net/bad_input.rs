//! What does vswitch do when it is asked for something wrong? It says so on one line, and changes nothing at all.
//!
//! The cases are in `bad_input_*.rs`, by what is wrong.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;
use vswitch_tests::{
    frame::{Mac, colons},
    require::Need,
    topo::{End, Netns, veth},
    vswitch,
};

pub(crate) const NEEDS: &[Need] =
    &[Need::Root, Need::Tool("ip"), Need::Tool("nsenter"), Need::Tool("ethtool")];

/// A machine with the interfaces `h1` to `h5`, whose far ends are `p1` to `p5` in another namespace; the name of a switch
/// that is not up.
pub(crate) struct Bench {
    pub(crate) machine: Netns,
    pub(crate) far: Netns,
    pub(crate) name: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (machine, far) = (Netns::new("machine"), Netns::new("far"));
        let bench = Self { machine, far, name: vswitch::unique_name() };
        (1..=5).for_each(|number| bench.plug(number));
        bench
    }

    /// Makes `h<number>`, and its far end `p<number>`.
    pub(crate) fn plug(&self, number: u8) {
        let (here, there) = (format!("h{number}"), format!("p{number}"));
        veth(
            End { netns: &self.machine, ifname: &here, mac: Self::mac(number) },
            End { netns: &self.far, ifname: &there, mac: [2, 0, 0, 0, 1, number] },
        );
    }

    /// With a switch that has an uplink and two downlinks, one of them with an address.
    pub(crate) fn up() -> Self {
        let bench = Self::new();
        bench.run("up --uplink h1 h2 h3");
        bench.run(&format!("port set h2 --mac {}", Self::known()));
        bench
    }

    /// The address of `h<number>`.
    pub(crate) fn mac(number: u8) -> Mac {
        [2, 0, 0, 0, 2, number]
    }

    /// The address that is bound to `h2` in [`Bench::up`].
    pub(crate) fn known() -> String {
        colons([2, 0, 0, 0, 7, 1])
    }

    pub(crate) fn command(&self, args: &str) -> Command {
        vswitch::command(&self.machine, &self.name, args)
    }

    pub(crate) fn run(&self, args: &str) -> Output {
        vswitch::run(&self.machine, &self.name, args)
    }

    /// Runs what is wrong: one line on stderr, nothing on stdout, and everything is as it was.
    #[track_caller]
    pub(crate) fn refuses(&self, args: &str, code: i32, line: &str) {
        self.refuses_command(self.command(args), code, &[line]);
    }

    /// As [`Bench::refuses`], for any command and any number of lines.
    #[track_caller]
    pub(crate) fn refuses_command(&self, mut command: Command, code: i32, lines: &[impl AsRef<str>]) {
        let before = self.state();
        let output = command.output().expect("start vswitch");
        let after = self.state();
        let expected = lines.iter().map(|line| format!("vswitch: {}\n", line.as_ref())).collect::<String>();
        let got = String::from_utf8_lossy(&output.stderr);
        assert_eq!(got, expected, "{command:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{command:?}");
        assert_eq!(output.status.code(), Some(code), "{command:?}: {got}");
        same(&before, &after, &format!("{command:?}"));
    }

    /// Everything that a command might have changed, as text.
    pub(crate) fn state(&self) -> String {
        let mut state = String::new();
        let said = |args: &str| {
            let output = self.command(args).output().expect("start vswitch");
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        writeln!(state, "{}", said("export")).unwrap();
        for line in said("fdb show").lines() {
            // Addresses age, and stations talk.
            if !line.contains(" learned ") {
                writeln!(state, "{line}").unwrap();
            }
        }
        tree(&self.pins(), &mut state);
        tree(&self.locks(), &mut state);
        for netns in [&self.machine, &self.far] {
            links(netns, &mut state);
        }
        state
    }

    pub(crate) fn pins(&self) -> PathBuf {
        vswitch::pins(&self.name)
    }

    pub(crate) fn locks(&self) -> PathBuf {
        Path::new("/run/vswitch").join(&self.name)
    }

    /// Fails unless nothing of the switch is left: no pin, no lock, and on the interfaces no program.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        assert!(!self.pins().exists(), "{} is left", self.pins().display());
        assert!(!self.locks().exists(), "{} is left", self.locks().display());
        let mut state = String::new();
        links(&self.machine, &mut state);
        assert!(!state.contains("program"), "a program is left:\n{state}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Most tests leave none.
        let _none = self.command("down").output();
    }
}

/// Fails with the lines that differ: the whole is long.
#[track_caller]
pub(crate) fn same(before: &str, after: &str, what: &str) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (before_lines, after_lines) = (lines(before), lines(after));
    let gone = before_lines.difference(&after_lines).map(|line| format!("\n- {line}"));
    let new = after_lines.difference(&before_lines).map(|line| format!("\n+ {line}"));
    assert!(before == after, "{what} changed something:{}", gone.chain(new).collect::<String>());
}

/// A file's path that no other test has, deleted on drop.
pub(crate) struct TempFile(pub(crate) PathBuf);

impl TempFile {
    pub(crate) fn new(text: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/{}.toml", vswitch::unique_name()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

/// What is below a directory, by name.
fn tree(dir: &Path, text: &mut String) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths = entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    paths.sort();
    for path in paths {
        writeln!(text, "{}", path.display()).unwrap();
        tree(&path, text);
    }
}

/// Interfaces with all that vswitch may change of them: flags, promiscuity, offloads and programs.
fn links(netns: &Netns, text: &mut String) {
    let listed: Value = serde_json::from_str(&netns.ip("-d -j link")).unwrap();
    for link in listed.as_array().unwrap() {
        let ifname = link["ifname"].as_str().unwrap();
        // A carrier comes when it comes.
        let flags = link["flags"].as_array().unwrap().iter().filter_map(Value::as_str);
        let flags = flags.filter(|flag| !matches!(*flag, "LOWER_UP" | "NO-CARRIER" | "M-DOWN"));
        let flags = flags.collect::<Vec<_>>().join(",");
        let [index, mac, mtu, promiscuity, master] =
            ["ifindex", "address", "mtu", "promiscuity", "master"].map(|key| link[key].to_string());
        writeln!(text, "{ifname} {index} {mac} {flags} mtu {mtu} promiscuity {promiscuity} master {master}")
            .unwrap();
        if let Some(id) = link["xdp"]["prog"]["id"].as_u64() {
            writeln!(text, "{ifname} xdp program {id}").unwrap();
        }
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            let query = || SchedClassifier::query_tcx(ifname, direction);
            for program in netns.run(query).map_or_else(|_| Vec::new(), |(_, programs)| programs) {
                writeln!(text, "{ifname} {direction:?} program {}", program.id()).unwrap();
            }
        }
        for (hook, program) in vswitch::filters(netns, ifname) {
            writeln!(text, "{ifname} {hook} program {program}").unwrap();
        }
        let offloads = netns.command("ethtool").args(["-k", ifname]).output().expect("start ethtool");
        for offload in String::from_utf8_lossy(&offloads.stdout).lines() {
            writeln!(text, "{ifname} {offload}").unwrap();
        }
    }
}
