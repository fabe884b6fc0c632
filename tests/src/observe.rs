//! Who received what, how many times? Sends frames, waits until they have come to rest, and sorts what was heard.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{
    frame::{Mac, seq_of, tci_of},
    wire::{Arrival, Class, Ear, Station},
};

/// One frame to be sent by one of the stations, addresses resolved.
#[derive(Debug)]
pub struct Send<'a> {
    pub station: &'a Station,
    pub frame: &'a crate::frame::Frame,
    pub dst: Mac,
    pub src: Mac,
}

/// How long all ears must be silent before frames count as gone.
pub const SETTLE: Duration = Duration::from_millis(10);

/// Ears are emptied at least this often, far below what their buffers hold.
const BATCH: usize = 256;

/// Frames are switched in the order given, so that what one teaches the switch holds for the next.
pub fn exchange(stations: &[Station], sends: &[Send<'_>], settle: Duration) -> Vec<Receipts> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = NEXT.fetch_add(sends.len() as u64, Ordering::Relaxed);
    // A veth hands over to a queue of the sending CPU: staying on one CPU keeps the frames in order even when
    // that queue is worked off later, and sleeping in poll gives that CPU to whoever works it off.
    let _pinned = Pinned::to_this_cpu();
    let mut receipts = vec![Receipts::default(); sends.len()];

    let ears = stations.iter().map(|station| libc::pollfd {
        fd: station.ear_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    let mut ears = ears.collect::<Vec<_>>();
    let mut collect = |ears: &[libc::pollfd]| {
        for (station, _) in stations.iter().zip(ears).filter(|(_, ear)| ear.revents != 0) {
            while let Some(arrival) = station.receive() {
                let Some(seq) = seq_of(&arrival.bytes) else { continue };
                let index =
                    usize::try_from(seq.wrapping_sub(first)).ok().filter(|index| *index < sends.len());
                let index = index.unwrap_or_else(|| {
                    panic!(
                        "{} received a frame after its exchange had ended: SETTLE is too short",
                        station.name
                    )
                });
                let Send { frame, dst, src, .. } = &sends[index];
                receipts[index].add(station, arrival, &frame.bytes(*dst, *src, seq));
            }
        }
    };

    for (batch, chunk) in sends.chunks(BATCH).enumerate() {
        for (index, Send { station, frame, dst, src }) in chunk.iter().enumerate() {
            station.send(&frame.bytes(*dst, *src, first + (batch * BATCH + index) as u64));
        }
        while wait(&mut ears, Duration::ZERO) {
            collect(&ears);
        }
    }
    while wait(&mut ears, settle) {
        collect(&ears);
    }
    stations.iter().for_each(Station::assert_nothing_lost);
    receipts
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
    fn add(&mut self, station: &Station, arrival: Arrival, sent: &[u8]) {
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
/// the stack was given a frame it will not take, because it is for somebody else's address.
fn label(station: &Station, arrival: &Arrival, sent: &[u8]) -> String {
    let name = match (station.ear, arrival.class) {
        (Ear::Stack(_), Class::OtherHost) => format!("({})", station.name),
        _ => station.name.clone(),
    };
    if arrival.bytes == sent {
        return name;
    }
    match (tci_of(sent), tci_of(&arrival.bytes)) {
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

/// Keeps the calling thread on one CPU while it lives.
struct Pinned {
    before: libc::cpu_set_t,
}

impl Pinned {
    fn to_this_cpu() -> Self {
        // SAFETY: plain bit sets, for which all zeroes is a valid value.
        let (mut before, mut here) = unsafe { mem::zeroed::<(libc::cpu_set_t, libc::cpu_set_t)>() };
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: pid 0 is this thread; the set is live and of the given size; no CPU number exceeds the set.
        unsafe {
            libc::sched_getaffinity(0, size, &raw mut before);
            libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap_or_default(), &mut here);
            libc::sched_setaffinity(0, size, &raw const here);
        }
        Self { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.before) };
    }
}
