//! Is any sequence of bytes a frame that the decision takes as the model does?

use std::collections::{BTreeMap, BTreeSet};

use vswitch_ebpf::frame::{ETH_HLEN, ETH_P_PAUSE, Header, MacAddr};

use crate::{
    frame::{BROADCAST, Mac},
    host_tables::{HostTables, hook},
    lock_step::same_state,
    model::{Entry, Frame, Kind, Member, Mode, Model, PLAIN, Port},
};

/// Longer than what any port of [`switch`] carries.
const LONG: usize = 1519;
const HOST: Mac = [2, 0, 0, 0, 0, 0xfe];
const KNOWN: Mac = [2, 0, 0, 0, 0, 1];
const LISTED: Mac = [2, 0, 0, 0, 0, 9];

/// The first byte says what kind of switch it is. Then frames follow, each after two bytes: who sends it and how, and how
/// long it is.
pub fn frames(data: &[u8]) {
    let Some((&kind, mut rest)) = data.split_first() else { return };
    let mut model = switch(kind);
    let tables = HostTables::from(&model);
    while let [how, len, more @ ..] = rest {
        let (bytes, others) = more.split_at(more.len().min(usize::from(*len)));
        rest = others;
        let mut bytes = bytes.to_vec();
        if how & 0x80 != 0 {
            bytes.resize(LONG, 0);
        }
        let from = match how & 7 {
            0 => Member::Host { uplink: 1 },
            slot => Member::Port((u16::from(slot) - 1) % 6 + 1),
        };
        model.now += u64::from(how >> 3 & 7);
        tables.now.set(model.now);
        take(&mut model, &tables, from, &bytes);
    }
}

/// One frame, byte by byte as it is.
fn take(model: &mut Model, tables: &HostTables, from: Member, bytes: &[u8]) {
    let header = Header::read(&bytes);
    let frame = understood(bytes);
    assert_eq!(header.is_some(), frame.len >= ETH_HLEN);
    if let Some(Header { destination, source, ethertype }) = header {
        assert_eq!((destination, source), (MacAddr(frame.dst), MacAddr(frame.src)));
        assert_eq!(ethertype == ETH_P_PAUSE, frame.pause);
        for mac in [destination, source] {
            let [first, .., last] = mac.0;
            let reserved = mac.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && last <= 0x0f;
            assert_eq!(mac.link_local(), reserved.then_some(last));
            assert_eq!(mac.is_group(), first & 1 == 1);
            assert_eq!(mac.is_broadcast(), mac.0 == BROADCAST);
            assert_eq!(mac.is_zero(), mac.0 == [0; 6]);
        }
    }
    let before = model.clone();
    let outcome = model.send(from, &frame);
    let decided = tables.outcome(&tables.take(&bytes, hook(from)));
    assert!(
        decided == outcome && same_state(tables, model),
        "{from:?} sends {frame:?}, at\n{before:?}\nspecified {outcome:?}\ndecided   {decided:?}\nthen\n{model:?}"
    );
}

/// What the specification sees of a frame.
fn understood(bytes: &[u8]) -> Frame {
    let mut header = [0; 14];
    header.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = header;
    Frame {
        dst: [d0, d1, d2, d3, d4, d5],
        src: [s0, s1, s2, s3, s4, s5],
        len: bytes.len().try_into().expect("a short frame"),
        gso: false,
        pause: [t0, t1] == [0x88, 0x08],
    }
}

/// An uplink, and a downlink in each mode that has siblings.
fn switch(kind: u8) -> Model {
    let port = |mode| Port { mode, ..PLAIN };
    let ports = [
        Port { uplink: true, ..PLAIN },
        port(Mode::Bridge),
        Port { isolated: true, hairpin: kind & 4 != 0, ..PLAIN },
        port(Mode::Vepa),
        Port { learning: kind & 8 != 0, ..port(Mode::Private) },
        Port { nodst: kind & 16 != 0, ..port(Mode::Source) },
    ];
    let entry = |at, kind| Entry { at, kind, seen: 0 };
    Model {
        ports: (1..).zip(ports).collect(),
        fdb: BTreeMap::from([
            (HOST, entry(Member::Host { uplink: 1 }, Kind::Local)),
            (KNOWN, entry(Member::Port(2), Kind::StickyStatic)),
        ]),
        fdb_max: 6,
        ageing: 20,
        refresh: 2,
        now: 1000,
        host_access: kind & 1 == 0,
        compat: kind & 2 != 0,
        sources: BTreeSet::from([(6, LISTED)]),
    }
}
