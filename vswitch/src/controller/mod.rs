//! What needs a process that stays: removing aged entries, following interfaces that come, go and change, and putting
//! right what somebody has undone.
//!
//! The dataplane does not need it: when it ends, in whatever way, frames go on flowing.

use std::{collections::BTreeMap, io, mem, time::Duration};

use anyhow::Result;
use futures_util::FutureExt as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

mod backoff;
mod follow;
mod news;
mod round;
mod sweep;

use backoff::Backoff;
use news::{FarEnds, News};

use crate::{
    config::SwitchConfig,
    control::{self, Scope},
    dataplane::{Access, Dataplane, hold::Hold, pins::Pins},
    failure::in_words,
    lock::Lock,
    net::{Netlink, Watch},
    packet_log::PacketLog,
    privileges, service,
};

/// How a controller behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// A line for every frame that the switch decides at tc.
    pub log_packets: bool,
    /// A switch that is up stays as it is: the file is for making it.
    pub keep: bool,
}

/// How often everything is compared with what should be, whether or not an event said so.
const RECONCILE: Duration = Duration::from_secs(10);

/// How soon is noticed what the kernel sends no event for: pins and links that somebody takes away, and the switch itself.
const LOOK: Duration = Duration::from_millis(500);

/// Makes the switch as `config` if there is one, then keeps it so until SIGTERM or SIGINT, which leave it forwarding.
/// SIGHUP makes it look at everything.
pub async fn run(scope: &Scope, config: Option<SwitchConfig>, options: RunOptions) -> Result<()> {
    // From here on, so that no signal ends the process between two steps of a change.
    let signals = Signals::new()?;
    privileges::may_change()?;
    // Before anything is changed: a second controller must not apply its file either.
    let lock = Lock::run(&scope.switch).await?;
    // Before the file, which is for a switch of this build.
    let taken_over = control::take_over(scope, !options.log_packets).await?;
    taken_over.ops.iter().for_each(|op| eprintln!("{op}"));
    control::tell(&taken_over.notes);
    let kept = options.keep && Pins::of(&scope.switch).exist()?;
    if let Some(config) = config.filter(|_| !kept) {
        control::tell(&control::apply(scope, config, false).await?.notes);
    }
    let mut controller = Controller::new(scope, lock, signals, options).await?;
    privileges::only_follow()?;
    service::ready(&scope.switch);
    let ended = controller.stay().await;
    if let Ok(End::SwitchGone) = ended {
        eprintln!(r#"switch "{}": is gone: the controller ends"#, scope.switch);
        return Ok(());
    }
    service::stopping(&scope.switch);
    let stopped = controller.log.stop(scope).await;
    let revived = follow::revive(&controller.dataplane);
    ended.map(|_asked| ()).and(stopped).and(revived)
}

/// Why a controller stays no longer.
enum End {
    Asked,
    SwitchGone,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until the controller is asked to end.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

struct Controller<'a> {
    scope: &'a Scope,
    /// Of the switch's controller: `down` takes it away.
    lock: Lock,
    signals: Signals,
    /// One of them has asked it to end while it waited for something.
    asked: bool,
    dataplane: Dataplane,
    netlink: Netlink,
    watch: Watch,
    hold: Hold,
    log: PacketLog,
    far_ends: FarEnds,
    backoff: Backoff,
    /// What is wrong, by slot: told once and not every time.
    wrong: BTreeMap<u16, Vec<String>>,
    /// Why the last round failed, if it did.
    failed: String,
    /// What it was about has been forgotten with it.
    behind: bool,
}

impl<'a> Controller<'a> {
    async fn new(scope: &'a Scope, lock: Lock, signals: Signals, options: RunOptions) -> Result<Self> {
        // It holds a descriptor for each link.
        raise_descriptors();
        let dataplane = Dataplane::open(&scope.switch, Access::Write)?;
        // Before the first look, so that nothing is missed in between.
        let watch = Watch::open()?;
        let log = PacketLog::new(&dataplane, options.log_packets).await?;
        let hold = Hold::new(&dataplane.pins);
        Ok(Self {
            scope,
            lock,
            signals,
            asked: false,
            dataplane,
            netlink: Netlink::open()?,
            watch,
            hold,
            log,
            far_ends: FarEnds::default(),
            backoff: Backoff::default(),
            wrong: BTreeMap::new(),
            failed: String::new(),
            behind: false,
        })
    }

    /// Does what there is to do until a signal comes, for as long as there is a switch.
    async fn stay(&mut self) -> Result<End> {
        eprintln!(r#"switch "{}": controller is running"#, self.scope.switch);
        let mut looking = interval(LOOK);
        let mut reconciling = interval(service::pulse().map_or(RECONCILE, |pulse| pulse.min(RECONCILE)));
        for timer in [&mut looking, &mut reconciling] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut next_sweep = Instant::now();
        loop {
            let mut news = News::default();
            let mut sweep = false;
            let logged = tokio::select! {
                _ = self.signals.terminate.recv() => return Ok(End::Asked),
                _ = self.signals.interrupt.recv() => return Ok(End::Asked),
                _ = self.signals.hangup.recv() => { news.all = true; Ok(()) }
                event = self.watch.next() => {
                    news.add(event?, &self.far_ends);
                    self.drain(&mut news)
                }
                _ = reconciling.tick() => { news.all = true; Ok(()) }
                () = sleep_until(next_sweep) => { sweep = true; Ok(()) }
                _ = looking.tick() => { self.look(&mut news); Ok(()) }
                logged = self.log.print() => logged,
            };
            if self.lock.is_dismissed() {
                return Ok(End::SwitchGone);
            }
            let mut done = logged;
            if sweep {
                let within = self.sweep(&mut news).await;
                next_sweep = Instant::now() + *within.as_ref().unwrap_or(&RECONCILE);
                done = done.and_then(|()| within.map(drop));
            }
            let all = news.all;
            let rounds = self.rounds(news).await;
            if self.asked {
                return Ok(End::Asked);
            }
            if all {
                self.report(&rounds);
            }
            self.told_once(done.and(rounds));
        }
    }

    /// Removes aged entries. Returns when to do it again.
    async fn sweep(&mut self, news: &mut News) -> Result<Duration> {
        match self.change(news).await? {
            Some(lock) => sweep::sweep(&mut self.dataplane, &lock),
            None => Ok(RECONCILE),
        }
    }

    /// One after the other, until nothing has happened meanwhile.
    async fn rounds(&mut self, mut news: News) -> Result<()> {
        while !news.is_empty() {
            news = self.round(news).await.inspect_err(|_| self.behind = true)?;
        }
        Ok(())
    }

    /// Adds the events that wait to the news: one look answers them all.
    fn drain(&mut self, news: &mut News) -> Result<()> {
        while let Some(event) = self.watch.next().now_or_never().transpose()? {
            news.add(event, &self.far_ends);
        }
        Ok(())
    }

    /// What no event tells.
    fn look(&mut self, news: &mut News) {
        news.all = mem::take(&mut self.behind);
        let seen = self.hold.look();
        news.pins = seen.missing;
        news.changed.extend(seen.linked);
        news.slots.extend(seen.loose);
        // Tried again, as far as their pauses are over.
        news.slots.extend(self.wrong.keys());
    }

    /// Tells the service manager how a look at everything went: one that failed is no progress.
    fn report(&self, done: &Result<()>) {
        let wrong: Vec<_> = self.wrong.values().flatten().cloned().collect();
        match done {
            Ok(()) => service::progress(&self.scope.switch, &wrong.join("\n")),
            Err(err) => service::stuck(&self.scope.switch, &in_words(err)),
        }
    }

    fn told_once(&mut self, done: Result<()>) {
        let failed = done.err().map(|err| in_words(&err)).unwrap_or_default();
        if failed != self.failed {
            complain(&failed);
            self.failed = failed;
        }
    }
}

fn complain(text: &str) {
    for line in text.lines() {
        eprintln!("vswitch: {line}");
    }
}

/// As many descriptors as this process may have at all.
fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an rlimit of ours, which outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
