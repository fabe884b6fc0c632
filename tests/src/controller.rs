//! A `vswitch run` in the background, with what it says.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::{
    hosts::{Killed, signal, until},
    patience::{Stopwatch, patience},
    topo::Netns,
    vswitch,
};

/// The line that says the controller is at work.
const READY: &str = "controller is running";
/// How long anything that it does at once may take on a loaded machine.
pub const AT_ONCE: Duration = Duration::from_secs(5);

/// How long it may take to start, or to leave the kernel when it is killed, where other tests' load makes each of the
/// kernel's grace periods a long one: for each program of a port that is replaced there is one, in which all netlink waits.
const GRACE: Duration = Duration::from_secs(30);

/// How long noticing and repairing something may take where other tests have the CPUs, and where not.
const NOTICED: Duration = Duration::from_secs(3);
const NOTICED_ALONE: Duration = Duration::from_secs(1);

/// Killed when dropped, which leaves the switch forwarding.
pub struct Controller {
    child: Killed,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Controller {
    /// `vswitch run ARGS`, until it is ready.
    pub fn start(netns: &Netns, name: &str, args: &str) -> Self {
        let controller = Self::spawn(netns, name, args);
        controller.await_ready();
        controller
    }

    /// `vswitch run ARGS`, whatever becomes of it.
    pub fn spawn(netns: &Netns, name: &str, args: &str) -> Self {
        Self::of(vswitch::command(netns, name, &format!("run {args}")))
    }

    /// `vswitch run`, by a command that becomes it.
    pub fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().expect("start vswitch run"));
        let stderr = BufReader::new(child.0.stderr.take().expect("piped"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&lines);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                said.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    /// What it has said so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until it is at work.
    pub fn await_ready(&self) {
        self.await_line_within(READY, GRACE);
    }

    pub fn await_line(&self, part: &str) {
        self.await_line_within(part, AT_ONCE);
    }

    fn await_line_within(&self, part: &str, limit: Duration) {
        let deadline = Instant::now() + patience(limit);
        while !self.lines().iter().any(|line| line.contains(part)) {
            assert!(Instant::now() < deadline, "no line with {part:?} in {:#?}", self.lines());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Does something, and waits for a new line about it. Returns how long that took.
    #[track_caller]
    pub fn tells(&self, part: &str, within: Duration, act: impl FnOnce()) -> Duration {
        let (before, within) = (self.lines().len(), patience(within));
        act();
        let start = Instant::now();
        loop {
            let lines = self.lines();
            let told = lines.get(before..).unwrap_or_default().iter().any(|line| line.contains(part));
            if told {
                return start.elapsed();
            }
            assert!(start.elapsed() < within, "not within {within:?}: a line with {part:?} in {lines:#?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// As [`Self::tells`], of what must be put right or reported within 3 s, and noticed within 1 s of those in which no
    /// process had to wait for a CPU.
    #[track_caller]
    pub fn notices(&self, part: &str, act: impl FnOnce()) -> Duration {
        let mut start = None;
        let took = self.tells(part, patience(NOTICED), || {
            act();
            start = Some(Stopwatch::start());
        });
        let alone = start.expect("it was done").alone();
        assert!(
            alone <= patience(NOTICED_ALONE),
            "{part:?} after {took:?}, {alone:?} of it with CPUs to spare"
        );
        took
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn signal(&self, number: libc::c_int) {
        signal(&self.child.0, number);
    }

    /// Waits until it ends.
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        let mut status = None;
        until("the controller ends", within, || {
            status = self.child.0.try_wait().expect("wait for the controller");
            status.is_some()
        });
        // What it said last is read by the thread a moment later.
        thread::sleep(Duration::from_millis(50));
        status.expect("it has ended")
    }

    /// Kills it, wherever it is.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.end(GRACE);
    }

    /// Clock ticks (of 10 ms) that it has spent on a CPU.
    pub fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        // After the name, which may hold blanks: state is field 3, utime 14, stime 15.
        let after = stat.rsplit(')').next().unwrap_or_default();
        let fields = after.split_whitespace().collect::<Vec<_>>();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Memory in use, in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status("VmRSS").trim_end_matches(" kB").parse().unwrap()
    }

    /// What the kernel says of it under that name.
    pub fn status(&self, name: &str) -> String {
        let status = self.proc("status");
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    }

    /// How many descriptors it holds.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the controller runs").count()
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("the controller runs")
    }
}
