//! What do the interfaces of a lab say they received and dropped? The receiver's side of every measurement.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};

use super::lab::Room;

/// The counters of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) received: u64,
    /// Ring overflows, and frames of no known protocol.
    pub(super) receive_drops: u64,
    pub(super) sent: u64,
    pub(super) send_drops: u64,
}

/// The interfaces of a namespace at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot(pub(super) BTreeMap<String, Counters>);

impl Snapshot {
    pub(super) fn take(room: &Room) -> Result<Self> {
        // The thread's: the process is in another namespace.
        let text = room.netns.run_in(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        Ok(Self::parse(&text.context("read /proc/thread-self/net/dev")?))
    }

    fn parse(text: &str) -> Self {
        let rows = text.lines().skip(2).filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            let numbers: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
            let counters = Counters {
                received: *numbers.get(1)?,
                receive_drops: *numbers.get(3)?,
                sent: *numbers.get(9)?,
                send_drops: *numbers.get(11)?,
            };
            Some((name.trim().to_owned(), counters))
        });
        Self(rows.collect())
    }

    /// What has been added since `before`, over all interfaces but `lo`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let rows = self.0.iter().filter(|(name, _)| *name != "lo").map(|(name, now)| {
            let old = before.0.get(name).copied().unwrap_or_default();
            let counters = Counters {
                received: now.received.saturating_sub(old.received),
                receive_drops: now.receive_drops.saturating_sub(old.receive_drops),
                sent: now.sent.saturating_sub(old.sent),
                send_drops: now.send_drops.saturating_sub(old.send_drops),
            };
            (name.clone(), counters)
        });
        Self(rows.collect())
    }

    /// Those of one interface.
    pub(super) fn of(&self, name: &str) -> Counters {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(super) fn received(&self) -> u64 {
        self.0.values().map(|counters| counters.received).sum()
    }

    pub(super) fn receive_drops(&self) -> u64 {
        self.0.values().map(|counters| counters.receive_drops).sum()
    }

    pub(super) fn sent(&self) -> u64 {
        self.0.values().map(|counters| counters.sent).sum()
    }

    pub(super) fn send_drops(&self) -> u64 {
        self.0.values().map(|counters| counters.send_drops).sum()
    }
}

/// Frames that the CPUs' backlogs had no room for, on the whole machine.
pub(super) fn backlog_drops() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    let drops = text.lines().filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok());
    drops.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_column() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       9       9    9    9    0     0          0         0        9       9    9    9    0     0       0          0
    p0:     600      10    0    3    0     0          0         0      120       2    0    1    0     0       0          0
";
        let now = Snapshot::parse(text);
        assert_eq!(now.0["p0"], Counters { received: 10, receive_drops: 3, sent: 2, send_drops: 1 });
        let since = now.since(&Snapshot::default());
        assert_eq!((since.received(), since.receive_drops(), since.send_drops()), (10, 3, 1));
    }
}
