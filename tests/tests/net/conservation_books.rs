//! What must be counted, by the specification, and what has been, by the switch and by the interfaces?

use std::collections::BTreeMap;

use serde_json::Value;
use vswitch_ebpf::verdict::{Action, Verdict};
use vswitch_tests::{
    frame::Frame,
    host_tables::HostTables,
    lab::{HOST, HOST_MAC, OUTSIDE},
    model::{self, Entry, Kind, Member, Mode, Model, Outcome, PLAIN, Port, Receiver, slot_of},
    topo::Netns,
    vswitch::json,
};

use crate::{
    conservation_world::{NARROW_MTU, NEAR, PORTS, SOURCES, World, XDP, addresses, mac, member},
    frames_cases::untagged_len,
    frames_ledger::Ledger,
};

/// What is to come of it, by the specification.
pub(crate) struct Plan {
    pub(crate) model: Model,
    ledger: Ledger,
    /// By port, frames that `bpf_redirect_peer` delivers.
    by_peer: BTreeMap<&'static str, u64>,
}

impl Plan {
    pub(crate) fn new() -> Self {
        let port = |name: &'static str| Port {
            uplink: name == OUTSIDE,
            mode: match name {
                "vepa" => Mode::Vepa,
                "private" => Mode::Private,
                "source" => Mode::Source,
                _ => Mode::Bridge,
            },
            mtu: if name == "narrow" { NARROW_MTU } else { 1500 },
            isolated: name.starts_with("iso"),
            ..PLAIN
        };
        let local = Entry { at: member(HOST), kind: Kind::Local, seen: 0 };
        let model = Model {
            ports: (1..).zip(PORTS.map(port)).collect(),
            fdb: BTreeMap::from([(HOST_MAC, local)]),
            fdb_max: 1000,
            ageing: 1000,
            refresh: 1000,
            now: 0,
            host_access: true,
            compat: false,
            sources: SOURCES.map(|name| (slot_of(member("source")), mac(name))).into(),
        };
        Self { model, ledger: Ledger::default(), by_peer: BTreeMap::new() }
    }

    pub(crate) fn send(&mut self, world: &World, from: &str, frames: &[Frame], times: u64) {
        let row = if from == HOST { HOST } else { world.port(from) };
        for frame in frames {
            let (dst, src) = addresses(from, frame);
            let frame = model::Frame { dst, src, len: untagged_len(frame), gso: false, pause: false };
            let (from, tables) = (member(from), HostTables::from(&self.model));
            let verdict = tables.decide(from, &frame).verdict;
            let outcome = self.model.send(from, &frame);
            self.ledger.expect(row, &outcome, times, |slot| world.port(name(slot)).to_owned());
            if let Some(port) = by_peer(from, &verdict, &outcome) {
                *self.by_peer.entry(port).or_default() += times;
            }
        }
    }
}

fn name(slot: u16) -> &'static str {
    PORTS[usize::from(slot) - 1]
}

/// Who has a frame itself, all others having had copies, by `bpf_redirect_peer`: at tc ingress whom it is for in any case, or
/// the last one, if the cable leads to another namespace. What goes from one XDP port to another does not get there.
fn by_peer(from: Member, verdict: &Verdict, outcome: &Outcome) -> Option<&'static str> {
    let Member::Port(sender) = from else { return None };
    let stays = Receiver::Host { uplink: sender };
    let in_turn = |receiver: &&Receiver| match **receiver {
        Receiver::Host { uplink } => (uplink, 0),
        Receiver::Port(slot) => (slot, 1),
        Receiver::HostHere => (sender, 0),
    };
    let last = match verdict.action {
        Action::Forward => Receiver::Port(verdict.target.slot),
        Action::Host => Receiver::Host { uplink: verdict.target.slot },
        Action::HostHere | Action::Flood | Action::Drop => *outcome.receivers.iter().max_by_key(in_turn)?,
    };
    let Receiver::Port(last) = last else { return None };
    // An XDP port's far end may have a program that is to see it.
    (!outcome.receivers.contains(&stays) && !XDP.contains(&name(last)) && name(last) != NEAR)
        .then_some(name(last))
}

/// What `ip -s link` shows of each cable, by the station that it leads to: at the switch's end and at the other one.
pub(crate) struct Cables(BTreeMap<&'static str, (Link, Link)>);

impl Cables {
    pub(crate) fn read(world: &World) -> Self {
        let read = |netns: &Netns| -> BTreeMap<String, Link> {
            let rows: Value = serde_json::from_str(&netns.ip("-j -s link show")).expect("JSON of ip");
            let rows = rows.as_array().expect("rows").iter();
            rows.map(|row| (row["ifname"].as_str().expect("a name").to_owned(), Link::said(row))).collect()
        };
        let near = read(&world.hosts.lab.switch);
        let ends = PORTS.map(|name| {
            let (netns, ifname) = world.far_end(name);
            (name, (near[world.port(name)], read(netns)[ifname]))
        });
        Self(ends.into())
    }

    fn since(&self, before: &Self) -> impl Iterator<Item = (&'static str, Link, Link)> {
        self.0.iter().map(|(name, (near, far))| {
            let (old_near, old_far) = before.0[name];
            (*name, near.since(old_near), far.since(old_far))
        })
    }

    /// Frames that were delivered to an interface, and that the far end had no room for.
    pub(crate) fn lost(&self, before: &Self) -> u64 {
        self.since(before).map(|(_, near, _)| near.send_drops).sum()
    }
}

/// What differs between the specification, `stats` and the interfaces: a line each.
pub(crate) fn differences(world: &World, plan: &Plan, before: &Cables, now: &Cables) -> Vec<String> {
    let stats = Ledger::whatever_was_lost(&stats(world));
    let mut all = Vec::new();
    if stats != plan.ledger {
        all.push(format!("\n  stats says {stats:?}\n  and the specification {:?}", plan.ledger));
    }
    let mut same = |what: &str, name: &str, got: u64, wanted: u64| {
        all.extend((got != wanted).then(|| format!("\n  {name}: {what}: {got}, and not {wanted}")));
    };
    let (mut to_stack, mut not_taken) = (0, 0);
    for (name, near, far) in now.since(before) {
        let row = stats.of(world.port(name));
        same("frames received by the interface", name, near.received, row.rx);
        same("frames sent by its far end", name, far.sent, row.rx);
        // What the far end's ring or backlog had no room for, the kernel counts at the near end.
        same("frames received by its far end", name, far.received + near.send_drops, row.tx);
        // bpf_redirect_peer: received at the far end without having been sent at the near one (skb_do_redirect).
        let by_peer = plan.by_peer.get(name).copied().unwrap_or_default();
        same("frames sent by the interface", name, near.sent + near.send_drops + by_peer, row.tx);
        same("errors at the near end", name, near.errors, 0);
        same("errors at the far end", name, far.errors, 0);
        to_stack += near.receive_drops;
        // A backlog without room counts at the receiver, too; a ring, as XDP makes it, does not.
        not_taken += if XDP.contains(&name) { 0 } else { far.send_drops };
    }
    // Nobody there knows our protocol: the stack drops each, and counts it.
    same("frames given to its stacks", HOST, to_stack, stats.of(HOST).tx + not_taken);
    all
}

/// `stats`, and over all ports the drops by reason.
pub(crate) fn show(world: &World) -> BTreeMap<String, u64> {
    let said = stats(world);
    let title = ["", "received", "forwarded", "to host", "dropped", "sent"];
    println!("{}", title.map(|word| format!("{word:>10}")).concat());
    for name in PORTS.into_iter().chain([HOST]) {
        let ledger = Ledger::whatever_was_lost(&said);
        let row = ledger.of(if name == HOST { HOST } else { world.port(name) });
        let drops = row.drops.values().sum::<u64>();
        println!("{name:>10}{:10}{:10}{:10}{drops:10}{:10}", row.rx, row.forwarded, row.host, row.tx);
    }
    by_reason(&said)
}

fn stats(world: &World) -> Value {
    json(&world.hosts.lab.switch, &world.hosts.switch.name, "stats")
}

/// Over all ports.
fn by_reason(stats: &Value) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for row in stats.as_array().expect("rows") {
        for (reason, count) in row["drops"].as_object().expect("drops by reason") {
            *all.entry(reason.clone()).or_insert(0) += count.as_u64().expect("a count");
        }
    }
    all.retain(|_, count| *count > 0);
    all
}

/// One interface in `ip -s link`.
#[derive(Clone, Copy, Debug)]
struct Link {
    received: u64,
    receive_drops: u64,
    sent: u64,
    send_drops: u64,
    errors: u64,
}

impl Link {
    fn said(row: &Value) -> Self {
        let number = |path: &str| row.pointer(path).and_then(Value::as_u64).expect(path);
        Self {
            received: number("/stats64/rx/packets"),
            receive_drops: number("/stats64/rx/dropped"),
            sent: number("/stats64/tx/packets"),
            send_drops: number("/stats64/tx/dropped"),
            errors: number("/stats64/rx/errors") + number("/stats64/tx/errors"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            receive_drops: self.receive_drops - before.receive_drops,
            sent: self.sent - before.sent,
            send_drops: self.send_drops - before.send_drops,
            errors: self.errors - before.errors,
        }
    }
}
