//! Modes under load, and one command as with macvlan.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use vswitch_tests::{
    fabric::{Fabric, Mode},
    frame::{BROADCAST, seq_of, to},
    hosts::Hosts,
    lab::{HOST, Lab, OUTSIDE, Outside},
    require,
    require::NAMESPACES,
    topo::Netns,
    vswitch::{self, Vswitch},
};

use crate::modes_cases::MODES;

const FRAMES: u64 = 20_000;

#[test]
fn a_change_of_mode_takes_no_frame_from_other_ports() {
    require!(NAMESPACES);
    for add in ["", "--datapath xdp"] {
        let names = ["a", "b", "v", "x"];
        let vswitch = names.iter().fold(Vswitch::new(), |vswitch, name| vswitch.child(name, add));
        let name = vswitch.name.clone();
        let mut fabric = Fabric::new(vswitch, Lab::new(Outside::Station, &names));
        fabric.set_mode("v", Mode::Vepa).introduce();
        let changes = {
            let (done, lab) = (AtomicBool::new(false), fabric.lab.switch.path());
            thread::scope(|scope| {
                let changes = scope.spawn(|| change_until(&done, &lab, &name));
                send(&fabric, &[("a", "b"), ("b", "a"), ("v", OUTSIDE)]);
                done.store(true, Ordering::Relaxed);
                changes.join().expect("the changes")
            })
        };
        println!("{changes} changes of mode while {FRAMES} frames were sent by each of three ports");
        assert!(changes >= 8, "only {changes} changes");
        for station in ["a", "b", OUTSIDE] {
            let mut seen = vec![0_u8; FRAMES as usize];
            while let Some(arrival) = fabric.station(station).receive() {
                let number = seq_of(&arrival.bytes).and_then(|seq| seq.checked_sub(LOAD));
                if let Some(seen) = number.and_then(|number| seen.get_mut(number as usize)) {
                    *seen += 1;
                }
            }
            fabric.station(station).assert_nothing_lost();
            let wrong = seen.iter().filter(|copies| **copies != 1).count();
            assert_eq!(wrong, 0, "frames that {station} has not had once, {add}");
        }
    }
}

/// Where the numbers of this test's frames begin: far from those of other exchanges.
const LOAD: u64 = 1 << 40;

fn send(fabric: &Fabric, pairs: &[(&str, &str)]) {
    for number in 0..FRAMES {
        for (from, into) in pairs {
            let (from, into) = (fabric.station(from), fabric.station(into));
            from.send(&to(into.mac).bytes(into.mac, from.mac, LOAD + number));
        }
        if number % 50 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    thread::sleep(Duration::from_millis(50));
}

fn change_until(done: &AtomicBool, lab: &std::path::Path, name: &str) -> u32 {
    let mut changes = 0;
    for mode in MODES.into_iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net={}", lab.display())).arg("--").arg(vswitch::binary());
        let output = command.args(["-s", name, "port", "set", "h3", "--mode", mode.word()]).output();
        assert!(output.expect("start vswitch").status.success(), "mode {}", mode.word());
        changes += 1;
    }
    changes
}

#[test]
fn a_change_of_mode_holds_for_the_next_frame() {
    require!(NAMESPACES);
    let names = ["a", "x"];
    let vswitch = names.iter().fold(Vswitch::new(), |vswitch, name| vswitch.child(name, ""));
    let mut fabric = Fabric::new(vswitch, Lab::new(Outside::Station, &names));
    fabric.introduce();
    for _ in 0..5 {
        for mode in MODES {
            fabric.set_mode("x", mode);
            let direct = mode == Mode::Bridge;
            let (to_a, to_x) = if direct { ("a", "x") } else { ("ext", "ext") };
            let all = if direct { "a ext host" } else { "ext host" };
            let from_outside = if mode == Mode::Source { "nobody" } else { "x" };
            fabric.check(
                mode.word(),
                &[
                    ("x", to("a"), to_a),
                    ("a", to("x"), to_x),
                    ("x", to(BROADCAST), all),
                    ("ext", to("x"), from_outside),
                ],
            );
        }
    }
}

/// `ip link add ... type macvlan` needs an address and `up` besides; so does this, but for `up`.
#[test]
fn one_command_makes_a_usable_port() {
    require!(NAMESPACES);
    for (host_access, mode) in [(true, "vepa"), (true, "private"), (true, "bridge"), (false, "vepa")] {
        let up = if host_access { "" } else { "--host-access off" };
        let hosts = Hosts::new(Vswitch::with(up), Lab::new(Outside::Station, &["a"]));
        let web = Netns::new("web");
        hosts.vswitch(&format!("port add web0 --netns {} --mode {mode}", web.name()));
        web.ip("address add 10.9.0.99/24 dev eth0");
        let ping = |from: &Netns, address: &str, args: &str| {
            let mut command = from.command("ping");
            command.args(["-q", address]).args(args.split(' ')).output().expect("start ping").status.success()
        };
        // At once, and the first one.
        assert!(ping(&web, &hosts.address(OUTSIDE), "-c 1 -W 1"), "{mode} to the outside");
        assert!(ping(hosts.netns(OUTSIDE), "10.9.0.99", "-c 1 -W 1"), "the outside to {mode}");
        let patience = if host_access { "-c 1 -W 1" } else { "-c 1 -W 0.3" };
        assert_eq!(ping(hosts.netns(HOST), "10.9.0.99", patience), host_access, "the host to {mode}");
        assert_eq!(ping(&web, &hosts.address(HOST), patience), host_access, "{mode} to the host");
    }
}
