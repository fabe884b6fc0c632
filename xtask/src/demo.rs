//! What does vswitch do, seen in half a minute? Real hosts in namespaces talk through it, and all is counted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{build, setup};

/// Pings of one direction of one pair; not one may be lost.
const PINGS: u32 = 5;
const GIBIBYTE: u64 = 1 << 30;

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

/// The demo's namespaces and switch; taken away when dropped, also after a failure.
struct Stage {
    binary: PathBuf,
    switch: String,
}

pub(crate) fn run() -> Result<()> {
    setup::ensure()?;
    let stage = Stage { binary: build::release()?.binary, switch: format!("demo{}", std::process::id()) };
    println!(
        "\n  outside --- nic0 [ vswitch + host ] web0 --- web\n                                      db0 --- db\n                                   cache0 --- cache (XDP)\n"
    );
    stage.build()?;
    stage.ping_all()?;
    stage.move_a_gibibyte("web", "outside")?;
    for what in ["port show", "fdb show", "stats"] {
        println!("\n$ vswitch {what}");
        let output = stage.vswitch(what)?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    stage.vswitch("down")?;
    let switch = stage.switch.clone();
    drop(stage);
    if fs::exists(format!("/sys/fs/bpf/vswitch/v1/{switch}")).unwrap_or(false) {
        bail!("{switch}: its pins are still under /sys/fs/bpf: report this as a bug");
    }
    println!("\nall is taken away again; no ping and no byte was lost");
    Ok(())
}

impl Stage {
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
        println!("\npinging every pair, both ways, {PINGS} times");
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
        let address = host(to)?.address();
        let mut server = self
            .command(to, "iperf3 --server --one-off")
            .stdout(Stdio::null())
            .spawn()
            .context("start the iperf3 server")?;
        let mut output = None;
        for _attempt in 0..20 {
            // The server needs a moment to listen.
            thread::sleep(Duration::from_millis(100));
            let client = format!("iperf3 --client {address} --bytes 1G --json");
            let done = self.command(from, &client).output().context("start the iperf3 client")?;
            if done.status.success() {
                output = Some(done);
                break;
            }
        }
        // It ends by itself after one client; without one it must not stay behind.
        if output.is_none() {
            let _ended = server.kill();
        }
        server.wait().context("wait for the iperf3 server")?;
        let Some(output) = output else { bail!("iperf3 from {from} to {to} did not connect within 2 s") };
        let json: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("read what iperf3 reports")?;
        let end = json.pointer("/end/sum_received");
        let number = |key: &str| end.and_then(|end| end.get(key)).and_then(serde_json::Value::as_f64);
        let (Some(bytes), Some(rate)) = (number("bytes"), number("bits_per_second")) else {
            bail!("iperf3 from {from} to {to}: no result: {json}");
        };
        if bytes < GIBIBYTE as f64 {
            bail!("iperf3 from {from} to {to}: {bytes} of {GIBIBYTE} bytes arrived");
        }
        println!("  {bytes} bytes arrived, {:.1} Gbit/s", rate / 1e9);
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

impl Drop for Stage {
    fn drop(&mut self) {
        // After a success the switch is down already; what is not there needs no deleting.
        let _gone = self.vswitch("down");
        for host in &HOSTS {
            let _gone = shell(&format!("ip netns delete {}", self.netns(host.name)));
        }
    }
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
