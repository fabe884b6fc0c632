//! Is the host's side of a netkit pair a port like any other? Few kernels have netkit (from 6.7 on): see `cargo xtask vm`.

use std::{
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use rtnetlink::{LinkNetkit, packet_route::link::NetkitMode};
use vswitch_tests::{
    hosts::Hosts,
    lab::{HOST, Lab, OUTSIDE, Outside, STATION_IF},
    require,
    require::{NAMESPACES, Need},
    topo::{Netns, expect_success},
    vswitch::{self, Vswitch},
};

const NEEDS: &[Need] = &[Need::Tool("ping")];
/// More than one GSO super-frame takes.
const BYTES: usize = 1 << 20;

/// Adds a pair to a namespace.
fn netkit(netns: &Netns, ifname: &str, peer: &str, mode: NetkitMode) {
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let added = handle.link().add(LinkNetkit::new(ifname, peer, mode).build()).execute().await;
            added.unwrap_or_else(|err| panic!("add the netkit {ifname}: {err}"));
        });
    });
}

fn ping(from: &Netns, address: &str) {
    let mut command = from.command("ping");
    let said = expect_success(command.args(["-q", "-c", "20", "-i", "0.01", "-W", "5", address]), None);
    assert!(said.contains(" 20 received") && !said.contains("duplicates"), "{said}");
}

/// TCP, whose sender leaves checksums and cutting to its interface.
fn transfer(from: &Netns, to: &Netns, address: &str) {
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap());
    let mut sender = from.run(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let receiver =
        thread::spawn(move || io::copy(&mut listener.accept().unwrap().0, &mut io::sink()).unwrap());
    sender.write_all(&vec![7; BYTES]).unwrap();
    drop(sender);
    assert_eq!(receiver.join().unwrap(), BYTES as u64);
}

#[test]
#[ignore = "not every kernel has netkit: `cargo xtask vm --kernel 6.12` runs it"]
fn netkit_ports_reach_each_other_and_all_others() {
    require!(NAMESPACES);
    require!(NEEDS);
    let hosts = Hosts::new(Vswitch::new(), Lab::new(Outside::Station, &["a"]));
    let (switch, name) = (&hosts.lab.switch, &hosts.switch.name);
    let stations = [("k0", "10.9.0.50"), ("k1", "10.9.0.51")].map(|(port, address)| {
        let netns = Netns::new(port);
        netkit(switch, port, "far", NetkitMode::L2);
        switch.ip(&format!("link set far netns {} name {STATION_IF}", netns.name()));
        netns.ip(&format!("address add {address}/24 dev {STATION_IF}"));
        netns.ip(&format!("link set {STATION_IF} up"));
        vswitch::run(switch, name, &format!("port add {port}"));
        (netns, address)
    });
    let shown = vswitch::json(switch, name, "port show k0");
    assert_eq!((&shown[0]["datapath"], &shown[0]["state"]), (&"tc".into(), &"forwarding".into()));
    let [(k0, at_k0), (k1, at_k1)] = &stations;
    for other in ["a", OUTSIDE, HOST] {
        ping(k0, &hosts.address(other));
        ping(hosts.netns(other), at_k1);
        transfer(k0, hosts.netns(other), &hosts.address(other));
        transfer(hosts.netns(other), k1, at_k1);
    }
    ping(k0, at_k1);
    transfer(k1, k0, at_k0);
}

#[test]
#[ignore = "not every kernel has netkit: `cargo xtask vm --kernel 6.12` runs it"]
fn a_netkit_without_ethernet_headers_is_refused() {
    require!(NAMESPACES);
    let hosts = Hosts::new(Vswitch::new(), Lab::new(Outside::Station, &["a"]));
    netkit(&hosts.lab.switch, "k0", "far", NetkitMode::L3);
    let output = vswitch::command(&hosts.lab.switch, &hosts.switch.name, "port add k0")
        .output()
        .expect("start vswitch");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("carries IP packets without Ethernet headers: make it with mode l2"), "{said}");
}
