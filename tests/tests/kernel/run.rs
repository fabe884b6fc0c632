//! What must one program have done with one frame, if it follows the specification: code, mark, counters, FDB.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_ebpf::{
    abi::{
        Counters, FdbEntry, SWITCHED_MARK, Stamp,
        port_flags::{PEER, UPLINK, XDP},
    },
    verdict::{Action, DropReason, Members},
};
use vswitch_tests::{
    host_tables::{HostTables, abi_fdb, settled},
    model::{Frame, Member, Model, Outcome, Receiver, slot_of},
};

use crate::{
    UNIT,
    object::{Fdb, Object, Program},
};

pub(crate) const TC_NEXT: i32 = -1;
pub(crate) const TC_DROP: i32 = 2;
pub(crate) const TC_REDIRECT: i32 = 7;
const XDP_DROP: i32 = 1;
pub(crate) const XDP_PASS: i32 = 2;
pub(crate) const XDP_REDIRECT: i32 = 4;

/// What the host gave its frame: a fwmark that the wire's qdisc may look at.
const MARK: u32 = 0x77;

/// Stamps that the clocks may differ by.
const MARGIN: Stamp = 100;

/// One frame through one program, and what the specification says of it.
pub(crate) struct Run<'a> {
    program: Program,
    from: Member,
    frame: Frame,
    tables: &'a HostTables,
    before: &'a Model,
    pub(crate) after: Model,
    pub(crate) outcome: Outcome,
    /// Whether a list of members has it.
    flooded: bool,
    /// Who has it in any case: the frame itself, after all copies.
    target: Option<Receiver>,
    /// Whether XDP leaves it to tc: it would change something.
    teaches: bool,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        before: &'a Model,
        tables: &'a HostTables,
        program: Program,
        from: Member,
        mut frame: Frame,
    ) -> Self {
        // XDP has no super-frames.
        frame.gso &= program != Program::Xdp;
        loop {
            let mut after = before.clone();
            let outcome = after.send(from, &frame);
            // That a frame for many is left to tc, and cloned, is no matter of the specification.
            let verdict = tables.clone().decide(from, &frame).verdict;
            let flooded = verdict.list != Members::Nobody;
            let target = match verdict.action {
                Action::Forward => Some(Receiver::Port(verdict.target.slot)),
                Action::Host => Some(Receiver::Host { uplink: verdict.target.slot }),
                Action::HostHere | Action::Flood | Action::Drop => None,
            };
            if flooded && frame.gso {
                // The clones would be cut into segments, which the kernel cannot do to our protocol.
                frame.gso = false;
                continue;
            }
            let teaches = program == Program::Xdp && tables.foresee(from, &frame).is_none();
            if teaches {
                after = before.clone();
            }
            return Self { program, from, frame, tables, before, after, outcome, flooded, target, teaches };
        }
    }

    /// Runs it, adds the clones to `clones`, and returns the code, and when the FDB was filled, if all is as specified, or
    /// else what is not.
    pub(crate) fn compare(
        &self,
        object: &mut Object,
        clones: &mut BTreeMap<Receiver, u64>,
    ) -> Result<(i32, Stamp), String> {
        let mark = if self.program == Program::Egress { MARK } else { 0 };
        let (start, ran, put) = loop {
            let start = object.now();
            let put = self.age(&abi_fdb(self.before), start);
            object.set_fdb(&put);
            object.set_ports(self.tables);
            object.counted();
            let ran = object.run(self.program, slot_of(self.from), &self.frame, mark);
            for receiver in self.cloned() {
                *clones.entry(receiver).or_default() += 1;
            }
            if object.now() - start < UNIT / 2 - MARGIN {
                break (start, ran, put);
            }
        };
        let end = object.now();

        same("return code", ran.code, self.code())?;
        same("mark", ran.mark, self.mark(ran.mark))?;
        let counted = object.counted();
        same("counters", &counted, &self.counters())?;
        for (slot, counters) in &counted {
            let Counters { rx_packets, forwarded, host, drops, .. } = counters;
            same(
                &format!("frames of slot {slot}"),
                *rx_packets,
                forwarded + host + drops.iter().sum::<u64>(),
            )?;
        }
        let (old, new) = (abi_fdb(self.before), abi_fdb(&self.after));
        let mut got = settled(&object.fdb());
        for (key, entry) in &mut got {
            // A stamp that is new in the kernel as in the model.
            if new.get(key) != old.get(key) && (start..=end).contains(&entry.stamp()) {
                *entry = FdbEntry::new(entry.slot(), entry.flags(), start);
            }
        }
        let mut wanted = self.age(&new, start);
        // A stamp that the model left alone must be to the bit what was put there.
        wanted.extend(put.into_iter().filter(|(key, _)| new.get(key) == old.get(key)));
        same("FDB", got, wanted)?;
        let mut tables = self.tables.clone();
        tables.follow(&self.after);
        same("ports", &object.ports(), &tables.ports)?;
        same("ports that are down", &object.down(), &*tables.down.borrow())?;
        let tables = self.tables.clone();
        let decision = tables.decide(self.from, &self.frame);
        same("host decision", tables.outcome(&decision), self.outcome.clone())?;
        Ok((ran.code, start))
    }

    /// Sends the frame again, so many times, and looks at all but the stamps. `start`: when the FDB was filled.
    pub(crate) fn again(
        &self,
        object: &mut Object,
        start: Stamp,
        times: u32,
        clones: &mut BTreeMap<Receiver, u64>,
    ) -> Result<(), String> {
        let mut before = self.after.clone();
        for time in 0..times {
            let mut tables = self.tables.clone();
            tables.follow(&before);
            let run = Run::new(&before, &tables, self.program, self.from, self.frame);
            let mark = if self.program == Program::Egress { MARK } else { 0 };
            object.counted();
            let ran = object.run(self.program, slot_of(self.from), &run.frame, mark);
            for receiver in run.cloned() {
                *clones.entry(receiver).or_default() += 1;
            }
            if object.now() - start >= UNIT / 2 - MARGIN {
                return Ok(());
            }
            let what = |what: &str| format!("{what}, again {time}");
            same(&what("return code"), ran.code, run.code())?;
            same(&what("mark"), ran.mark, run.mark(ran.mark))?;
            same(&what("counters"), &object.counted(), &run.counters())?;
            let places = |fdb: Fdb| -> Vec<_> {
                fdb.into_iter().map(|(key, entry)| (key, entry.slot(), entry.flags())).collect()
            };
            same(&what("FDB"), places(settled(&object.fdb())), places(abi_fdb(&run.after)))?;
            before = run.after;
        }
        Ok(())
    }

    /// The entries as old at `now` by the kernel's clock as they are by the model's.
    fn age(&self, fdb: &Fdb, now: Stamp) -> Fdb {
        let aged = |entry: &FdbEntry| {
            let age = self.before.now - entry.stamp();
            FdbEntry::new(entry.slot(), entry.flags(), now.saturating_sub(age))
        };
        fdb.iter().map(|(key, entry)| (*key, aged(entry))).collect()
    }

    fn ports(&self) -> BTreeSet<u16> {
        let slot = |receiver: &Receiver| match receiver {
            Receiver::Port(slot) => Some(*slot),
            Receiver::Host { .. } | Receiver::HostHere => None,
        };
        self.outcome.receivers.iter().filter_map(slot).collect()
    }

    /// The uplinks whose stacks have it, or the port whose own has.
    fn hosts(&self) -> BTreeSet<u16> {
        let slot = |receiver: &Receiver| match receiver {
            Receiver::Host { uplink } => Some(*uplink),
            Receiver::HostHere => Some(slot_of(self.from)),
            Receiver::Port(_) => None,
        };
        self.outcome.receivers.iter().filter_map(slot).collect()
    }

    /// What XDP leaves to tc, which decides and counts.
    fn left_to_tc(&self) -> bool {
        let xdp = |slot: &u16| self.tables.ports[slot].flags & XDP != 0;
        let forwarded = self.outcome.dropped.is_none() && self.hosts().is_empty();
        self.program == Program::Xdp
            && (self.teaches
                || self.flooded
                || !self.hosts().is_empty()
                || forwarded && !self.ports().iter().all(xdp))
    }

    fn code(&self) -> i32 {
        let ports = self.ports();
        let own = slot_of(self.from);
        match self.program {
            Program::Xdp if self.left_to_tc() => XDP_PASS,
            Program::Xdp if self.outcome.dropped.is_some() => XDP_DROP,
            Program::Xdp => XDP_REDIRECT,
            Program::Ingress | Program::Egress if self.outcome.dropped.is_some() => TC_DROP,
            // The frame itself goes to the host or out of the host's wire, where it was going.
            Program::Ingress if self.hosts().contains(&own) => TC_NEXT,
            Program::Egress if ports.contains(&own) => TC_NEXT,
            Program::Ingress | Program::Egress => TC_REDIRECT,
        }
    }

    /// The mark that the frame must have, given that on some ways nobody looks at it.
    fn mark(&self, found: u32) -> u32 {
        if self.program == Program::Xdp || self.outcome.dropped.is_some() {
            return found;
        }
        match self.code() {
            TC_NEXT if self.program == Program::Egress => MARK,
            TC_NEXT => 0,
            _ => {
                let last = self.in_turn().pop().unwrap();
                let flags = self.tables.ports[&last.slot()].flags;
                let by_peer = flags & (PEER | XDP) == PEER && self.program == Program::Ingress;
                match (by_peer && !last.to_stack(), flags & UPLINK != 0) {
                    // The far end is to have it as it was.
                    (true, _) => 0,
                    // It will meet the hook of that uplink.
                    (false, true) => SWITCHED_MARK,
                    (false, false) => 0,
                }
            }
        }
    }

    /// By slot, what this frame adds.
    fn counters(&self) -> BTreeMap<u16, Counters> {
        let mut all = BTreeMap::<u16, Counters>::new();
        if self.left_to_tc() {
            return all;
        }
        let len = u64::from(self.frame.len);
        let ports = self.ports();
        let sender = match self.from {
            Member::Port(slot) => slot,
            Member::Host { .. } => 0,
        };
        for slot in ports.iter().copied().chain(self.hosts().iter().map(|_| 0)) {
            let counters = all.entry(slot).or_default();
            (counters.tx_packets, counters.tx_bytes) = (counters.tx_packets + 1, counters.tx_bytes + len);
        }
        let counters = all.entry(sender).or_default();
        (counters.rx_packets, counters.rx_bytes) = (1, len);
        counters.fdb_full = u64::from(self.outcome.fdb_full);
        match self.outcome.dropped {
            Some(name) => {
                let reason = DropReason::ALL.iter().position(|reason| reason.name() == name).unwrap();
                counters.drops[reason] = 1;
            }
            None if ports.is_empty() => counters.host = 1,
            None => counters.forwarded = 1,
        }
        all
    }

    /// The receivers in the order of their slots, the stack behind an uplink before its wire, and last whom it is for in any
    /// case.
    fn in_turn(&self) -> Vec<Receiver> {
        let mut receivers: Vec<_> = self.outcome.receivers.iter().copied().collect();
        receivers
            .sort_by_key(|receiver| (Some(*receiver) == self.target, receiver.slot(), !receiver.to_stack()));
        receivers
    }

    /// Who had a copy. A test run ends before the frame itself is redirected, to the last of all if nobody has it here.
    fn cloned(&self) -> BTreeSet<Receiver> {
        let mut receivers = self.in_turn();
        if !self.flooded || self.program == Program::Xdp {
            return BTreeSet::new();
        }
        let here = match self.from {
            Member::Host { uplink } => Receiver::Port(uplink),
            Member::Port(uplink) => Receiver::Host { uplink },
        };
        match receivers.iter().position(|receiver| *receiver == here) {
            Some(own) => Some(receivers.remove(own)),
            None => receivers.pop(),
        };
        receivers.into_iter().collect()
    }
}

trait At {
    fn slot(&self) -> u16;
    fn to_stack(&self) -> bool;
}

impl At for Receiver {
    fn slot(&self) -> u16 {
        match self {
            Self::Port(slot) | Self::Host { uplink: slot } => *slot,
            Self::HostHere => unreachable!("it stays where it is"),
        }
    }

    fn to_stack(&self) -> bool {
        !matches!(self, Self::Port(_))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: got {got:?}, wanted {wanted:?}")) }
}
