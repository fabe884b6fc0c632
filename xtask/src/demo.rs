//! What does vswitch do, seen in half a minute? Real hosts in namespaces talk through it, and all is counted.

mod guard;
mod transfer;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{self, Command, Output},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use self::guard::Guard;
use crate::{build, probe, route::Privilege, setup};

/// Pings of one direction of one pair; not one may be lost.
const PINGS: u32 = 5;
const GIBIBYTE: u64 = 1 << 30;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the demo starts of itself as further processes.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Guard { binary: PathBuf, switch: String },
    #[command(hide = true)]
    Receive,
    #[command(hide = true)]
    Send { address: Ipv4Addr, bytes: u64 },
}

/// A host of the demo: its namespace's short name, its interface there, and the last byte of its address.
struct Host {
    name: &'static str,
    ifname: &'static str,
    number: u8,
}

/// The first is the machine that holds the switch; the second is outside, behind the uplink.
const HOSTS: [Host; 5] = [
    Host { name: "host", ifname: "nic0", number: 1 },
    Host { name: "outside", ifname: "eth0", number: 2 },
    Host { name: "web", ifname: "eth0", number: 11 },
    Host { name: "db", ifname: "eth0", number: 12 },
    Host { name: "cache", ifname: "eth0", number: 13 },
];

impl Host {
    fn address(&self) -> String {
        format!("10.77.0.{}", self.number)
    }
}

/// The demo's namespaces and switch.
struct Stage {
    binary: PathBuf,
    switch: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.part {
        None => {}
        Some(Part::Guard { binary, switch }) => return guard::run(binary, switch),
        Some(Part::Receive) => return transfer::receive(),
        Some(Part::Send { address, bytes }) => return transfer::send(*address, *bytes),
    }
    if probe::privilege() != Privilege::Root {
        bail!(
            "the demo makes network namespaces and loads BPF programs, which root alone may: become root, then this again"
        );
    }
    setup::ensure()?;
    let stage = Stage { binary: build::release()?.binary, switch: format!("demo{}", process::id()) };
    let guard = Guard::start(&stage.binary, &stage.switch)?;
    stage.play()?;
    guard.finish()?;
    println!("\nall is taken away again; no ping and no byte was lost");
    Ok(())
}

impl Stage {
    fn play(&self) -> Result<()> {
        println!("\nfive hosts, each a network namespace; the machine's own interfaces are not touched\n");
        println!("  outside --- nic0 [ host, with the switch ] web0 ----- web");
        println!("                                             db0 ------ db");
        println!("                                             cache0 --- cache (XDP)\n");
        println!("the switch is {0}: each command below with -s {0} -n {0}-host", self.switch);
        self.build()?;
        self.ping_all()?;
        self.move_a_gibibyte("web", "outside")?;
        for what in ["port show", "fdb show", "stats"] {
            println!("\n$ vswitch {what}");
            let output = self.vswitch(what)?;
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
        println!();
        self.say_and_do("down")
    }

    fn build(&self) -> Result<()> {
        for host in &HOSTS {
            shell(&format!("ip netns add {}", self.netns(host.name)))?;
            self.inside(host.name, "ip link set lo up")?;
        }
        let outside = self.netns("outside");
        self.inside("host", &format!("ip link add nic0 type veth peer name eth0 netns {outside}"))?;
        self.inside("host", "ip link set nic0 up")?;
        self.inside("outside", "ip link set eth0 up")?;
        self.say_and_do("up --uplink nic0")?;
        for (port, datapath) in [("web", ""), ("db", ""), ("cache", " --datapath xdp")] {
            self.say_and_do(&format!("port add {port}0 --netns {}{datapath}", self.netns(port)))?;
        }
        for host in &HOSTS {
            self.inside(host.name, &format!("ip address add {}/24 dev {}", host.address(), host.ifname))?;
        }
        Ok(())
    }

    fn ping_all(&self) -> Result<()> {
        println!("\npinging every pair, both ways, {PINGS} times; no process of vswitch is running");
        // Interfaces that have just come up announce a carrier a moment later.
        thread::sleep(Duration::from_millis(300));
        for from in &HOSTS {
            for to in HOSTS.iter().filter(|to| to.number != from.number) {
                let ping = format!("ping -q -c {PINGS} -i 0.01 -W 2 {}", to.address());
                let output = self.command(from.name, &ping).output().context("start ping")?;
                let text = String::from_utf8_lossy(&output.stdout);
                if !text.contains(&format!("{PINGS} received")) || text.contains("duplicates") {
                    bail!("ping from {} to {}: not every ping came back once:\n{text}", from.name, to.name);
                }
            }
            println!("  {:8} reaches all the others", from.name);
        }
        Ok(())
    }

    fn move_a_gibibyte(&self, from: &str, to: &str) -> Result<()> {
        println!("\nmoving 1 GiB by TCP from {from} to {to}");
        let [mut sender, mut receiver] = [from, to].map(|name| self.command(name, ""));
        sender.arg(xtask()).arg("demo");
        receiver.arg(xtask()).arg("demo");
        let done = transfer::run(&mut sender, &mut receiver, &host(to)?.address(), GIBIBYTE)
            .with_context(|| format!("TCP from {from} to {to}"))?;
        let rate = done.bytes as f64 * 8.0 / done.seconds / 1e9;
        println!("  {} bytes arrived unchanged, {rate:.1} Gbit/s", done.bytes);
        Ok(())
    }

    fn netns(&self, name: &str) -> String {
        format!("{}-{name}", self.switch)
    }

    /// `vswitch ARGS` where the switch lives.
    fn vswitch(&self, args: &str) -> Result<Output> {
        let netns = self.netns("host");
        let mut command = Command::new(&self.binary);
        command.args(["-s", &self.switch, "-n", &netns]).args(args.split_whitespace());
        run_checked(&mut command)
    }

    fn say_and_do(&self, args: &str) -> Result<()> {
        println!("$ vswitch {args}");
        self.vswitch(args).map(|_output| ())
    }

    fn inside(&self, name: &str, line: &str) -> Result<Output> {
        run_checked(&mut self.command(name, line))
    }

    /// `nsenter` and not `ip netns exec`, which would hide the machine's bpffs.
    fn command(&self, name: &str, line: &str) -> Command {
        let netns = Path::new("/run/netns").join(self.netns(name));
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.display())).arg("--").args(line.split_whitespace());
        command
    }
}

/// This very program, also when cargo has replaced its file in the meantime.
fn xtask() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", process::id()))
}

fn host(name: &str) -> Result<&'static Host> {
    HOSTS.iter().find(|host| host.name == name).with_context(|| format!("no host {name} in the demo"))
}

fn shell(line: &str) -> Result<Output> {
    let mut words = line.split_whitespace();
    run_checked(Command::new(words.next().unwrap_or_default()).args(words))
}

fn run_checked(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("start {:?}", command.get_program()))?;
    if !output.status.success() {
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        bail!(
            "{} {}: {}: {}",
            command.get_program().to_string_lossy(),
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output)
}
