//! Do real hosts reach each other? A lab whose members have IP addresses, joined by one kind of switch: ping and TCP.

use std::{
    io::{self, BufRead as _, BufReader},
    process::{Child, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    fabric::Switch,
    lab::{HOST, Lab, STATION_IF},
    patience::patience,
    stream,
    topo::{Netns, expect_success},
    vswitch::{self, Vswitch},
};

/// How long a switch that has just been started may take until the first ping comes back.
const SETTLE: Duration = Duration::from_secs(5);

/// What `ping` says at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    pub sent: u32,
    pub received: u32,
    pub duplicates: u32,
}

impl Pings {
    /// Panics unless every ping came back, once.
    pub fn assert_all(self, what: &str) {
        let Self { sent, received, duplicates } = self;
        assert!(sent > 0 && sent == received && duplicates == 0, "{what}: {self:?}");
    }

    fn parse(text: &str) -> Self {
        let number_before = |words: &str| {
            let line = text.lines().find(|line| line.contains("packets transmitted"))?;
            line.split(", ").find_map(|part| part.strip_suffix(words))?.trim().parse().ok()
        };
        Self {
            sent: number_before(" packets transmitted").unwrap_or_default(),
            received: number_before(" received").unwrap_or_default(),
            duplicates: number_before(" duplicates").map_or(0, |count: u32| count),
        }
    }
}

/// What `iperf3` says of one TCP transfer. What is on its way when the sender is done is not `received`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    pub sent: u64,
    pub received: u64,
    pub retransmits: u64,
    pub bits_per_second: f64,
}

/// A lab whose members are hosts in one IP network, at work. Built by hand, it is a lab whose switch is yet to come, and
/// is taken away with it.
pub struct Hosts<S: Switch> {
    pub switch: S,
    pub lab: Lab,
}

impl<S: Switch> Hosts<S> {
    pub fn new(switch: S, lab: Lab) -> Self {
        let mut hosts = Self { switch, lab };
        let host_if = hosts.switch.start(&hosts.lab);
        for member in &hosts.lab.members {
            let address = hosts.address(&member.name);
            member.netns.ip(&format!("address add {address}/24 dev {STATION_IF}"));
        }
        if let Some(ifname) = host_if {
            hosts.lab.switch.ip(&format!("address add {}/24 dev {ifname}", hosts.address(HOST)));
        }
        let first = hosts.lab.members[0].name.as_str();
        for member in hosts.lab.members.iter().skip(1) {
            hosts.await_ping(first, &member.name);
        }
        hosts
    }

    pub fn address(&self, name: &str) -> String {
        let number = if name == HOST {
            1
        } else {
            10 + self.lab.members.iter().position(|member| member.name == name).expect("a member's name")
        };
        format!("10.9.0.{number}")
    }

    pub fn netns(&self, name: &str) -> &Netns {
        if name == HOST { &self.lab.switch } else { &self.lab.member(name).netns }
    }

    /// Every ordered pair of these.
    pub fn pairs<'a>(names: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        names.iter().flat_map(|from| names.iter().map(|to| (*from, *to))).filter(|(from, to)| from != to)
    }

    /// `ping <args>` with a count (`-c 20`) that bounds it.
    pub fn ping(&self, from: &str, to: &str, args: &str) -> Pings {
        self.ping_address(from, &self.address(to), args)
    }

    pub fn ping_address(&self, from: &str, address: &str, args: &str) -> Pings {
        let output = self.start_ping(from, address, args).wait_with_output().expect("wait for ping");
        Pings::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// A ping that runs while the test does something; ends it with [`finish_ping`].
    pub fn start_ping(&self, from: &str, address: &str, args: &str) -> Child {
        let mut command = self.netns(from).command("ping");
        command.arg("-q").args(args.split_whitespace()).arg(address);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start ping")
    }

    /// How many pings the namespace has sent, ever: a loaded machine sends fewer in the same time.
    pub fn pings_sent(&self, from: &str) -> u32 {
        let text = expect_success(self.netns(from).command("cat").arg("/proc/net/snmp"), None);
        let mut rows = text.lines().filter_map(|line| line.strip_prefix("Icmp: ")).map(str::split_whitespace);
        let (names, numbers) = (rows.next().expect("names"), rows.next().expect("numbers"));
        let sent = names.zip(numbers).find(|(name, _)| *name == "OutEchos");
        sent.and_then(|(_, number)| number.parse().ok()).expect("a number of echo requests")
    }

    /// Waits until one ping comes back.
    pub fn await_ping(&self, from: &str, to: &str) {
        let deadline = Instant::now() + patience(SETTLE);
        while self.ping(from, to, "-c 1 -W 0.2").received == 0 {
            assert!(Instant::now() < deadline, "{from} does not reach {to}");
        }
    }

    /// Moves bytes by TCP and compares each with what was sent. Returns how many segments were sent again.
    pub fn transfer(&self, from: &str, to: &str, bytes: usize) -> u32 {
        let addresses = [from, to].map(|name| self.address(name));
        let host = |name, address| stream::Host { name, netns: self.netns(name), address };
        stream::tcp(host(from, &addresses[0]), host(to, &addresses[1]), bytes)
    }

    /// One TCP transfer with default offloads; `args` bound it, in time (`-t 1`) or bytes (`-n 64M`).
    pub fn iperf(&self, from: &str, to: &str, args: &str) -> Transfer {
        let mut server = self.netns(to).command("iperf3");
        server.args(["--server", "--one-off", "--forceflush"]).stdin(Stdio::null());
        let mut server = Killed(server.stdout(Stdio::piped()).spawn().expect("start the iperf3 server"));
        let mut said = BufReader::new(server.0.stdout.take().expect("piped")).lines();
        assert!(
            said.by_ref().map_while(Result::ok).any(|line| line.contains("listening")),
            "the iperf3 server in {to} does not listen"
        );
        let mut client = self.netns(from).command("iperf3");
        client.args(["--json", "--connect-timeout", "3000", "--client", &self.address(to)]);
        client.args(["--snd-timeout", &patience(stream::TIMEOUT).as_millis().to_string()]);
        let output = client.args(args.split_whitespace()).output().expect("start the iperf3 client");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let number = |path: &str| json.pointer(path).and_then(Value::as_f64);
        let (Some(sent), Some(received), Some(bits_per_second)) = (
            number("/end/sum_sent/bytes"),
            number("/end/sum_received/bytes"),
            number("/end/sum_received/bits_per_second"),
        ) else {
            panic!("iperf3 from {from} to {to}: {}", String::from_utf8_lossy(&output.stdout));
        };
        Transfer {
            sent: sent as u64,
            received: received as u64,
            retransmits: number("/end/sum_sent/retransmits").unwrap_or_default() as u64,
            bits_per_second,
        }
    }
}

impl Hosts<Vswitch> {
    /// `vswitch ARGS`, which must succeed.
    pub fn vswitch(&self, args: &str) -> Output {
        vswitch::run(&self.lab.switch, &self.switch.name, args)
    }

    /// `vswitch -j ARGS`.
    pub fn json(&self, args: &str) -> Value {
        vswitch::json(&self.lab.switch, &self.switch.name, args)
    }

    /// A port's drops for one reason.
    pub fn drops(&self, station: &str, reason: &str) -> u64 {
        let rows = self.json(&format!("stats {}", self.lab.port(station)));
        rows[0]["drops"][reason].as_u64().unwrap_or_else(|| panic!("no drop reason {reason} in {rows}"))
    }
}

impl<S: Switch> Drop for Hosts<S> {
    fn drop(&mut self) {
        self.switch.stop(&self.lab);
    }
}

/// Ends a ping as Ctrl-C does, and tells what it says.
pub fn finish_ping(ping: Child) -> Pings {
    signal(&ping, libc::SIGINT);
    let output = ping.wait_with_output().expect("wait for ping");
    Pings::parse(&String::from_utf8_lossy(&output.stdout))
}

/// Sends a signal to a child that has not been waited for.
pub fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: no pointers; the child is ours and has not been waited for, so the number is still its own.
    let sent = unsafe { libc::kill(child.id().cast_signed(), signal) };
    assert_eq!(sent, 0, "signal {signal} to {}: {}", child.id(), io::Error::last_os_error());
}

/// Looks until it is so, at most for `limit`.
pub fn until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let patience = patience(limit);
    let deadline = Instant::now() + patience;
    while !so() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A child that does not outlive the test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}
