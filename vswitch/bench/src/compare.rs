//! How does each contestant stand against the others in the same rounds: the Linux bridge, the best switch, the floor?

use super::{
    Lane, Row,
    contestants::Contestant,
    scenarios::{Case, Metric},
    spread::{Ratio, Spread},
};

/// A row for each metric and contestant.
pub(super) fn rows(case: &Case, lanes: &[Lane]) -> Vec<Row> {
    let metrics = case.metrics.iter().enumerate();
    metrics
        .flat_map(|(number, metric)| {
            let field = Field::new(*metric, number, lanes);
            lanes.iter().map(move |lane| field.row(case, number, lane)).collect::<Vec<_>>()
        })
        .collect()
}

/// All contestants by one metric.
struct Field<'l> {
    metric: Metric,
    /// The values of each, by round.
    all: Vec<(Contestant, &'l [f64])>,
}

impl<'l> Field<'l> {
    fn new(metric: Metric, number: usize, lanes: &'l [Lane]) -> Self {
        let values = |lane: &'l Lane| lane.values.get(number).map_or(&[] as &[f64], Vec::as_slice);
        Self { metric, all: lanes.iter().map(|lane| (lane.contestant, values(lane))).collect() }
    }

    fn of(&self, contestant: Contestant) -> Option<&'l [f64]> {
        self.all.iter().find(|(who, _)| *who == contestant).map(|(_, values)| *values)
    }

    /// The values of the best of those.
    fn best(&self, among: impl Fn(Contestant) -> bool) -> Option<&'l [f64]> {
        let chosen = self.all.iter().filter(|(who, _)| among(*who)).map(|(_, values)| *values);
        chosen.reduce(
            |best, other| if self.ratio(other, best).is_some_and(|r| r.median > 1.0) { other } else { best },
        )
    }

    fn ratio(&self, ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
        Ratio::of(ours, theirs, self.metric.less_is_better)
    }

    fn row(&self, case: &Case, number: usize, lane: &Lane) -> Row {
        let who = lane.contestant;
        let values = lane.values.get(number).cloned().unwrap_or_default();
        let against = |theirs: Option<&[f64]>| self.ratio(&values, theirs?);
        let bare = !who.is_switch();
        let floor = self.best(Contestant::is_floor);
        let others = self.best(|other| other != who && other.is_switch() && !other.is_vswitch());
        let to_bridge = against(self.of(Contestant::Bridge));
        let Spread { median, min, max } = Spread::of(&values);
        Row {
            scenario: case.scenario.name,
            about: case.scenario.about,
            axis: case.scenario.axis,
            point: case.point,
            metric: self.metric.name,
            unit: self.metric.unit,
            less_is_better: self.metric.less_is_better,
            contestant: who.name(),
            median,
            min,
            max,
            to_bridge: to_bridge.map(|ratio| ratio.median),
            to_bridge_low: to_bridge.map(|ratio| ratio.low),
            to_bridge_high: to_bridge.map(|ratio| ratio.high),
            inconclusive: who != Contestant::Bridge && to_bridge.is_some_and(|ratio| ratio.inconclusive),
            to_best: against(others.filter(|_| !bare)).map(|ratio| ratio.median),
            of_floor: against(floor.filter(|_| !bare)).map(|ratio| ratio.median),
            iperf3: lane.iperf3.filter(|_| number == 0),
            cpu_distance: lane.distance,
            limit: if bare { None } else { self.limit(case, median, lane.distance) },
            values,
            sent: lane.ledger.sent,
            received: lane.ledger.received,
            drops: lane.ledger.drops.clone(),
            unaccounted: lane.ledger.unaccounted,
        }
    }

    /// Where the time of a frame goes, from what others took for it in the same runs.
    fn limit(&self, case: &Case, rate: f64, distance: Option<f64>) -> Option<String> {
        let median = |values| Spread::of(values).median;
        let floor = self.best(Contestant::is_floor).map(median).filter(|floor| *floor > 0.0)?;
        match self.metric.unit {
            "frames/s" if rate > 0.0 => {
                let (own, bare) = (1e9 / rate, 1e9 / floor);
                let what = if case.scenario.name == "private" { "bare drop" } else { "bare redirect" };
                let generator = self.of(Contestant::Generator).map(median);
                let generated =
                    generator.map(|rate| format!(", {:.0} generator", 1e9 / rate)).unwrap_or_default();
                Some(format!("{own:.0} ns a frame: {bare:.0} {what}{generated}; {:+.0} its own", own - bare))
            }
            "bit/s" if rate > 0.97 * floor => {
                let apart = distance.map(|ns| format!(", between CPUs {ns:.0} ns apart")).unwrap_or_default();
                Some(format!("copying{apart}: a bare redirect is no faster"))
            }
            "datagrams/s" if rate > 0.97 * floor => {
                Some("the sockets: a bare redirect is no faster".to_owned())
            }
            "datagrams/s" if rate > 0.0 => {
                let (own, bare) = (1e9 / rate, 1e9 / floor);
                Some(format!(
                    "{own:.0} ns a datagram: {bare:.0} sockets and bare redirect; {:+.0} its own",
                    own - bare
                ))
            }
            "us" if self.metric.name == "p50" => Some(format!(
                "{floor:.2} us sockets and bare redirect, both ways; {:+.2} its own",
                rate - floor
            )),
            _ => None,
        }
    }
}
