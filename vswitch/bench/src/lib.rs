//! `vswitch bench`: who forwards how fast? Contestants in labs of the bench's own, measured in alternation.

mod clock;
mod command;
mod compare;
mod contestants;
mod counters;
mod cpus;
mod distance;
mod frames;
mod generator;
mod guard;
mod html;
mod iperf3;
mod lab;
mod learning;
mod machine;
mod measure;
mod nic;
mod report;
mod scenarios;
mod sockets;
mod spread;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use contestants::{Contestant, Rival};
use generator::{Generator, Load};
use lab::{Lab, PREFIX};
use measure::{Ledger, Trial};
use scenarios::Case;

pub use command::Bench;
pub use guard::run as guard;
pub use html::page;
pub use machine::Machine;
pub use nic::Pair;
pub use report::{Report, Row};
pub use scenarios::list;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Scenarios by name; all if none is named.
    pub scenarios: Vec<String>,
    /// Contestants by name; all if none is named.
    pub against: Vec<String>,
    /// How long a run is.
    pub seconds: f64,
    /// How many runs each contestant has.
    pub runs: u32,
    /// Another size for the scenarios of small frames, with the checksum that ends a frame on a wire.
    pub frame: Option<usize>,
    /// Fewer points.
    pub quick: bool,
    /// Between these interfaces of the user's, not between veths.
    pub pair: Option<Pair>,
}

/// One contestant in one case.
struct Lane {
    contestant: Contestant,
    /// While it is set up.
    trial: Option<Box<dyn Trial>>,
    /// By metric, then by run.
    values: Vec<Vec<f64>>,
    ledger: Ledger,
    /// What iperf3 says of the first metric.
    iperf3: Option<f64>,
    /// How far apart the CPUs were, if that matters: nanoseconds for a cache line, there and back.
    distance: Option<f64>,
}

/// Measures all, and takes everything down. `progress` is told what is going on.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let started = Instant::now();
    let cases = scenarios::chosen(options)?;
    vswitch::privileges::may_change()?;
    let machine = Machine::here(options.pair.as_ref());
    let guard = guard::Guard::start(&prefix(), options.pair.as_ref())?;
    // The generator, and with it the switch that its soft interrupts run, has this CPU for itself.
    cpus::pin(cpus::generator_cpu())?;
    let mut generator = Generator::new(&unique_name(), options.pair.is_some())?;
    calibrate(&mut generator)?;
    let mut report = Report::new(options, machine);
    let all = cases.len();
    for (number, case) in cases.iter().enumerate() {
        let label = format!("[{}/{all}] {}", number + 1, case.name());
        let lanes =
            measure_case(case, options, &mut generator, &mut |what| progress(&format!("{label}: {what}")))
                .with_context(|| format!("scenario {}", case.name()))?;
        report.rows.extend(compare::rows(case, &lanes));
    }
    report.seconds = started.elapsed().as_secs_f64();
    drop(generator);
    guard.finish()?;
    Ok(report)
}

fn measure_case(
    case: &Case,
    options: &Options,
    generator: &mut Generator,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Lane>> {
    if let Some(pair) = &options.pair {
        return one_by_one(case, pair, options, generator, progress);
    }
    let mut lanes = Vec::new();
    for contestant in case.contestants.iter().copied() {
        progress(&format!("set up {contestant}"));
        let trial = case.make(&unique_name(), contestant, generator, None)?;
        lanes.push(Lane { trial: Some(trial), ..Lane::new(contestant, case) });
    }
    let (rounds, time) = case.pace(options);
    let mut distances = Vec::new();
    // The first shows how fast each is, and warms it up.
    for round in 0..=rounds {
        // A machine that warms up or has other work meets all alike: each in turn, and every other time backwards.
        let mut order: Vec<_> = lanes.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        if case.between_cpus() && round > 0 {
            distances.push(distance::now()?);
        }
        progress(&format!("round {round}/{rounds}"));
        for lane in order {
            let Some(trial) = &mut lane.trial else { continue };
            let found = trial.run(generator, time).with_context(|| lane.contestant.name())?;
            lane.note(found, round > 0);
        }
    }
    let (distance, here) = distance::common(&distances);
    if distance.is_some() {
        lanes.iter_mut().for_each(|lane| lane.keep(distance, &here));
    }
    // It takes a second for each, which --quick has not got.
    if !options.quick && iperf3::installed() {
        for lane in lanes.iter_mut().filter(|lane| lane.contestant.is_switch()) {
            progress(&format!("{} iperf3", lane.contestant));
            let Some(trial) = &lane.trial else { continue };
            lane.iperf3 = trial.second_opinion().with_context(|| lane.contestant.name())?;
        }
    }
    Ok(lanes)
}

/// As [`measure_case`], where the contestants have to share one cable: each is set up anew for each of its runs.
fn one_by_one(
    case: &Case,
    pair: &Pair,
    options: &Options,
    generator: &mut Generator,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Lane>> {
    let mut lab = Lab::new(&unique_name())?;
    lab.lend(pair)?;
    let lab = Arc::new(lab);
    let mut lanes: Vec<Lane> =
        case.contestants.iter().map(|contestant| Lane::new(*contestant, case)).collect();
    let time = Duration::from_secs_f64(options.seconds);
    for run in 1..=options.runs {
        for lane in &mut lanes {
            progress(&format!("{} run {run}/{}", lane.contestant, options.runs));
            let mut trial = case.make(&lab.name, lane.contestant, generator, Some(&lab))?;
            let warm_up = trial.run(generator, time.mul_f64(0.1)).with_context(|| lane.contestant.name())?;
            lane.note(warm_up, false);
            let found = trial.run(generator, time).with_context(|| lane.contestant.name())?;
            lane.note(found, true);
        }
    }
    Ok(lanes)
}

impl Lane {
    fn new(contestant: Contestant, case: &Case) -> Self {
        Self {
            contestant,
            trial: None,
            values: vec![Vec::new(); case.metrics.len()],
            ledger: Ledger::default(),
            iperf3: None,
            distance: None,
        }
    }

    /// Keeps the rounds that were at one distance.
    fn keep(&mut self, distance: Option<f64>, here: &[bool]) {
        self.distance = distance;
        for values in &mut self.values {
            let mut rounds = here.iter();
            values.retain(|_| rounds.next().is_none_or(|here| *here));
        }
    }

    fn note(&mut self, found: measure::Run, counts: bool) {
        self.ledger.add(&found.ledger);
        if counts {
            for (values, value) in self.values.iter_mut().zip(found.values) {
                values.push(value);
            }
        }
    }
}

/// What a run of the generator costs without frames.
fn calibrate(generator: &mut Generator) -> Result<()> {
    let terms = contestants::Terms::default();
    let rival = Rival::new(&unique_name(), Contestant::Generator, terms, None)?;
    let entrance = scenarios::entrance(generator, &rival, 0)?;
    let load = Load::new(entrance, 60);
    generator.calibrate(&load)
}

/// Names everything of this process's.
fn prefix() -> String {
    format!("{PREFIX}-{}", std::process::id())
}

fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", prefix(), COUNT.fetch_add(1, Ordering::Relaxed))
}
