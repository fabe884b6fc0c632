//! The switch under test: the lab joined by vswitch, driven by its binary as a user would.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use vswitch_ebpf::abi::ABI_VERSION;

use crate::{
    fabric::{Knob, Mode, Switch},
    frame::{Mac, colons},
    lab::{Lab, Member, OUTSIDE, Outside, STATION_IF, UPLINK},
    topo::{Netns, expect_success},
};

/// A vswitch whose ports are the uplink and a veth for each station. The uplink is the host's interface.
#[derive(Debug)]
pub struct Vswitch {
    /// The instance. Its pins are the machine's, not the namespace's: every test has its own name.
    pub name: String,
    /// More words for `vswitch up`.
    pub options: Vec<String>,
    /// `--datapath` of a station's port, where it is not `auto`.
    pub datapaths: Vec<(String, String)>,
    /// Stations other than `ext` whose ports are uplinks too.
    pub uplinks: Vec<String>,
    /// Stations whose ports vswitch makes, as it is asked to make a macvlan's, with more words for `port add`.
    pub children: Vec<(String, String)>,
}

/// The binary under test.
pub fn binary() -> PathBuf {
    env::var_os("VSWITCH_BIN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/vswitch")),
        PathBuf::from,
    )
}

/// What runs at the tc hooks of a namespace's interface where the kernel has no tcx, and programs are filters and not links:
/// the hook's name and the kernel's number of the program. Nothing where there is tcx.
pub fn filters(netns: &Netns, ifname: &str) -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    for (hook, direction) in [("in", "ingress"), ("out", "egress")] {
        let mut command = netns.command("tc");
        let text = expect_success(command.args(["-j", "filter", "show", "dev", ifname, direction]), None);
        let filters: Value = serde_json::from_str(&text).expect("tc's JSON");
        let ids = filters.as_array().into_iter().flatten().filter_map(|filter| {
            let program = &filter["options"]["prog"];
            program["name"].as_str()?.starts_with("vswitch_").then(|| program["id"].as_u64())?
        });
        found.extend(ids.map(|id| (hook, id)));
    }
    found
}

/// Where a switch of this build has its pins.
pub fn pins(name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/vswitch").join(format!("v{ABI_VERSION}")).join(name)
}

/// A name that no other switch of this machine has.
pub fn unique_name() -> String {
    SWEEP.call_once(sweep);
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("vst-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

static SWEEP: Once = Once::new();

/// Takes away the switches and files of test processes that were killed.
fn sweep() {
    let is_left = |name: &str| {
        let owner =
            name.strip_prefix("vst-").and_then(|rest| rest.split(['-', '.']).next()?.parse::<u32>().ok());
        owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    let versions = std::fs::read_dir("/sys/fs/bpf/vswitch").into_iter().flatten().flatten();
    for pin in versions.filter_map(|version| std::fs::read_dir(version.path()).ok()).flatten().flatten() {
        let name = pin.file_name().to_string_lossy().into_owned();
        if is_left(&name) {
            let _left = Command::new(binary()).args(["-s", &name, "down"]).output();
            // Half made, or of another version.
            let _left = std::fs::remove_dir_all(pin.path());
        }
    }
    for file in std::fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        if is_left(&file.file_name().to_string_lossy()) {
            // A directory was somebody's root, in a mount namespace that is gone: what it still shows is not ours.
            let _left = std::fs::remove_file(file.path()).or_else(|_| std::fs::remove_dir(file.path()));
        }
    }
}

/// `vswitch -s NAME ARGS` in a namespace; args are split at blanks.
pub fn command(netns: &Netns, name: &str, args: &str) -> Command {
    let mut command = netns.command(binary());
    command.args(["-s", name]).args(args.split_whitespace());
    command
}

/// Runs it; panics with what it said if it fails.
pub fn run(netns: &Netns, name: &str, args: &str) -> Output {
    let output = command(netns, name, args).output().expect("start vswitch");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "vswitch {args}: {}: {stderr}", output.status);
    output
}

/// Runs it with `-j` and parses the answer.
pub fn json(netns: &Netns, name: &str, args: &str) -> Value {
    let output = run(netns, name, &format!("-j {args}"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|err| {
        panic!("vswitch -j {args}: {err} in {:?}", String::from_utf8_lossy(&output.stdout))
    })
}

impl Vswitch {
    /// With every default.
    pub fn new() -> Self {
        Self {
            name: unique_name(),
            options: Vec::new(),
            datapaths: Vec::new(),
            uplinks: Vec::new(),
            children: Vec::new(),
        }
    }

    /// With more words for `vswitch up`.
    pub fn with(options: &str) -> Self {
        Self { options: options.split_whitespace().map(str::to_owned).collect(), ..Self::new() }
    }

    /// With another datapath for a station's port.
    pub fn datapath(mut self, station: &str, datapath: &str) -> Self {
        self.datapaths.push((station.to_owned(), datapath.to_owned()));
        self
    }

    /// With the port of a station as a further uplink.
    pub fn uplink(mut self, station: &str) -> Self {
        self.uplinks.push(station.to_owned());
        self
    }

    /// With a port that vswitch makes for a station, with its address, and more words for `port add`.
    pub fn child(mut self, station: &str, options: &str) -> Self {
        self.children.push((station.to_owned(), options.to_owned()));
        self
    }

    fn options_of(&self, member: &Member) -> Option<&str> {
        let child = self.children.iter().find(|(station, _)| *station == member.name);
        child.map(|(_, options)| options.as_str())
    }

    fn run(&self, lab: &Lab, args: &str) {
        run(&lab.switch, &self.name, args);
    }
}

impl Default for Vswitch {
    fn default() -> Self {
        Self::new()
    }
}

impl Switch for Vswitch {
    fn start(&mut self, lab: &Lab) -> Option<String> {
        let existing = lab.downlinks().filter(|member| self.options_of(member).is_none());
        existing.for_each(|member| lab.cable(&member.name));
        let (mut up, mut add) = (format!("up {}", self.options.join(" ")), Vec::new());
        let outside = lab.members.iter().filter(|member| member.name == OUTSIDE);
        // The uplinks first: they have the lowest slots.
        for member in outside.chain(lab.downlinks()) {
            let uplink =
                if member.name == OUTSIDE || self.uplinks.contains(&member.name) { "--uplink " } else { "" };
            let port = &member.port;
            if let Some(options) = self.options_of(member) {
                let (netns, mac) = (member.netns.name(), colons(member.mac));
                add.push(format!(
                    "port add {port} --netns {netns} --peer {STATION_IF} --mac {mac} {options}"
                ));
                continue;
            }
            match self.datapaths.iter().find(|(station, _)| *station == member.name) {
                // `up` does not know datapaths; and whoever follows keeps the order.
                Some((_, datapath)) => add.push(format!("port add {port} {uplink}--datapath {datapath}")),
                None if !add.is_empty() => add.push(format!("port add {port} {uplink}")),
                None => up += &format!(" {uplink}{port}"),
            }
        }
        self.run(lab, &up);
        add.iter().for_each(|add| self.run(lab, add));
        (lab.outside != Outside::Nothing).then(|| UPLINK.to_owned())
    }

    fn stop(&mut self, lab: &Lab) {
        // Also while a failed test unwinds, when there may be no switch.
        let _gone = command(&lab.switch, &self.name, "down").output();
    }

    fn set(&mut self, lab: &Lab, station: &str, knob: Knob, on: bool) {
        let (port, value) = (lab.port(station), if on { "on" } else { "off" });
        self.run(lab, &format!("port set {port} --{} {value}", knob.word().replace('_', "-")));
    }

    fn set_mode(&mut self, lab: &Lab, station: &str, mode: Mode) {
        self.run(lab, &format!("port set {} --mode {}", lab.port(station), mode.word()));
    }

    fn set_sources(&mut self, lab: &Lab, station: &str, sources: &[Mac]) {
        let port = lab.port(station);
        let list = sources.iter().map(|mac| format!(" --source {}", colons(*mac))).collect::<String>();
        match sources {
            [] => self.run(lab, &format!("port source flush {port}")),
            _ => self.run(lab, &format!("port set {port}{list}")),
        }
    }

    fn set_nodst(&mut self, lab: &Lab, station: &str, on: bool) {
        let value = if on { "on" } else { "off" };
        self.run(lab, &format!("port set {} --nodst {value}", lab.port(station)));
    }

    fn flush(&mut self, lab: &Lab) {
        self.run(lab, "fdb flush");
    }

    fn add_static(&mut self, lab: &Lab, mac: Mac, station: &str) {
        // A static entry of another port has to be deleted first; there may be none.
        let _none = command(&lab.switch, &self.name, &format!("fdb del {}", colons(mac))).output();
        self.run(lab, &format!("fdb add {} {} --static", colons(mac), lab.port(station)));
    }
}

/// Seconds of ageing as an option of `up`: a live switch's are changed by `apply` alone.
pub fn ageing(ageing: Duration) -> String {
    format!("--ageing {}", ageing.as_secs())
}
