//! Who received what, how many times? Sends frames, waits until they have come to rest, and sorts what was heard.

use std::{
    collections::BTreeMap,
    fmt, fs, io, mem,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    frame::{BROADCAST, Frame, Mac, TAG, seq_of, tci_of, to},
    patience::patience,
    wire::{Arrival, Class, Ear, Station},
};

/// One frame to be sent by one of the stations, addresses resolved.
#[derive(Debug)]
pub struct Send<'a> {
    pub station: &'a Station,
    pub frame: &'a Frame,
    pub dst: Mac,
    pub src: Mac,
}

/// How long all ears must be silent before frames count as gone. Measured on 2 cores, idle and with 8 busy loops: of
/// 60,000 frames through a Linux bridge over veth, with and without NAPI, every one was in the receiver's socket when
/// send returned; only macvlan's broadcast queue is later (up to 33 ms), and for that there is the fence. The next
/// exchange panics on a frame that was late.
const SETTLE: Duration = Duration::from_millis(5);

/// Ears are emptied at least this often, far below what their buffers hold and macvlan's broadcast queue (1000) does.
const BATCH: usize = 256;

/// Set in the number of frames that are not the test's.
const FENCE: u64 = 1 << 63;
/// An address that nobody lists, nor knows as anybody's: a frame for a source list does not wait in the queue.
const FENCE_MAC: Mac = [0x02, 0, 0, 0, 0xfe, 0xce];
/// A fence is not heard at all when no child of a macvlan is up; then nothing was queued either.
const FENCE_TIMEOUT: Duration = Duration::from_millis(250);

/// Frames are switched in the order given, so that what one teaches the switch holds for the next.
///
/// `fence`: a station whose broadcast is heard only after everything that the switch has queued.
pub fn exchange(stations: &[Station], sends: &[Send<'_>], fence: Option<&Station>) -> Vec<Receipts> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = NEXT.fetch_add(sends.len() as u64, Ordering::Relaxed);
    // A veth hands over to a queue of the sending CPU. It has several, of which one frame may overtake another's: each goes
    // when they are empty, and sleeping in poll gives that CPU to whoever empties them.
    let pinned = Pinned::to_this_cpu();
    let ear = |station: &Station| libc::pollfd { fd: station.ear_fd(), events: libc::POLLIN, revents: 0 };
    let mut round = Round {
        stations,
        ears: stations.iter().map(ear).collect(),
        sends,
        first,
        receipts: vec![Receipts::default(); sends.len()],
        fence_heard: None,
    };
    let mut numbered = sends.iter().zip(first..).peekable();
    while numbered.peek().is_some() {
        for (Send { station, frame, dst, src }, seq) in numbered.by_ref().take(BATCH) {
            station.send(&frame.bytes(*dst, *src, seq));
            pinned.await_softirqs();
        }
        round.collect_for(Duration::ZERO);
        if let Some(station) = fence {
            round.await_fence(station);
        }
    }
    round.collect_for(patience(SETTLE));
    stations.iter().for_each(Station::assert_nothing_lost);
    round.receipts
}

struct Round<'a> {
    stations: &'a [Station],
    ears: Vec<libc::pollfd>,
    sends: &'a [Send<'a>],
    /// Number of the first frame.
    first: u64,
    receipts: Vec<Receipts>,
    fence_heard: Option<u64>,
}

impl Round<'_> {
    /// Until nothing has come for that long.
    fn collect_for(&mut self, quiet: Duration) {
        while wait(&mut self.ears, quiet) {
            self.collect();
        }
    }

    fn await_fence(&mut self, station: &Station) {
        static NEXT: AtomicU64 = AtomicU64::new(FENCE);
        let seq = NEXT.fetch_add(1, Ordering::Relaxed);
        station.send(&to(BROADCAST).bytes(BROADCAST, FENCE_MAC, seq));
        let deadline = Instant::now() + patience(FENCE_TIMEOUT);
        while self.fence_heard != Some(seq) && wait(&mut self.ears, deadline - Instant::now().min(deadline)) {
            self.collect();
        }
    }

    fn collect(&mut self) {
        let ready = self.stations.iter().zip(&self.ears).filter(|(_, ear)| ear.revents != 0);
        for (station, _) in ready {
            while let Some(arrival) = station.receive() {
                let Some(seq) = seq_of(&arrival.bytes) else { continue };
                if seq & FENCE != 0 {
                    // The stack is not behind the queue that the fence is for.
                    if station.ear == Ear::Tap {
                        self.fence_heard = Some(seq);
                    }
                    continue;
                }
                let index = usize::try_from(seq.wrapping_sub(self.first)).unwrap_or(usize::MAX);
                let Some(Send { frame, dst, src, .. }) = self.sends.get(index) else {
                    panic!(
                        "{} received a frame when its exchange had ended: SETTLE is too short",
                        station.name
                    )
                };
                self.receipts[index].add(station, arrival, frame.bytes(*dst, *src, seq));
            }
        }
    }
}

/// All that was heard of one frame.
#[derive(Clone, Debug, Default)]
pub struct Receipts {
    /// In the order of the stations.
    pub heard: Vec<Heard>,
}

#[derive(Clone, Debug)]
pub struct Heard {
    /// The station's name, with what the frame suffered on the way, as in a table: see `label`.
    pub label: String,
    pub by: String,
    pub arrival: Arrival,
}

impl Receipts {
    fn add(&mut self, station: &Station, arrival: Arrival, sent: Vec<u8>) {
        let heard = Heard { label: label(station, &arrival, sent), by: station.name.clone(), arrival };
        self.heard.push(heard);
    }

    pub fn copies(&self, name: &str) -> usize {
        self.heard.iter().filter(|heard| heard.by == name).count()
    }

    fn counts(&self) -> BTreeMap<&str, usize> {
        self.heard.iter().fold(BTreeMap::new(), |mut counts, heard| {
            *counts.entry(heard.label.as_str()).or_default() += 1;
            counts
        })
    }
}

/// `web` received it as it was sent, `web[untagged]`, `web[vlan:7]`, `web[altered]` did not. `(host)` means that
/// the stack was given a frame it will not take: for somebody else's address, or of a VLAN it has no device for.
fn label(station: &Station, arrival: &Arrival, mut sent: Vec<u8>) -> String {
    let mut name = station.name.clone();
    if let Ear::Stack(_) = station.ear {
        // The kernel takes the tag off whatever it hands to the stack, and what it was for cannot be known any more.
        if tci_of(&sent).is_some() {
            sent.drain(TAG);
        }
        if arrival.class == Class::OtherHost {
            name = format!("({name})");
        }
    }
    if arrival.bytes == sent {
        return name;
    }
    match (tci_of(&sent), tci_of(&arrival.bytes)) {
        (Some(_), None) => format!("{name}[untagged]"),
        (was, Some(is)) if was != Some(is) => format!("{name}[vlan:{}]", is & 0xfff),
        _ => format!("{name}[altered]"),
    }
}

/// The cell of a table: `web db*2 host`, or `nobody`. Order does not matter.
impl PartialEq<&str> for Receipts {
    fn eq(&self, cell: &&str) -> bool {
        let mut expected = BTreeMap::new();
        for token in cell.split_whitespace().filter(|token| *token != NOBODY) {
            let (name, copies) = token.split_once('*').unwrap_or((token, "1"));
            *expected.entry(name).or_insert(0) +=
                copies.parse::<usize>().expect("copies after * in a table's cell");
        }
        self.counts() == expected
    }
}

impl PartialEq for Receipts {
    fn eq(&self, other: &Self) -> bool {
        self.counts() == other.counts()
    }
}

impl fmt::Display for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = self.counts().into_iter().map(|(name, copies)| match copies {
            1 => name.to_owned(),
            _ => format!("{name}*{copies}"),
        });
        let cell = cell.collect::<Vec<_>>().join(" ");
        f.write_str(if cell.is_empty() { NOBODY } else { &cell })
    }
}

const NOBODY: &str = "nobody";

/// False if nothing can be read for that long.
fn wait(ears: &mut [libc::pollfd], quiet: Duration) -> bool {
    let deadline = Instant::now() + quiet;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.as_micros().div_ceil(1000) as libc::c_int;
        // SAFETY: the pointer and length are those of a live slice of pollfd.
        let ready = unsafe { libc::poll(ears.as_mut_ptr(), ears.len() as libc::nfds_t, timeout) };
        if ready > 0 {
            return true;
        }
        // A signal ends poll early; the deadline decides.
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// Keeps the calling thread, and what that starts, on one CPU while it lives.
pub struct Pinned {
    before: libc::cpu_set_t,
    here: libc::cpu_set_t,
    /// `/proc/PID/stat` of the CPU's ksoftirqd, if it can be seen.
    ksoftirqd: Option<PathBuf>,
}

impl Pinned {
    pub fn to_this_cpu() -> Self {
        // SAFETY: no memory is passed.
        let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or_default();
        // SAFETY: plain bit sets, for which all zeroes is a valid value.
        let (mut before, mut here) = unsafe { mem::zeroed::<(libc::cpu_set_t, libc::cpu_set_t)>() };
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: pid 0 is this thread; the set is live and of the given size; no CPU number exceeds the set.
        unsafe {
            libc::sched_getaffinity(0, size, &raw mut before);
            libc::CPU_SET(cpu, &mut here);
            libc::sched_setaffinity(0, size, &raw const here);
        }
        Self { before, here, ksoftirqd: ksoftirqd(cpu) }
    }

    /// Another thread, to the same CPU.
    pub fn as_well(&self, thread: libc::pid_t) {
        // SAFETY: the set is live and of the given size.
        let pinned =
            unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &raw const self.here) };
        assert_eq!(pinned, 0, "pin thread {thread}: {}", io::Error::last_os_error());
    }

    /// Until the queues are empty that took too long to be so before the sender went on (`__do_softirq`, kernel/softirq.c).
    fn await_softirqs(&self) {
        let Some(stat) = &self.ksoftirqd else { return };
        // "PID (NAME) STATE ..."
        while fs::read_to_string(stat).is_ok_and(|line| line.contains(") R ")) {
            thread::yield_now();
        }
    }
}

/// Whoever works off what a CPU's softirqs have left. The kernel starts one a CPU, early: the first processes.
fn ksoftirqd(cpu: usize) -> Option<PathBuf> {
    let name = format!("ksoftirqd/{cpu}\n");
    let is_it = |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == name);
    (2..1000).map(|pid| PathBuf::from(format!("/proc/{pid}"))).find(is_it).map(|path| path.join("stat"))
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.before) };
    }
}
