//! `stats`: how much each port carries, and why frames go nowhere.

use std::{
    io::{self, IsTerminal as _},
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Session, output,
    port::not_a_port,
    table::{Align, Table, short},
};
use crate::{control, view::StatsView};

/// Moves the cursor home and clears what is below it.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Show counters of each port, and drops by reason
#[derive(Args, Debug)]
#[command(after_help = "\
A frame received is either forwarded, passed to the host or dropped for one reason.

EXAMPLES
  vswitch stats
  vswitch stats web0 --watch 1                   rates, drawn anew every second until Ctrl-C
  vswitch -j stats | jq '.[] | {ifname, drops}'")]
pub struct Stats {
    /// This port alone, or `host`
    #[arg(value_name = "IF")]
    ifname: Option<String>,
    /// Again every so many seconds, with rates, until Ctrl-C
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    watch: Option<u32>,
}

/// What was read at a moment.
struct Sample {
    at: Instant,
    rows: Vec<StatsView>,
}

impl Stats {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        match self.watch {
            None => {
                session.print_rows(&self.read(&mut control::Meter::open(&session.scope)?, session)?, totals)
            }
            Some(seconds) => self.watch(session, seconds).await,
        }
    }

    fn read(&self, meter: &mut control::Meter<'_>, session: &Session) -> Result<Vec<StatsView>> {
        let mut rows = meter.read()?;
        if let Some(ifname) = &self.ifname {
            rows.retain(|row| row.ifname == *ifname);
            if rows.is_empty() {
                bail!(not_a_port(ifname, &session.scope.switch));
            }
        }
        Ok(rows)
    }

    async fn watch(&self, session: &Session, seconds: u32) -> Result<()> {
        let mut ticks = interval(Duration::from_secs(seconds.into()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // One listener for all rounds: a Ctrl-C while counters are read is not lost.
        let mut stopped = pin!(tokio::signal::ctrl_c());
        let mut before: Option<Sample> = None;
        let mut meter = control::Meter::open(&session.scope)?;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                stopped = &mut stopped => return stopped.context("wait for Ctrl-C"),
            }
            let now = Sample { at: Instant::now(), rows: self.read(&mut meter, session)? };
            if session.json {
                output::print(&output::json(&now.rows)?)?;
            } else {
                let text = rates(before.as_ref(), &now);
                let prefix = if io::stdout().is_terminal() { REDRAW } else { "" };
                output::print(&format!("{prefix}{text}\n"))?;
            }
            before = Some(now);
        }
    }
}

fn totals(rows: &[StatsView]) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("IFNAME", Align::Left),
        right("RX FRAMES"),
        right("RX BYTES"),
        right("TX FRAMES"),
        right("TX BYTES"),
        right("FORWARDED"),
        right("TO HOST"),
        right("DROPPED"),
    ]);
    for row in rows {
        table.row([
            row.ifname.clone(),
            short(row.rx.packets),
            short(row.rx.bytes),
            short(row.tx.packets),
            short(row.tx.bytes),
            short(row.forwarded),
            short(row.host),
            short(row.dropped()),
        ]);
        remarks(&mut table, row);
    }
    table.render()
}

/// Per second since `before`, and in total.
fn rates(before: Option<&Sample>, now: &Sample) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("IFNAME", Align::Left),
        right("RX FRAMES/S"),
        right("RX BIT/S"),
        right("TX FRAMES/S"),
        right("TX BIT/S"),
        right("DROPPED/S"),
        right("RX FRAMES"),
        right("RX BYTES"),
        right("TX FRAMES"),
        right("TX BYTES"),
        right("DROPPED"),
    ]);
    for row in &now.rows {
        let old = before.and_then(|before| {
            let old = before.rows.iter().find(|old| old.ifname == row.ifname)?;
            Some((old, now.at.saturating_duration_since(before.at)))
        });
        let rate = |unit: u64, of: &dyn Fn(&StatsView) -> u64| match old {
            Some((old, elapsed)) => short(per_second(of(old), of(row), elapsed).saturating_mul(unit)),
            None => "-".to_owned(),
        };
        table.row([
            row.ifname.clone(),
            rate(1, &|row| row.rx.packets),
            rate(8, &|row| row.rx.bytes),
            rate(1, &|row| row.tx.packets),
            rate(8, &|row| row.tx.bytes),
            rate(1, &StatsView::dropped),
            short(row.rx.packets),
            short(row.rx.bytes),
            short(row.tx.packets),
            short(row.tx.bytes),
            short(row.dropped()),
        ]);
        remarks(&mut table, row);
    }
    table.render()
}

/// Counters start anew when a port is removed and added again: then nothing is known of the time between.
fn per_second(before: u64, now: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    let rate = u128::from(now.saturating_sub(before)) * 1000 / millis;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// What is not as it should be, by name.
fn remarks(table: &mut Table, row: &StatsView) {
    let list = |counters: &mut dyn Iterator<Item = (&str, u64)>| {
        let seen = counters.filter(|(_, count)| *count > 0);
        seen.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let drops = list(&mut row.drops.iter().map(|(name, count)| (*name, *count)));
    if !drops.is_empty() {
        table.remark(format!("dropped: {drops}"));
    }
    let rest = list(&mut [("tx errors", row.tx.errors), ("not learned, FDB full", row.fdb_full)].into_iter());
    if !rest.is_empty() {
        table.remark(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use vswitch_ebpf::{abi::Counters, verdict::DropReason};

    fn row(ifname: &str, packets: u64) -> StatsView {
        let mut counters = Counters {
            rx_packets: packets,
            rx_bytes: packets * 100,
            tx_packets: 2,
            tx_bytes: 128,
            forwarded: packets.saturating_sub(3),
            tx_errors: 1,
            ..Counters::default()
        };
        counters.drops[DropReason::SamePort as usize] = 2;
        counters.drops[DropReason::Pause as usize] = 1;
        StatsView::new(ifname, &counters)
    }

    #[test]
    fn totals_name_the_drops() {
        let expected = "\
IFNAME  RX FRAMES  RX BYTES  TX FRAMES  TX BYTES  FORWARDED  TO HOST  DROPPED
web0           10      1000          2       128          7        0        3
    dropped: pause 1, same_port 2
    tx errors 1
";
        assert_eq!(totals(&[row("web0", 10)]), expected);
        assert_eq!(totals(&[]), "");
    }

    #[test]
    fn rates_are_per_second_and_unknown_at_first() {
        let at = Instant::now();
        let old = Sample { at, rows: vec![row("web0", 10)] };
        let new = Sample { at: at + Duration::from_secs(2), rows: vec![row("web0", 210), row("web1", 9)] };
        let text = rates(Some(&old), &new);
        let web0 = text.lines().find(|line| line.starts_with("web0")).unwrap();
        let cells: Vec<_> = web0.split_whitespace().collect();
        assert_eq!(cells, ["web0", "100", "80000", "0", "0", "0", "210", "21000", "2", "128", "3"]);
        let web1 = text.lines().find(|line| line.starts_with("web1")).unwrap();
        assert!(web1.starts_with("web1              -"), "{web1}");
        assert_eq!(per_second(100, 5, Duration::from_secs(1)), 0);
    }

    #[test]
    fn json_has_the_keys_of_the_contract() {
        let mut drops: BTreeMap<_, u64> = DropReason::ALL.map(|reason| (reason.name(), 0)).into();
        drops.extend([("pause", 1), ("same_port", 2)]);
        let expected = json!([{
            "ifname": "host",
            "rx": { "packets": 5, "bytes": 500 },
            "tx": { "packets": 2, "bytes": 128, "errors": 1 },
            "forwarded": 2,
            "host": 0,
            "fdb_full": 0,
            "drops": drops,
        }]);
        assert_eq!(serde_json::to_value([row("host", 5)]).unwrap(), expected);
    }
}
