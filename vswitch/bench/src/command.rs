//! `bench`: who forwards how fast on this machine?

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use vswitch::cli::{
    Session, Usage, output,
    table::{Align, Table},
};

use crate::{self as bench, Options, Pair, Report};

/// Compare vswitch with the Linux bridge, macvlan and bare redirects on this machine
#[derive(Args, Debug)]
#[command(after_help = "\
All happens in namespaces that are made for it and taken away again, also after Ctrl-C.

EXAMPLES
  vswitch bench                                  everything, in less than five minutes
  vswitch bench --quick --report bench.html      everything, short, with charts
  vswitch bench --scenario tcp,udp --against bridge
  vswitch bench --list                           what the scenarios are")]
pub struct Bench {
    /// These scenarios alone
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    scenario: Vec<String>,
    /// Compare vswitch with these contestants alone
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    against: Vec<String>,
    /// Length of a run; what scatters more has several times as much [default: 0.1, with --quick 0.02]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Runs of each contestant, who take turns of 5 to 20 ms in it [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: Option<u32>,
    /// Size of small frames, checksum included
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(64..=1518))]
    frame: Option<u16>,
    /// Every scenario, at fewer points and with short runs
    #[arg(long)]
    quick: bool,
    /// Print comma-separated values
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Write a page with charts as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Send from this interface instead of a veth; it is cabled to --rx
    #[arg(long, value_name = "IF", requires = "rx")]
    tx: Option<String>,
    /// Switch what comes in here. Both interfaces lose their addresses
    #[arg(long, value_name = "IF", requires = "tx")]
    rx: Option<String>,
    /// Do not ask before interfaces are disturbed
    #[arg(long)]
    yes: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// The process that cleans up
    #[arg(long, hide = true, value_name = "PREFIX")]
    guard: Option<String>,
}

impl Bench {
    /// Does what the user said.
    pub fn run(self, session: &Session) -> Result<()> {
        if let Some(prefix) = &self.guard {
            return bench::guard(prefix, self.pair().as_ref());
        }
        if self.list {
            return list(session);
        }
        let options = self.options()?;
        if let Some(pair) = &options.pair {
            pair.check()?;
            if !self.yes && !agreed(pair)? {
                bail!("not agreed to: nothing was done (--yes does not ask)");
            }
        }
        let report = bench::run(&options, &mut progress)?;
        progress("");
        if let Some(path) = &self.report {
            fs::write(path, bench::page(&report)).with_context(|| format!("write {}", path.display()))?;
        }
        if session.json {
            output::print(&output::json(&[&report])?)?;
        } else if self.csv {
            output::print(&report.csv())?;
        } else {
            output::print(&table(&report))?;
        }
        let lost = report.unaccounted();
        if !lost.is_empty() {
            bail!("frames unaccounted for: {}", lost.join("; "));
        }
        Ok(())
    }

    fn options(&self) -> Result<Options> {
        let seconds = self.seconds.unwrap_or(if self.quick { 0.02 } else { 0.1 });
        if !(0.001..=60.0).contains(&seconds) {
            bail!(Usage::new(format!("--seconds {seconds}: must be between 0.001 and 60")));
        }
        Ok(Options {
            scenarios: self.scenario.clone(),
            against: self.against.clone(),
            seconds,
            runs: self.runs.unwrap_or(5),
            frame: self.frame.map(usize::from),
            quick: self.quick,
            pair: self.pair(),
        })
    }

    fn pair(&self) -> Option<Pair> {
        let (tx, rx) = (self.tx.clone()?, self.rx.clone()?);
        Some(Pair { tx, rx })
    }
}

/// Asks at the terminal; without an answer there is no agreement.
fn agreed(pair: &Pair) -> Result<bool> {
    let Pair { tx, rx } = pair;
    let mut stderr = io::stderr().lock();
    write!(
        stderr,
        "{tx} and {rx} are taken from whatever uses them, go down and up, and lose their addresses and routes. Go on? [y/N] "
    )
    .and_then(|()| stderr.flush())
    .context("ask")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("read the answer")?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

fn list(session: &Session) -> Result<()> {
    #[derive(serde::Serialize)]
    struct Scenario {
        name: &'static str,
        about: &'static str,
    }
    let rows: Vec<_> = bench::list().into_iter().map(|(name, about)| Scenario { name, about }).collect();
    session.print_rows(&rows, |rows| {
        let mut table = Table::plain(2);
        rows.iter().for_each(|row| table.row([row.name.to_owned(), row.about.to_owned()]));
        table.render()
    })
}

/// On one line of a terminal; nobody wants to know where stderr is closed or a file.
fn progress(what: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let _unread = write!(stderr, "\r\x1b[K{what}");
        let _unread = stderr.flush();
    }
}

fn table(report: &Report) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("SCENARIO", Align::Left),
        ("CONTESTANT", Align::Left),
        right("MEDIAN"),
        right("MIN"),
        right("MAX"),
        right("BRIDGE"),
        right("FLOOR"),
        right("DROPS"),
        ("LIMIT", Align::Left),
    ]);
    let mut last = String::new();
    for row in &report.rows {
        let label = row.label();
        let dropped: u64 = row.drops.values().sum();
        table.row([
            if label == last { String::new() } else { label.clone() },
            row.contestant.to_owned(),
            row.text(row.median),
            row.text(row.min),
            row.text(row.max),
            row.against_bridge().unwrap_or_else(|| "-".to_owned()),
            row.of_floor.map_or_else(|| "-".to_owned(), |part| format!("{:.0}%", 100.0 * part)),
            if row.sent == 0 {
                "-".to_owned()
            } else {
                format!("{:.1}%", 100.0 * dropped as f64 / (dropped + row.received).max(1) as f64)
            },
            [row.limit.clone(), row.iperf3.map(|value| format!("iperf3: {}", row.text(value)))]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; "),
        ]);
        last = label;
    }
    let machine = &report.machine;
    let mut text = format!(
        "{}, {} CPUs, Linux {}, vswitch {}, load {} at start; {} runs of {} s, {:.0} s in all\n\n",
        machine.cpu,
        machine.cpus,
        machine.kernel,
        machine.vswitch,
        machine.load,
        report.runs,
        report.run_seconds,
        report.seconds
    );
    text.push_str(&table.render());
    text.push('\n');
    machine.terms.iter().for_each(|term| text.push_str(&format!("  {term}\n")));
    text
}
