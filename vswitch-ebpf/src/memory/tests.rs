//! What does a record keep, for which frames is it good, and when does it give way?

use super::*;
use crate::{
    abi::{FdbEntry, FdbKey, Port, Settings, SourceKey, fdb_flags},
    frame::MacAddr,
    tables::Look,
};

const ASKED: Question = Question { words: [0x0b, 0x0a], hook: Hook::Received(7) };
const OTHER: Question = Question { words: [0x0c, 0x0a], ..ASKED };
const GENERATION: u64 = 5;
const NOW: Stamp = 1000;
const UNTIL: Stamp = 1300;

/// A frame to the port in slot 2, which carries 1518 bytes.
fn forwarded() -> Packet {
    let mut packet = Packet::zeroed();
    packet.slot = 1;
    packet.begin(NOW);
    packet.holds_until(UNTIL);
    packet.forward(2, &Port { ifindex: 8, mtu: 1500, ..Port::default() });
    packet
}

/// A record that keeps what was decided of it.
fn kept(packet: &Packet) -> Record {
    let mut record = Record::zeroed();
    record.keep(packet, &ASKED, GENERATION);
    record
}

const fn is_good(record: &Record) -> bool {
    record.is_about(&ASKED) && record.is_good(60, GENERATION, NOW)
}

#[test]
fn what_was_decided_is_what_is_remembered() {
    let packet = forwarded();
    let record = kept(&packet);
    assert!(is_good(&record));
    assert_eq!(record.decision(ASKED.hook), packet.decision());
    assert_eq!(record.elsewhere(), Some(2));
    let mut back = forwarded();
    back.slot = 2;
    assert_eq!(kept(&back).elsewhere(), None, "where it is going anyway");
}

#[test]
fn an_empty_record_is_good_for_nothing() {
    let record = Record::zeroed();
    assert!(!record.is_good(0, 0, 0));
    let nobody = Question { words: [0, 0], hook: Hook::Received(0) };
    assert!(record.is_about(&nobody) && !record.is_good(0, 0, NOW));
}

#[test]
fn a_record_is_about_one_header_at_one_hook() {
    let record = kept(&forwarded());
    assert!(record.is_about(&ASKED));
    for words in [[0x0b, 0x0b], [0x0a, 0x0a], [0x0a, 0x0b], [0x0b, 0x0a | 1 << 63]] {
        assert!(!record.is_about(&Question { words, ..ASKED }), "{words:x?}");
    }
    for hook in [Hook::Received(8), Hook::SentByHost(7)] {
        assert!(!record.is_about(&Question { hook, ..ASKED }), "{hook:?}");
    }
    let sent = Question { hook: Hook::SentByHost(7), ..ASKED };
    let mut packet = forwarded();
    packet.from_host = true;
    let mut record = Record::zeroed();
    record.keep(&packet, &sent, GENERATION);
    assert!(record.is_about(&sent) && !record.is_about(&ASKED));
    assert_eq!(record.decision(sent.hook), packet.decision());
}

#[test]
fn a_record_is_good_for_one_generation_for_a_time_and_up_to_a_length() {
    let record = kept(&forwarded());
    for (wire_len, generation, now, good) in [
        (60, GENERATION, NOW, true),
        (60, GENERATION - 1, NOW, false),
        (60, GENERATION + 1, NOW, false),
        (60, GENERATION, UNTIL - 1, true),
        (60, GENERATION, UNTIL, false),
        (1518, GENERATION, NOW, true),
        (1519, GENERATION, NOW, false),
        // A super-frame, whose segments fit.
        (0, GENERATION, NOW, true),
    ] {
        assert_eq!(record.is_good(wire_len, generation, now), good, "{wire_len} {generation} {now}");
    }
}

#[test]
fn a_drop_is_for_frames_of_any_length_unless_the_length_is_the_reason() {
    for reason in DropReason::ALL {
        let mut packet = forwarded();
        packet.drop(reason);
        let record = kept(&packet);
        let good = record.is_good(u32::MAX, GENERATION, NOW);
        assert_eq!(good, reason != DropReason::MtuExceeded, "{reason:?}");
        if good {
            let Verdict { action, reason: why, .. } = record.decision(ASKED.hook).verdict;
            assert_eq!((action, why, record.elsewhere()), (Action::Drop, reason, None));
        }
    }
}

#[test]
fn what_is_for_many_is_not_kept() {
    let port = Port::default();
    type Decide<'a> = &'a dyn Fn(&mut Packet);
    let decisions: [(Decide<'_>, bool); 7] = [
        (&|packet| packet.forward(2, &port), true),
        (&|packet| packet.host(1, &port), true),
        (&Packet::host_here, false),
        (&|packet| packet.flood(Members::Domain), false),
        (&|packet| packet.flood(Members::Listeners), false),
        (&|packet| (packet.forward(2, &port), packet.verdict.list = Members::Listeners).0, false),
        (&|packet| (packet.host(1, &port), packet.verdict.list = Members::Listeners).0, false),
    ];
    for (number, (decide, wanted)) in decisions.into_iter().enumerate() {
        let mut packet = forwarded();
        decide(&mut packet);
        assert_eq!(kept(&packet).is_good(0, GENERATION, NOW), wanted, "decision {number}");
    }
}

#[test]
fn what_no_longer_holds_is_not_kept() {
    for until in [0, NOW - 1, NOW] {
        let mut packet = forwarded();
        packet.holds_until(until);
        assert!(!kept(&packet).is_good(60, GENERATION, until.saturating_sub(1)), "{until}");
    }
}

#[test]
fn a_good_record_outlasts_some_frames_of_others_and_no_more() {
    let mut record = kept(&forwarded());
    for frame in 0..PATIENCE {
        record.keep(&forwarded(), &OTHER, GENERATION);
        assert!(is_good(&record), "after {frame}");
    }
    record.keep(&forwarded(), &OTHER, GENERATION);
    assert!(!record.is_about(&ASKED) && record.is_about(&OTHER));
    // The other has all of its patience.
    for _ in 0..PATIENCE {
        record.keep(&forwarded(), &ASKED, GENERATION);
        assert!(record.is_about(&OTHER));
    }
    record.keep(&forwarded(), &ASKED, GENERATION);
    assert!(is_good(&record));
}

#[test]
fn what_is_not_kept_costs_no_patience() {
    let mut record = kept(&forwarded());
    let mut flood = forwarded();
    flood.flood(Members::Domain);
    for _ in 0..=PATIENCE {
        record.keep(&flood, &OTHER, GENERATION);
    }
    for _ in 0..PATIENCE {
        record.keep(&forwarded(), &OTHER, GENERATION);
    }
    assert!(is_good(&record));
}

#[test]
fn a_record_that_is_no_longer_good_gives_way_at_once() {
    let mut record = kept(&forwarded());
    record.keep(&forwarded(), &OTHER, GENERATION + 1);
    assert!(record.is_about(&OTHER), "of an older generation");

    let mut record = kept(&forwarded());
    let mut late = forwarded();
    late.begin(UNTIL);
    record.keep(&late, &OTHER, GENERATION);
    assert!(record.is_about(&OTHER), "past its time");
}

#[test]
fn a_frame_of_its_own_replaces_what_a_record_says() {
    let mut record = kept(&forwarded());
    let mut packet = forwarded();
    packet.forward(3, &Port { ifindex: 9, mtu: 9000, ..Port::default() });
    record.keep(&packet, &ASKED, GENERATION);
    assert_eq!(record.decision(ASKED.hook), packet.decision());
    assert!(record.is_good(9018, GENERATION, NOW));
}

#[test]
fn both_ways_of_a_conversation_have_elements_of_their_own() {
    let secret = 0x0123_4567_89ab_cdef;
    let [a, b] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].map(|mac| MacAddr(mac).word());
    let question = |to, from, hook| Question { words: [to | from << 48, from >> 16], hook };
    let ways = [question(a, b, Hook::Received(1)), question(b, a, Hook::Received(2))];
    assert_ne!(ways[0].element(secret), ways[1].element(secret));
    assert!(ways.iter().all(|way| way.element(secret) < RECORDS));
}

const AGEING: u32 = 300;
const KEY: FdbKey = FdbKey { mac: MacAddr([2, 0, 0, 0, 0, 1]), vlan: 0 };

/// Tables that know of one address this, if anything.
struct Known(Option<FdbEntry>);

impl Look for Known {
    fn settings(&self) -> Settings {
        Settings::default()
    }

    fn slot_of(&self, _ifindex: u32) -> Option<u16> {
        None
    }

    fn port(&self, _slot: u16) -> Option<&Port> {
        None
    }

    fn is_down(&self, _slot: u16) -> bool {
        false
    }

    fn is_gone(&self, _slot: u16) -> bool {
        false
    }

    fn fdb(&self, key: FdbKey) -> Option<FdbEntry> {
        self.0.filter(|_| key == KEY)
    }

    fn fdb_ahead(&self, _key: FdbKey) {}

    fn listed(&self, _key: SourceKey) -> u64 {
        0
    }

    fn now(&self) -> Stamp {
        NOW
    }
}

/// Until when a verdict holds that follows from this entry alone.
fn holds(entry: Option<FdbEntry>) -> Stamp {
    let mut packet = Packet::zeroed();
    packet.begin(NOW);
    assert_eq!(packet.look_up(&Known(entry), KEY, AGEING), entry);
    packet.until
}

#[test]
fn what_was_looked_up_says_for_how_long_it_holds() {
    let ages = Stamp::from(AGEING);
    let entry = |flags, stamp| Some(FdbEntry::new(2, flags, stamp));
    for (known, until, what) in [
        (None, 0, "absent: it may come"),
        (entry(0, NOW), NOW + ages, "learned just now"),
        (entry(0, NOW - 100), NOW - 100 + ages, "learned a while ago"),
        (entry(0, NOW + 5), NOW + 5 + ages, "learned by a CPU whose clock is ahead"),
        (entry(0, NOW - ages + 1), NOW + 1, "about to age out"),
        (entry(0, NOW - ages), 0, "aged out: it may come back"),
        (entry(fdb_flags::STICKY, NOW - 100), NOW - 100 + ages, "sticky"),
        (entry(fdb_flags::STATIC, 0), Stamp::MAX, "static"),
        (entry(fdb_flags::LOCAL, 0), Stamp::MAX, "the host's own"),
        (entry(fdb_flags::RESTLESS, NOW), 0, "restless"),
        (entry(fdb_flags::RESTLESS | fdb_flags::STATIC, NOW), 0, "static and restless"),
    ] {
        assert_eq!(holds(known), until, "{what}");
    }
}

#[test]
fn a_verdict_holds_no_longer_than_anything_that_it_follows_from() {
    let mut packet = Packet::zeroed();
    packet.begin(NOW);
    assert_eq!(packet.until, Stamp::MAX);
    let learned = |stamp| Known(Some(FdbEntry::new(2, 0, stamp)));
    packet.look_up(&learned(NOW - 100), KEY, AGEING);
    packet.look_up(&learned(NOW), KEY, AGEING);
    assert_eq!(packet.until, NOW - 100 + Stamp::from(AGEING));
    packet.look_up(&Known(None), KEY, AGEING);
    packet.look_up(&learned(NOW), KEY, AGEING);
    assert_eq!(packet.until, 0);
}
