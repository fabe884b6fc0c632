//! What is said of the runs? A row for each contestant, scenario and metric: against the Linux bridge, and the floor.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Machine, Options};

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// Length of a run in seconds.
    pub run_seconds: f64,
    /// Runs of each contestant.
    pub runs: u32,
    /// Seconds that all took.
    pub seconds: f64,
    /// What was found.
    pub rows: Vec<Row>,
}

/// One contestant in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: &'static str,
    /// What it is about.
    #[serde(skip)]
    pub about: &'static str,
    /// What the point is a number of; empty where there is but one.
    pub axis: &'static str,
    /// The point.
    pub point: Option<u32>,
    /// Which of the scenario's metrics; empty where there is but one.
    pub metric: &'static str,
    /// Unit of the value.
    pub unit: &'static str,
    /// Whether less is better.
    pub less_is_better: bool,
    /// Who.
    pub contestant: &'static str,
    /// Median of the runs.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// Each.
    pub values: Vec<f64>,
    /// Against the Linux bridge in the same runs.
    pub to_bridge: Option<f64>,
    /// What that ratio may be, with 95 %; and whether another bench may find it more than 5 % elsewhere.
    pub to_bridge_low: Option<f64>,
    /// Its other end.
    pub to_bridge_high: Option<f64>,
    /// Whether it is too wide to say more.
    pub inconclusive: bool,
    /// Against the best of the other switches in the same runs.
    pub to_best: Option<f64>,
    /// Part of the best bare redirect's in the same runs.
    pub of_floor: Option<f64>,
    /// What iperf3 measured on the same path, in the same unit, where it is installed.
    pub iperf3: Option<f64>,
    /// How far apart the sender's and the receiver's CPU were: nanoseconds for a cache line, there and back.
    pub cpu_distance: Option<f64>,
    /// What limits it, as far as the figures tell.
    pub limit: Option<String>,
    /// Frames (datagrams, bytes of TCP) sent in all runs, the warm-up included.
    pub sent: u64,
    /// Received. A flooded frame counts at each receiver.
    pub received: u64,
    /// Not received, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Sent, and nobody knows where they went.
    pub unaccounted: u64,
}

impl Report {
    pub(super) fn new(options: &Options, machine: Machine) -> Self {
        Self { machine, run_seconds: options.seconds, runs: options.runs, seconds: 0.0, rows: Vec::new() }
    }

    /// Frames that nobody can tell of.
    pub fn unaccounted(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for row in self.rows.iter().filter(|row| row.unaccounted > 0) {
            let text = format!("{} {}: {} of {}", row.label(), row.contestant, row.unaccounted, row.sent);
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        seen
    }

    /// Comma-separated values, a row each.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "scenario,point,metric,contestant,unit,median,min,max,to_bridge,to_bridge_low,to_bridge_high,inconclusive,to_best,of_floor,iperf3,sent,received,dropped,unaccounted\n",
        );
        let number = |value: Option<f64>| value.map(|value| format!("{value:.4}")).unwrap_or_default();
        for row in &self.rows {
            let point = row.point.map(|point| point.to_string()).unwrap_or_default();
            text.push_str(&format!(
                "{},{point},{},{},{},{:.3},{:.3},{:.3},{},{},{},{},{},{},{},{},{},{},{}\n",
                row.scenario,
                row.metric,
                row.contestant,
                row.unit,
                row.median,
                row.min,
                row.max,
                number(row.to_bridge),
                number(row.to_bridge_low),
                number(row.to_bridge_high),
                row.inconclusive,
                number(row.to_best),
                number(row.of_floor),
                number(row.iperf3),
                row.sent,
                row.received,
                row.drops.values().sum::<u64>(),
                row.unaccounted
            ));
        }
        text
    }
}

impl Row {
    /// `flood/8`, `latency p99`.
    pub fn label(&self) -> String {
        let mut label = self.scenario.to_owned();
        if let Some(point) = self.point {
            label.push_str(&format!("/{point}"));
        }
        if !self.metric.is_empty() {
            label.push_str(&format!(" {}", self.metric));
        }
        label
    }

    /// The value in a unit that people read.
    pub fn text(&self, value: f64) -> String {
        human(value, self.unit)
    }

    /// `1.20x`, or what it may be where the runs do not agree on it.
    pub fn against_bridge(&self) -> Option<String> {
        let ratio = self.to_bridge?;
        Some(match (self.inconclusive, self.to_bridge_low, self.to_bridge_high) {
            (true, Some(low), Some(high)) if self.contestant != "bridge" => {
                format!("{ratio:.2}x? {low:.2}-{high:.2}")
            }
            _ => format!("{ratio:.2}x"),
        })
    }
}

/// A value in a unit that people read.
pub(super) fn human(value: f64, unit: &str) -> String {
    let (scaled, name) = match unit {
        "frames/s" => (value / 1e6, "Mpps"),
        "bit/s" => (value / 1e9, "Gbit/s"),
        "datagrams/s" => (value / 1e3, "kpps"),
        "addresses/s" => (value / 1e3, "k/s"),
        other => (value, other),
    };
    if scaled >= 100.0 { format!("{scaled:.0} {name}") } else { format!("{scaled:.2} {name}") }
}
