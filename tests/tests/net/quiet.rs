//! Does a controller with nothing to do do nothing? Every system call that could change something is looked at.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use vswitch_tests::{
    campaign,
    controller::{AT_ONCE, Controller},
    hosts::{Hosts, Killed, signal, until},
    lab::{HOST, Lab, Outside},
    require,
    require::{NAMESPACES, Need},
    topo::Netns,
    vswitch::Vswitch,
};

use crate::hostile::hosts;

/// Looks at everything; `VSWITCH_RECONCILES` overrides both.
const ROUNDS: u64 = 100;
const FULL_ROUNDS: u64 = 1000;

/// What may be asked of bpf(2) and netlink.
const LOOKS: [&str; 12] = [
    "BPF_OBJ_GET",
    "BPF_OBJ_GET_INFO_BY_FD",
    "BPF_MAP_LOOKUP_ELEM",
    "BPF_MAP_LOOKUP_BATCH",
    "BPF_LINK_GET_NEXT_ID",
    "BPF_LINK_GET_FD_BY_ID",
    "BPF_PROG_GET_FD_BY_ID",
    "BPF_MAP_GET_FD_BY_ID",
    "RTM_GETLINK",
    "RTM_GETNSID",
    "RTM_GETNEIGH",
    "RTM_GETTFILTER",
];

/// What may be asked by ioctl(2). strace does not look into SIOCETHTOOL; an offload that it switches is told by the
/// kernel, to `ip monitor`.
const ASKS: [&str; 4] = ["SIOCETHTOOL", "SIOCGIFNAME", "NS_GET_NSTYPE", "FIONBIO"];

#[test]
fn reconciling_without_a_change_attaches_and_updates_nothing() {
    require!(NAMESPACES);
    require!(&[Need::Tool("strace"), Need::Tool("ethtool"), Need::Tool("bpftool")]);
    let rounds = campaign::number("VSWITCH_RECONCILES", ROUNDS, FULL_ROUNDS) as usize;
    let (hosts, controller) = hosts();
    // Its first look at everything is over.
    thread::sleep(Duration::from_secs(1));
    let monitors = ["a", "b", "c", HOST].map(|name| Monitor::of(hosts.netns(name)));
    let trace = Trace::of(controller.pid());
    for round in 1..=rounds {
        // SAFETY: no pointers; the controller is a child that has not been waited for.
        unsafe { libc::kill(controller.pid().cast_signed(), libc::SIGHUP) };
        until("it has listed the interfaces", AT_ONCE, || trace.lists() >= round);
    }
    let calls = trace.end();
    println!("{rounds} reconciles: {calls:#?}");
    let others: Vec<_> = calls
        .keys()
        .filter(|call| !LOOKS.contains(&call.as_str()) && !ASKS.contains(&call.as_str()))
        .collect();
    assert!(others.is_empty(), "calls that are no looks: {others:?}");
    assert!(calls["RTM_GETLINK"] >= rounds && calls["BPF_MAP_LOOKUP_BATCH"] >= 2 * rounds);
    for monitor in monitors {
        assert_eq!(monitor.end(), "", "what the kernel tells of changed links");
    }
}

/// What the kernel tells of the links of a namespace.
struct Monitor(Killed);

impl Monitor {
    fn of(netns: &Netns) -> Self {
        let mut command = netns.command("ip");
        Self(Killed(
            command.args(["monitor", "link"]).stdout(Stdio::piped()).spawn().expect("start ip monitor"),
        ))
    }

    fn end(mut self) -> String {
        signal(&self.0.0, libc::SIGTERM);
        let mut said = String::new();
        self.0.0.stdout.take().expect("piped").read_to_string(&mut said).expect("read what it says");
        said
    }
}

/// strace on all threads of a process, for the calls by which anything could be changed.
struct Trace {
    child: Child,
    file: PathBuf,
}

impl Trace {
    fn of(pid: u32) -> Self {
        let file = env::temp_dir().join(format!("vst-{}-trace-{pid}", std::process::id()));
        let calls = "trace=bpf,sendto,sendmsg,ioctl,mount,mkdir,unlink,unlinkat,rename,chmod,fchmodat,chown";
        let child = Command::new("strace")
            .args(["-f", "-e", calls, "-o"])
            .arg(&file)
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("start strace");
        until("strace is attached", AT_ONCE, || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the controller runs");
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        });
        Self { child, file }
    }

    /// How often all interfaces were listed: once in each round, and nowhere else.
    fn lists(&self) -> usize {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let is_dump = |line: &&str| line.contains("NLM_F_DUMP") || line.contains("NLM_F_REQUEST|0x300");
        text.lines()
            .filter(|line| netlink_type(line).as_deref() == Some("RTM_GETLINK"))
            .filter(is_dump)
            .count()
    }

    /// How often each call was made: bpf's and ioctl's commands, netlink's types, else the system call.
    fn end(mut self) -> BTreeMap<String, usize> {
        signal(&self.child, libc::SIGINT);
        self.child.wait().expect("wait for strace");
        let text = fs::read_to_string(&self.file).expect("strace's output");
        fs::remove_file(&self.file).expect("remove strace's output");
        let mut calls = BTreeMap::new();
        for line in text.lines() {
            // `PID bpf(BPF_MAP_LOOKUP_ELEM, {...`, `PID sendto(7, [{nlmsg_len=40, nlmsg_type=RTM_GETLINK, ...`
            let Some((_, call)) = line.split_once(' ') else { continue };
            let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
            if name.starts_with("<...") || name.starts_with("---") {
                continue;
            }
            let word = |text: &str| text.split([',', ' ', ')', '}']).next().unwrap_or_default().to_owned();
            let what = match name {
                "bpf" => word(arguments),
                // Signals wake the runtime through a socket of its own.
                "sendto" if !arguments.contains("AF_NETLINK") => continue,
                "sendto" | "sendmsg" => netlink_type(arguments).unwrap_or_else(|| name.to_owned()),
                "ioctl" => arguments.split_once(", ").map(|(_, request)| word(request)).unwrap_or_default(),
                _ => name.to_owned(),
            };
            *calls.entry(what).or_default() += 1;
        }
        calls
    }
}

/// What a message asks for. strace knows the names where it can see whose socket it is: not in another namespace.
fn netlink_type(call: &str) -> Option<String> {
    let word = call.split_once("nlmsg_type=")?.1.split([',', ' ']).next()?;
    let name = match word {
        "0x12" => "RTM_GETLINK",
        "0x1e" => "RTM_GETNEIGH",
        "0x2e" => "RTM_GETTFILTER",
        "0x5a" => "RTM_GETNSID",
        other => other,
    };
    Some(name.to_owned())
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
        let _gone = fs::remove_file(&self.file);
    }
}

/// The cost of looking each half second for what no event tells.
#[test]
fn looking_costs_next_to_nothing() {
    require!(NAMESPACES);
    let ports = 20;
    let lab = Lab::new(Outside::Station, &["a", "b"]);
    let hosts = Hosts::new(Vswitch::new(), lab);
    let far = Netns::new("far");
    for port in 0..ports {
        hosts.vswitch(&format!("port add w{port} --netns {} --peer e{port}", far.name()));
    }
    let controller = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    thread::sleep(Duration::from_secs(1));
    let (before, start) = (controller.ticks(), Instant::now());
    thread::sleep(Duration::from_secs(5));
    let spent = controller.ticks() - before;
    println!("{ports} ports: {spent} ticks in {:?}, RSS {} KiB", start.elapsed(), controller.rss_kib());
    assert!(spent <= 2, "{spent} ticks of CPU time in 5 s");
    assert!(controller.rss_kib() <= 12 << 10, "RSS {} KiB", controller.rss_kib());
}
