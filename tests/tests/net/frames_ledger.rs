//! What must `stats` say? Books kept from what was sent, what the specification decides and who was seen to receive.

use std::collections::BTreeMap;

use serde_json::Value;
use vswitch_tests::{
    lab::{HOST, Lab},
    model::{Outcome, Receiver},
    observe::Receipts,
};

/// By interface, `host` among them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger(BTreeMap<String, Row>);

/// One row of `stats`, without bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) rx: u64,
    pub(crate) tx: u64,
    pub(crate) forwarded: u64,
    pub(crate) host: u64,
    /// Those that are not zero.
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Ledger {
    /// One frame of `from`, and who received it.
    pub(crate) fn enter(&mut self, lab: &Lab, from: &str, outcome: &Outcome, receipts: &Receipts) {
        let row = self.row(lab, from);
        row.rx += 1;
        match outcome.dropped {
            Some(reason) => *row.drops.entry(reason.to_owned()).or_default() += 1,
            None if outcome.receivers.iter().any(|one| matches!(one, Receiver::Port(_))) => {
                row.forwarded += 1;
            }
            None => row.host += 1,
        }
        for heard in &receipts.heard {
            self.row(lab, &heard.by).tx += 1;
        }
    }

    /// As many frames of `from`, and who is to receive them.
    pub(crate) fn expect(&mut self, from: &str, outcome: &Outcome, times: u64, port: impl Fn(u16) -> String) {
        let row = self.0.entry(from.to_owned()).or_default();
        row.rx += times;
        let to_port = |receiver: &Receiver| matches!(receiver, Receiver::Port(_));
        *match outcome.dropped {
            Some(reason) => row.drops.entry(reason.to_owned()).or_default(),
            None if outcome.receivers.iter().any(to_port) => &mut row.forwarded,
            None => &mut row.host,
        } += times;
        for receiver in &outcome.receivers {
            let name = match *receiver {
                Receiver::Port(slot) => port(slot),
                Receiver::Host { .. } | Receiver::HostHere => HOST.to_owned(),
            };
            self.0.entry(name).or_default().tx += times;
        }
    }

    /// `stats -j`, which must add up by itself. Rows where nothing happened are left out.
    pub(crate) fn said(rows: &Value) -> Self {
        rows.as_array().expect("rows").iter().for_each(|row| assert_eq!(row["tx"]["errors"], 0, "in {row}"));
        Self::whatever_was_lost(rows)
    }

    /// The same, where the kernel may have refused to send some.
    pub(crate) fn whatever_was_lost(rows: &Value) -> Self {
        let name = |row: &Value| row["ifname"].as_str().expect("a name").to_owned();
        let rows = rows.as_array().expect("rows").iter().map(|row| (name(row), Row::said(row)));
        Self(rows.filter(|(_, row)| *row != Row::default()).collect())
    }

    pub(crate) fn of(&self, ifname: &str) -> &Row {
        self.0.get(ifname).unwrap_or_else(|| panic!("no row {ifname} in {self:?}"))
    }

    fn row(&mut self, lab: &Lab, station: &str) -> &mut Row {
        // The stack of whichever interface is the host.
        let host = station.starts_with(HOST);
        self.0.entry(if host { HOST.to_owned() } else { lab.port(station).to_owned() }).or_default()
    }
}

impl Row {
    fn said(row: &Value) -> Self {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {row}"));
        let all = row["drops"].as_object().expect("drops by reason").iter();
        let drops =
            all.map(|(reason, count)| (reason.clone(), number(count))).filter(|(_, count)| *count > 0);
        let read = Self {
            rx: number(&row["rx"]["packets"]),
            tx: number(&row["tx"]["packets"]),
            forwarded: number(&row["forwarded"]),
            host: number(&row["host"]),
            drops: drops.collect(),
        };
        let decided = read.forwarded + read.host + read.drops.values().sum::<u64>();
        assert_eq!(read.rx, decided, "received = forwarded + host + drops in {row}");
        read
    }
}
