//! What is said of the runs? A row for each contestant, scenario and metric: against the Linux bridge, and the floor.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Lane, Machine, Options,
    contestants::Contestant,
    measure::Spread,
    scenarios::{Case, Metric},
};

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
    /// Part of the best bare redirect's in the same runs.
    pub of_floor: Option<f64>,
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

    pub(super) fn add(&mut self, case: &Case, lanes: Vec<Lane>) {
        for (number, metric) in case.metrics.iter().enumerate() {
            let spreads: Vec<(Contestant, Spread)> = lanes
                .iter()
                .map(|lane| (lane.contestant, Spread::of(lane.values.get(number).map_or(&[], Vec::as_slice))))
                .collect();
            for (lane, (_, spread)) in lanes.iter().zip(&spreads) {
                let values = lane.values.get(number).cloned().unwrap_or_default();
                self.rows.push(row(case, *metric, lane, *spread, values, &spreads));
            }
        }
    }

    /// Comma-separated values, a row each.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "scenario,point,metric,contestant,unit,median,min,max,to_bridge,of_floor,sent,received,dropped,unaccounted\n",
        );
        let number = |value: Option<f64>| value.map(|value| format!("{value:.4}")).unwrap_or_default();
        for row in &self.rows {
            let point = row.point.map(|point| point.to_string()).unwrap_or_default();
            text.push_str(&format!(
                "{},{point},{},{},{},{:.3},{:.3},{:.3},{},{},{},{},{},{}\n",
                row.scenario,
                row.metric,
                row.contestant,
                row.unit,
                row.median,
                row.min,
                row.max,
                number(row.to_bridge),
                number(row.of_floor),
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

    /// How far apart the runs are, as a part of the median.
    pub fn width(&self) -> f64 {
        Spread { median: self.median, min: self.min, max: self.max }.width()
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

fn row(
    case: &Case,
    metric: Metric,
    lane: &Lane,
    spread: Spread,
    values: Vec<f64>,
    all: &[(Contestant, Spread)],
) -> Row {
    let bridge = all.iter().find(|(who, _)| *who == Contestant::Bridge).map(|(_, spread)| spread.median);
    let floors = all.iter().filter(|(who, _)| who.is_floor()).map(|(_, spread)| spread.median);
    let floor = floors.reduce(if metric.less_is_better { f64::min } else { f64::max });
    let part = |of: Option<f64>| {
        let (over, under) = if metric.less_is_better { (of?, spread.median) } else { (spread.median, of?) };
        (under > 0.0 && over.is_finite()).then_some(over / under)
    };
    let is_floor = lane.contestant.is_floor() || lane.contestant == Contestant::Generator;
    let generator =
        all.iter().find(|(who, _)| *who == Contestant::Generator).map(|(_, spread)| spread.median);
    Row {
        scenario: case.scenario.name,
        about: case.scenario.about,
        axis: case.scenario.axis,
        point: case.point,
        metric: metric.name,
        unit: metric.unit,
        less_is_better: metric.less_is_better,
        contestant: lane.contestant.name(),
        median: spread.median,
        min: spread.min,
        max: spread.max,
        values,
        to_bridge: part(bridge),
        of_floor: part(floor).filter(|_| !is_floor),
        limit: if is_floor { None } else { limit(case, metric, spread.median, floor, generator) },
        sent: lane.ledger.sent,
        received: lane.ledger.received,
        drops: lane.ledger.drops.clone(),
        unaccounted: lane.ledger.unaccounted,
    }
}

/// Where the time of a frame goes, from what others took for it in the same runs.
fn limit(
    case: &Case,
    metric: Metric,
    rate: f64,
    floor: Option<f64>,
    generator: Option<f64>,
) -> Option<String> {
    let floor = floor.filter(|floor| *floor > 0.0)?;
    match metric.unit {
        "frames/s" if rate > 0.0 => {
            let (own, bare) = (1e9 / rate, 1e9 / floor);
            let what = if case.scenario.name == "private" { "bare drop" } else { "bare redirect" };
            let generated =
                generator.map(|rate| format!(", {:.0} generator", 1e9 / rate)).unwrap_or_default();
            Some(format!("{own:.0} ns a frame: {bare:.0} {what}{generated}; {:+.0} its own", own - bare))
        }
        "bit/s" if rate > 0.97 * floor => Some("copying: a bare redirect is no faster".to_owned()),
        "datagrams/s" if rate > 0.97 * floor => Some("the sockets: a bare redirect is no faster".to_owned()),
        _ => None,
    }
}
