//! Is every frame counted once, and every drop under its reason? (`frames.rs` keeps whole books; here is one of each.)
//!
//! `malformed` is not here: no socket sends a frame without an Ethernet header.

use serde_json::{Value, json};
use vswitch_tests::{
    fabric::{Fabric, Knob},
    frame::{BROADCAST, Frame, MULTICAST, Mac, UNKNOWN, link_local, to},
    lab::{HOST, Lab, Outside},
    require,
    require::NAMESPACES,
    vswitch::{self, Vswitch},
};

const STATIONS: [&str; 3] = ["a", "b", "c"];

/// With a row of `stats` by its name.
struct Counted {
    fabric: Fabric,
    name: String,
}

impl Counted {
    fn new(vswitch: Vswitch) -> Self {
        let name = vswitch.name.clone();
        let fabric = Fabric::new(vswitch, Lab::new(Outside::Station, &STATIONS).with_mtu("c", 1000));
        fabric.introduce();
        Self { fabric, name }
    }

    fn row(&self, station: &str) -> Value {
        let ifname = if station == HOST { HOST } else { self.fabric.lab.port(station) };
        vswitch::json(&self.fabric.lab.switch, &self.name, &format!("stats {ifname}"))[0].take()
    }
}

fn minus(after: &Value, before: &Value) -> Value {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            after.iter().map(|(key, value)| (key.clone(), minus(value, &before[key]))).collect()
        }
        (Value::Number(after), Value::Number(before)) => {
            (after.as_u64().expect("a count") - before.as_u64().expect("a count")).into()
        }
        _ => after.clone(),
    }
}

/// The frame, sent by a twice, is received by nobody and counted twice under this reason, on either datapath.
fn dropped(reason: &str, prepare: fn(&mut Fabric), frame: &Frame) {
    let xdp = STATIONS.iter().fold(Vswitch::new(), |vswitch, name| vswitch.datapath(name, "xdp"));
    for vswitch in [Vswitch::new(), xdp] {
        let mut counted = Counted::new(vswitch);
        prepare(&mut counted.fabric);
        let before = counted.row("a");
        counted.fabric.check(reason, &[("a", frame.clone(), "nobody"), ("a", frame.clone(), "nobody")]);
        let change = minus(&counted.row("a"), &before);
        let expected = json!({"packets": 2, "bytes": 2 * frame.len});
        assert_eq!(change["rx"], expected, "{reason}: {change}");
        let mut drops = change["drops"].as_object().expect("drops by reason").clone();
        drops.retain(|_, count| *count != json!(0));
        assert_eq!(Value::Object(drops), json!({reason: 2}), "{change}");
        assert_eq!((&change["forwarded"], &change["host"]), (&json!(0), &json!(0)), "{reason}: {change}");
    }
}

#[test]
fn invalid_source() {
    require!(NAMESPACES);
    dropped("invalid_source", |_| (), &to("b").from(MULTICAST));
    dropped("invalid_source", |_| (), &to(BROADCAST).from([0; 6]));
}

#[test]
fn pause() {
    require!(NAMESPACES);
    dropped("pause", |_| (), &to(link_local(1)));
}

#[test]
fn same_port() {
    require!(NAMESPACES);
    dropped("same_port", |_| (), &to("a").len(300));
}

#[test]
fn isolated() {
    require!(NAMESPACES);
    let isolate = |fabric: &mut Fabric| {
        fabric.set("a", Knob::Isolated, true).set("b", Knob::Isolated, true);
    };
    dropped("isolated", isolate, &to("b"));
}

#[test]
fn mtu_exceeded() {
    require!(NAMESPACES);
    dropped("mtu_exceeded", |_| (), &to("c").len(1019));
}

#[test]
fn no_receiver() {
    require!(NAMESPACES);
    let silence = |fabric: &mut Fabric| {
        for port in ["b", "c", "ext"] {
            fabric.set(port, Knob::Flood, false);
        }
    };
    dropped("no_receiver", silence, &to(UNKNOWN).len(1514));
}

#[test]
fn a_full_fdb_is_counted_and_carries_on() {
    require!(NAMESPACES);
    const ROOM: u64 = 16;
    let counted = Counted::new(Vswitch::with(&format!("--fdb-max {ROOM}")));
    // The host and the four stations are there already.
    let nomad = |number: u64| -> Mac { [0x02, 0, 0, 0, 5, u8::try_from(number).expect("a small number")] };
    let sends = (0..ROOM).map(|number| ("a", to("b").from(nomad(number)), "b")).collect::<Vec<_>>();
    counted.fabric.check("more addresses than there is room for", &sends);
    assert_eq!(counted.row("a")["fdb_full"], 5, "{}", counted.row("a"));
    counted.fabric.check(
        "who is known stays known, and may move",
        &[
            ("b", to(nomad(0)), "a"),
            ("b", to(nomad(ROOM - 1)), "a c ext"),
            ("c", to("b").from(nomad(0)), "b"),
            ("b", to(nomad(0)), "c"),
        ],
    );
    let show = vswitch::json(&counted.fabric.lab.switch, &counted.name, "show");
    assert_eq!(show[0]["fdb_used"], ROOM, "{show}");
}

#[test]
fn bytes_and_copies_of_one_exchange() {
    require!(NAMESPACES);
    let counted = Counted::new(Vswitch::new());
    let rows = || ["a", "b", "c", "ext", HOST].map(|name| counted.row(name));
    let before = rows();
    counted.fabric.check(
        "an exchange",
        &[
            ("a", to("b").len(100), "b"),
            ("a", to(BROADCAST).len(200), "b c ext host"),
            ("b", to("host").len(300), "host"),
            ("host", to("a").len(400), "a"),
            ("host", to(BROADCAST).len(500), "a b c ext"),
            ("ext", to(link_local(0xe)).len(600), "host"),
            ("c", to("c").len(700), "nobody"),
        ],
    );
    // Received, forwarded, to the host alone, sent: frames and bytes.
    let expected = [
        ("a", [2, 300, 2, 0, 2, 900]),
        ("b", [1, 300, 0, 1, 3, 800]),
        ("c", [1, 700, 0, 0, 2, 700]),
        ("ext", [1, 600, 0, 1, 2, 700]),
        (HOST, [2, 900, 2, 0, 3, 1100]),
    ];
    for ((name, expected), (after, before)) in expected.into_iter().zip(rows().iter().zip(&before)) {
        let change = minus(after, before);
        let keys = ["/rx/packets", "/rx/bytes", "/forwarded", "/host", "/tx/packets", "/tx/bytes"];
        let got = keys.map(|key| change.pointer(key).and_then(Value::as_u64).expect(key));
        assert_eq!(got, expected, "{name}: {keys:?} of {change}");
    }
}
