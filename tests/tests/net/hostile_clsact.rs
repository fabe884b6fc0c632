//! Does the controller notice what somebody does to its clsact filters, which is how it has tc programs before Linux 6.6?

use std::path::Path;

use serde_json::json;
use vswitch_tests::{
    controller::{AT_ONCE, Controller},
    hosts::{Hosts, until},
    lab::UPLINK,
    require,
    require::NAMESPACES,
    topo::expect_success,
    vswitch::Vswitch,
};

use crate::hostile::{Foreign, NEEDS, all_reach_all, hosts, port};

const FAULT: &str = "its program vswitch_in is not attached";

#[test]
#[ignore = "not every kernel is without tcx: `cargo xtask vm --kernel 6.1` runs it"]
fn a_qdisc_that_is_removed_comes_back_with_its_filters() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    for (ifname, last) in [("h0", "vswitch_in"), ("h1", "vswitch_in"), (UPLINK, "vswitch_out")] {
        let line = format!("\"{ifname}\": its program {last} is not attached: put right");
        let took = controller.notices(&line, || tc(&hosts, &format!("qdisc del dev {ifname} clsact")));
        println!("clsact of {ifname} removed: put right after {took:?}");
        all_reach_all(&hosts);
    }
}

#[test]
#[ignore = "not every kernel is without tcx: `cargo xtask vm --kernel 6.1` runs it"]
fn a_filter_that_is_replaced_is_taken_back() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    let other = Foreign::new(&hosts);
    let (inward, outward) = (other.program("vswitch_in"), other.program("vswitch_out"));
    let cases = [("h0", "ingress", &inward), (UPLINK, "ingress", &inward), (UPLINK, "egress", &outward)];
    for (ifname, direction, program) in cases {
        let name = program.file_name().unwrap().display();
        let line = format!("\"{ifname}\": its program {name} is not attached: put right");
        let took = controller.notices(&line, || replace(&hosts, ifname, direction, program));
        println!("filter of {ifname} at {direction} replaced: put right after {took:?}");
        all_reach_all(&hosts);
    }
}

#[test]
#[ignore = "not every kernel is without tcx: `cargo xtask vm --kernel 6.1` runs it"]
fn without_a_controller_show_tells_of_a_filter_that_is_replaced() {
    require!(NAMESPACES);
    require!(NEEDS);
    let (hosts, controller) = hosts();
    drop(controller);
    let other = Foreign::new(&hosts);
    replace(&hosts, "h0", "ingress", &other.program("vswitch_in"));
    assert_eq!(port(&hosts, "h0", "state"), "degraded");
    assert_eq!(hosts.json("show")[0]["faults"], json!([format!("h0: {FAULT}")]));
    let _next = Controller::start(&hosts.lab.switch, &hosts.switch.name, "");
    until("it is attached", AT_ONCE, || port(&hosts, "h0", "state") == "forwarding");
    all_reach_all(&hosts);
}

/// Puts another program in the place of the switch's.
fn replace(hosts: &Hosts<Vswitch>, ifname: &str, direction: &str, program: &Path) {
    let place = format!("dev {ifname} {direction} protocol all prio 1 handle 0x5653");
    tc(hosts, &format!("filter replace {place} bpf direct-action object-pinned {}", program.display()));
}

fn tc(hosts: &Hosts<Vswitch>, args: &str) {
    expect_success(hosts.lab.switch.command("tc").args(args.split_whitespace()), None);
}
