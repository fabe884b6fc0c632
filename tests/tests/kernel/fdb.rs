//! Does the FDB say the same on every CPU, hold as much as it promises, and forget in time?

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use vswitch_ebpf::abi::{FdbEntry, FdbKey};
use vswitch_tests::{
    cases::Case,
    frame::{Mac, UNKNOWN},
    host_tables::key,
    model::{Frame, Model, PLAIN},
    require,
};

use crate::{
    STATION, in_namespace, needs,
    object::{Fdb, Object, Program},
};

/// Stamps after which an entry is renewed, and no longer holds.
const REFRESH: u64 = 200;
const AGEING: u64 = 400;

const FROM_STATION: Frame = Frame { dst: UNKNOWN, src: STATION, len: 60, gso: false, pause: false };
const FROM_UNKNOWN: Frame = Frame { dst: STATION, src: UNKNOWN, len: 60, gso: false, pause: false };

/// Also on a CPU that did not see the address move.
#[test]
fn a_move_is_heard_of_on_every_cpu() {
    require!(&needs());
    in_namespace(|mut object| {
        set_up(&mut object, 2);
        let cpus = cpus();
        for &cpu in &cpus {
            on(cpu, || assert_eq!(receivers(&mut object), [2]));
        }
        on(cpus[0], || {
            object.run(Program::Ingress, 3, &FROM_UNKNOWN, 0);
        });
        for &cpu in &cpus {
            on(cpu, || assert_eq!(receivers(&mut object), [3], "on CPU {cpu} of {cpus:?}"));
        }
    });
}

#[test]
fn what_userspace_changes_holds_at_once() {
    require!(&needs());
    in_namespace(|mut object| {
        set_up(&mut object, 2);
        assert_eq!(receivers(&mut object), [2]);
        let fdb = fdb(&object, 3);
        object.set_fdb(&fdb);
        assert_eq!(receivers(&mut object), [3]);
        object.set_fdb(&Fdb::new());
        assert_eq!(receivers(&mut object), [2, 3], "an unknown destination");
    });
}

#[test]
fn a_source_is_renewed() {
    require!(&needs());
    in_namespace(|mut object| {
        set_up(&mut object, 2);
        let start = object.now();
        while object.now() < start + 2 * AGEING {
            let before = object.now();
            object.run(Program::Ingress, 1, &FROM_STATION, 0);
            let stamp = object.fdb()[&key(STATION)].stamp();
            let late = before.saturating_sub(stamp);
            assert!(late <= REFRESH, "not renewed for {late} ticks");
            sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn an_entry_ages() {
    require!(&needs());
    in_namespace(|mut object| {
        set_up(&mut object, 2);
        let start = object.now();
        loop {
            let before = object.now();
            let reached = receivers(&mut object);
            let after = object.now();
            if after < start + AGEING {
                assert_eq!(reached, [2], "{before} to {after}, from {start}");
            } else if before >= start + AGEING + 2 {
                // What was set up may be a tick younger than `start`.
                assert_eq!(reached, [2, 3], "{before} to {after}, from {start}");
                break;
            }
        }
    });
}

/// Two CPUs that hear the same new addresses at the same time enter each of them once.
#[test]
fn an_address_that_two_cpus_learn_is_one_entry() {
    require!(&needs());
    in_namespace(|mut object| {
        set_up(&mut object, 2);
        let cpus = cpus();
        for round in 0..200u8 {
            object.set_fdb(&Fdb::new());
            let (object, ready) = (&object, std::sync::Barrier::new(2));
            std::thread::scope(|scope| {
                for cpu in [cpus[0], cpus[cpus.len() - 1]] {
                    let ready = &ready;
                    scope.spawn(move || {
                        on(cpu, || {
                            ready.wait();
                            for number in 0..8 {
                                let src = [2, 0xaa, 0, 0, round, number];
                                object.run(Program::Ingress, 1, &Frame { src, ..FROM_STATION }, 0);
                            }
                        });
                    });
                }
            });
            // It compares what is counted with what is there, and a second entry of an address would be one too many.
            assert_eq!(object.fdb().len(), 8, "round {round}");
        }
    });
}

/// Three ports; the station is behind the first one, and UNKNOWN behind `slot`.
fn set_up(object: &mut Object, slot: u16) {
    let model = Model { ageing: AGEING, refresh: REFRESH, ..Model::plain((1..=3).map(|slot| (slot, PLAIN))) };
    let case = Case { model, xdp: BTreeSet::new(), peer: BTreeSet::new(), steps: Vec::new() };
    object.configure(&case.tables());
    let fdb = fdb(object, slot);
    object.set_fdb(&fdb);
}

fn fdb(object: &Object, slot: u16) -> Fdb {
    let at = |mac: Mac, slot| -> (FdbKey, FdbEntry) { (key(mac), FdbEntry::new(slot, 0, object.now())) };
    [at(STATION, 1), at(UNKNOWN, slot)].into()
}

/// The ports that a frame of the station to UNKNOWN reaches.
fn receivers(object: &mut Object) -> Vec<u16> {
    object.counted();
    object.run(Program::Ingress, 1, &FROM_STATION, 0);
    let counted = object.counted();
    counted.into_iter().filter(|(_, counters)| counters.tx_packets > 0).map(|(slot, _)| slot).collect()
}

/// The CPUs that this thread may run on: one of them alone would show little, but not nothing.
pub(crate) fn cpus() -> Vec<usize> {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to the set, which outlives the call and is as long as we say.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) }, 0);
    // SAFETY: the CPU is within the set.
    (0..libc::CPU_SETSIZE.cast_unsigned() as usize)
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// Does it on this CPU.
pub(crate) fn on(cpu: usize, what: impl FnOnce()) {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the CPU is within the set; the kernel reads it during the call.
    let pinned = unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    assert_eq!(pinned, 0, "run on CPU {cpu}");
    what();
}
