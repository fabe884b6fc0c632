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

    /// `stats -j`, which must add up by itself. Rows where nothing happened are left out.
    pub(crate) fn said(rows: &Value) -> Self {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {rows}"));
        let read = |row: &Value| {
            let all = row["drops"].as_object().expect("drops by reason").iter();
            let drops =
                all.map(|(reason, count)| (reason.clone(), number(count))).filter(|(_, count)| *count > 0);
            let read = Row {
                rx: number(&row["rx"]["packets"]),
                tx: number(&row["tx"]["packets"]),
                forwarded: number(&row["forwarded"]),
                host: number(&row["host"]),
                drops: drops.collect(),
            };
            let decided = read.forwarded + read.host + read.drops.values().sum::<u64>();
            assert_eq!(read.rx, decided, "received = forwarded + host + drops in {row}");
            assert_eq!(number(&row["tx"]["errors"]), 0, "in {row}");
            (row["ifname"].as_str().expect("a name").to_owned(), read)
        };
        let rows = rows.as_array().expect("rows").iter().map(read);
        Self(rows.filter(|(_, row)| *row != Row::default()).collect())
    }

    fn row(&mut self, lab: &Lab, station: &str) -> &mut Row {
        // The stack of whichever interface is the host.
        let host = station.starts_with(HOST);
        self.0.entry(if host { HOST.to_owned() } else { lab.port(station).to_owned() }).or_default()
    }
}
