//! What becomes of the FDB when userspace and programs change it at the same time? All orders of their steps are tried, as far
//! as nobody is interrupted more than [`INTERRUPTIONS`] times in all.
//!
//! Userspace is the real one: each access to a shared word first lets the programs run. The programs are those of
//! `vswitch-ebpf/src/bpf/fdb.rs`, step by step. Each word is seen by all in one order here; that it is so on CPUs is argued at
//! [`super::Shared`].

use std::{
    cell::RefCell,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
};

use memmap2::MmapOptions;
use vswitch_ebpf::{
    abi::{FdbEntry, fdb_flags},
    fdb::{TOMBSTONE, WAYS, second_is_better},
};

use super::{Shape, Shared, SharedWay};

const INTERRUPTIONS: u32 = 3;

/// Two sets, in which each address has its two places.
const SHAPE: Shape = Shape { max: 8, secret: 0x0123_4567_89ab_cdef };
const ADDRESS: u64 = 0x0200_0000_0001 << 16;
/// The first of those that nobody touches: what is read of them is the same in any order.
const OTHERS: u64 = 0x0400_0000_0000 << 16;
const LEARNED: u64 = FdbEntry::new(1, 0, 9).0;
const LEARNED_TOO: u64 = FdbEntry::new(2, 0, 9).0;
const BOUND: u64 = FdbEntry::new(3, fdb_flags::STATIC, 9).0;
const OTHER: u64 = FdbEntry::new(4, fdb_flags::STATIC, 9).0;

/// A word that others change between any two accesses.
#[repr(transparent)]
pub(super) struct Word(AtomicU64);

impl Word {
    pub(super) fn load(&self, order: Ordering) -> u64 {
        self.let_others_run();
        self.0.load(order)
    }

    pub(super) fn store(&self, value: u64, order: Ordering) {
        self.let_others_run();
        self.0.store(value, order);
    }

    pub(super) fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.let_others_run();
        self.0.swap(value, order)
    }

    pub(super) fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        done: Ordering,
        not: Ordering,
    ) -> Result<u64, u64> {
        self.let_others_run();
        self.0.compare_exchange(old, new, done, not)
    }

    pub(super) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_add(value, order)
    }

    pub(super) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_sub(value, order)
    }

    fn let_others_run(&self) {
        if !self.is_touched_by_nobody() {
            with_world(|world| while world.next(true) != Some(Who::Userspace) {});
        }
    }

    fn is_touched_by_nobody(&self) -> bool {
        let value = self.0.load(Ordering::SeqCst);
        value == OTHER || value >= OTHERS && value != TOMBSTONE
    }
}

/// In place of [`super::super::grace::await_programs`].
pub(super) fn await_programs() -> std::io::Result<()> {
    with_world(
        |world| {
            while world.next(!world.programs.iter().any(Program::is_at_it)) != Some(Who::Userspace) {}
        },
    );
    Ok(())
}

/// Programs as the explorer runs them: one access to a shared word after the other.
struct Program {
    rest: Pin<Box<dyn Future<Output = ()>>>,
    has_begun: bool,
    is_done: bool,
}

impl Program {
    fn is_at_it(&self) -> bool {
        self.has_begun && !self.is_done
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Userspace,
    Program(usize),
}

/// One order of steps.
struct World {
    programs: Vec<Program>,
    running: Who,
    interruptions: u32,
    /// What was chosen of how many, each time that there was a choice.
    choices: Vec<(usize, usize)>,
    chosen: usize,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

fn with_world(run: impl FnOnce(&mut World)) {
    // Taken out: what programs do is no access of userspace's.
    if let Some(mut world) = WORLD.take() {
        run(&mut world);
        WORLD.set(Some(world));
    }
}

impl World {
    /// Lets somebody make a step, or says that it is userspace's turn, if it may have one. Nobody is left: `None`.
    fn next(&mut self, userspace: bool) -> Option<Who> {
        let mut able: Vec<_> = userspace.then_some(Who::Userspace).into_iter().collect();
        able.extend((0..self.programs.len()).filter(|i| !self.programs[*i].is_done).map(Who::Program));
        let goes_on = able.contains(&self.running);
        if goes_on {
            // Who goes on comes first.
            let at = able.iter().position(|who| *who == self.running).unwrap();
            able.swap(0, at);
            if self.interruptions == 0 {
                able.truncate(1);
            }
        }
        if able.is_empty() {
            return None;
        }
        let choice = self.choose(able.len());
        self.interruptions -= u32::from(goes_on && choice != 0);
        self.running = able[choice];
        if let Who::Program(number) = self.running {
            let program = &mut self.programs[number];
            program.has_begun = true;
            program.is_done = program.rest.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        }
        Some(self.running)
    }

    fn choose(&mut self, of: usize) -> usize {
        if of == 1 {
            return 0;
        }
        if self.chosen == self.choices.len() {
            self.choices.push((0, of));
        }
        self.chosen += 1;
        self.choices[self.chosen - 1].0
    }
}

/// The choices that come after those; none: all have been tried.
fn following(mut choices: Vec<(usize, usize)>) -> Option<Vec<(usize, usize)>> {
    while let Some((choice, of)) = choices.pop() {
        if choice + 1 < of {
            choices.push((choice + 1, of));
            return Some(choices);
        }
    }
    None
}

/// Runs userspace and programs in every order, from the same beginning each time, and holds the end against the rules.
fn in_every_order(
    begin: impl Fn(&Shared),
    userspace: impl Fn(&Shared),
    learned: &[u64],
    holds: impl Fn(&Shared) -> Result<(), String>,
) {
    let bytes = |bytes| MmapOptions::new().len(bytes).map_anon().unwrap().into();
    let table = SHAPE.sets() as usize * WAYS * size_of::<SharedWay>();
    let shared: &Shared = Box::leak(Box::new(Shared { sets: bytes(table), used: bytes(size_of::<u64>()) }));
    let (mut choices, mut orders) = (Some(Vec::new()), 0);
    while let Some(begun) = choices {
        for way in shared.all_ways(SHAPE) {
            way.key.0.store(0, Ordering::SeqCst);
            way.entry.0.store(0, Ordering::SeqCst);
        }
        begin(shared);
        shared.used().0.store(keys(shared), Ordering::SeqCst);
        let programs = learned.iter().map(|entry| Program {
            rest: Box::pin(learn(shared, ADDRESS, *entry)),
            has_begun: false,
            is_done: false,
        });
        WORLD.set(Some(World {
            programs: programs.collect(),
            running: Who::Userspace,
            interruptions: INTERRUPTIONS,
            choices: begun,
            chosen: 0,
        }));
        userspace(shared);
        let mut world = WORLD.take().unwrap();
        while world.next(false).is_some() {}
        orders += 1;
        if let Err(broken) = holds(shared).and_then(|()| is_sound(shared)) {
            panic!("{broken}, in order {orders}: {:?}\n{}", world.choices, table_of(shared));
        }
        choices = following(world.choices);
    }
    println!("{orders} orders");
}

/// How many there are besides those that nobody touches.
fn keys(shared: &Shared) -> u64 {
    let of_interest = |way: &&SharedWay| matches!(way.key.0.load(Ordering::SeqCst), ADDRESS | TOMBSTONE);
    shared.all_ways(SHAPE).filter(of_interest).count() as u64
}

fn table_of(shared: &Shared) -> String {
    let way = |way: &SharedWay| {
        format!("{:016x} {:016x}", way.key.0.load(Ordering::SeqCst), way.entry.0.load(Ordering::SeqCst))
    };
    shared.all_ways(SHAPE).map(way).collect::<Vec<_>>().join("\n")
}

/// What the programs find of the address once all is quiet.
fn found(shared: &Shared) -> u64 {
    let mut ways = shared.ways(SHAPE, ADDRESS);
    let way = ways.find(|way| way.key.0.load(Ordering::SeqCst) == ADDRESS);
    way.map_or(0, |way| way.entry.0.load(Ordering::SeqCst))
}

/// An address has one way at most, and each key is counted.
fn is_sound(shared: &Shared) -> Result<(), String> {
    let ways = shared.ways(SHAPE, ADDRESS).filter(|way| way.key.0.load(Ordering::SeqCst) == ADDRESS);
    let (ways, counted) = (ways.count(), shared.used().0.load(Ordering::SeqCst));
    if ways > 1 {
        return Err(format!("the address has {ways} ways"));
    }
    if counted != keys(shared) {
        return Err(format!("{counted} keys are counted, and there are {}", keys(shared)));
    }
    Ok(())
}

fn is(expected: u64) -> impl Fn(&Shared) -> Result<(), String> {
    move |shared| match found(shared) {
        entry if entry == expected => Ok(()),
        entry => Err(format!("found is {entry:x} and not {expected:x}")),
    }
}

/// Fills the sets, the first choice first, so that so many ways of each are free: the first ones.
fn leave_free(shared: &Shared, free: [usize; 2]) {
    let mut other = OTHERS;
    for (set, free) in SHAPE.places(ADDRESS).into_iter().zip(free) {
        for way in &shared.ways_of(set)[free..] {
            way.key.0.store(other, Ordering::SeqCst);
            way.entry.0.store(OTHER, Ordering::SeqCst);
            other += 1 << 16;
        }
    }
}

/// As if the address that had the way had been deleted.
fn bury(shared: &Shared, set: usize, way: usize) {
    let set = SHAPE.places(ADDRESS)[set];
    shared.ways_of(set)[way].key.0.store(TOMBSTONE, Ordering::SeqCst);
}

/// As `Maps::fdb_set` does it.
fn bind(shared: &Shared) {
    if shared.set(SHAPE, ADDRESS, BOUND).is_err() {
        free(shared);
        shared.set(SHAPE, ADDRESS, BOUND).expect("there is room");
    }
}

fn free(shared: &Shared) {
    let is_dead = |way: &&SharedWay| way.key.0.load(Ordering::SeqCst) == TOMBSTONE;
    shared.free(&shared.all_ways(SHAPE).filter(is_dead).collect::<Vec<_>>()).unwrap();
}

fn free_and_bind(shared: &Shared) {
    free(shared);
    bind(shared);
}

// The programs.

async fn step(word: &Word) -> &AtomicU64 {
    let mut waits = !word.is_touched_by_nobody();
    std::future::poll_fn(|_| if std::mem::take(&mut waits) { Poll::Pending } else { Poll::Ready(()) }).await;
    &word.0
}

async fn read(word: &Word) -> u64 {
    step(word).await.load(Ordering::SeqCst)
}

async fn exchange(word: &Word, old: u64, new: u64) -> u64 {
    let done = step(word).await.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
    done.unwrap_or_else(|found| found)
}

/// `learn()`: what is not known is entered, what has moved is replaced.
async fn learn(shared: &Shared, key: u64, entry: u64) {
    for way in shared.ways(SHAPE, key) {
        if read(&way.key).await != key {
            continue;
        }
        let known = read(&way.entry).await;
        if read(&way.key).await == key && known != 0 {
            if known != entry && !FdbEntry(known).has(fdb_flags::STATIC) {
                exchange(&way.entry, known, entry).await;
            }
            return;
        }
        break;
    }
    insert(shared, key, entry).await;
}

async fn first_free_of(set: &[SharedWay]) -> usize {
    for (number, way) in set.iter().enumerate() {
        if read(&way.key).await == 0 {
            return number;
        }
    }
    WAYS
}

/// `vswitch_fdb_insert()`
async fn insert(shared: &Shared, key: u64, entry: u64) {
    if take(shared, key, entry, false).await {
        take(shared, key, entry, true).await;
    }
}

/// `vswitch_fdb_take()`: whether once more.
async fn take(shared: &Shared, key: u64, entry: u64, again: bool) -> bool {
    let [first, second] = SHAPE.places(key).map(|set| shared.ways_of(set));
    let free = first_free_of(first).await;
    let better = if again { free == WAYS } else { second_is_better(free, first_free_of(second).await) };
    for way in if better { second } else { first } {
        let there = match read(&way.key).await {
            0 => exchange(&way.key, 0, key).await,
            there => there,
        };
        if there == key {
            return false;
        }
        if there != 0 {
            continue;
        }
        shared.used().0.fetch_add(1, Ordering::SeqCst);
        if ways_with(first, key).await + ways_with(second, key).await == 1 {
            exchange(&way.entry, 0, entry).await;
            return false;
        }
        if exchange(&way.key, key, 0).await == key {
            shared.used().0.fetch_sub(1, Ordering::SeqCst);
        }
        return ways_with(first, key).await + ways_with(second, key).await == 0;
    }
    false
}

async fn ways_with(set: &[SharedWay], key: u64) -> u32 {
    let mut ways = 0;
    for way in set {
        ways += u32::from(read(&way.key).await == key);
    }
    ways
}

#[test]
fn what_userspace_binds_is_found_whoever_learns_it_meanwhile() {
    for free in [[2, 2], [8, 8]] {
        in_every_order(|shared| leave_free(shared, free), bind, &[LEARNED], is(BOUND));
    }
    in_every_order(|shared| leave_free(shared, [2, 2]), bind, &[LEARNED, LEARNED_TOO], is(BOUND));
}

#[test]
fn what_userspace_binds_is_found_where_ways_are_freed_meanwhile() {
    let begin = |shared: &Shared| {
        leave_free(shared, [2, 1]);
        bury(shared, 0, 0);
    };
    in_every_order(begin, free_and_bind, &[LEARNED, LEARNED_TOO], is(BOUND));
}

#[test]
fn what_userspace_binds_is_found_where_the_second_set_is_better() {
    // With the fifth way free in the first set, the second one is taken; without, the first.
    let begin = |shared: &Shared| {
        leave_free(shared, [5, 3]);
        for way in &shared.ways_of(SHAPE.places(ADDRESS)[0])[..4] {
            way.key.0.store(OTHERS + 0x99_0000, Ordering::SeqCst);
            way.entry.0.store(OTHER, Ordering::SeqCst);
        }
        bury(shared, 1, 0);
        bury(shared, 1, 1);
    };
    in_every_order(begin, bind, &[LEARNED, LEARNED_TOO], is(BOUND));
    in_every_order(begin, free_and_bind, &[LEARNED, LEARNED_TOO], is(BOUND));
}

/// Nobody binds anything: programs alone, while tombstones are freed.
#[test]
fn an_address_that_is_learned_twice_has_one_way() {
    let begin = |shared: &Shared| {
        leave_free(shared, [3, 1]);
        bury(shared, 0, 0);
        bury(shared, 0, 1);
    };
    in_every_order(begin, free, &[LEARNED, LEARNED_TOO], |_| Ok(()));
}

/// Of two programs that look for room at the same time one may see what the other has just taken, and go to the other set.
#[test]
fn an_address_that_two_learn_at_once_is_known_afterwards() {
    let begin = |shared: &Shared| {
        leave_free(shared, [5, 3]);
        for way in &shared.ways_of(SHAPE.places(ADDRESS)[0])[..3] {
            way.key.0.store(OTHERS + 0x99_0000, Ordering::SeqCst);
            way.entry.0.store(OTHER, Ordering::SeqCst);
        }
    };
    let is_known = |shared: &Shared| match found(shared) {
        LEARNED | LEARNED_TOO => Ok(()),
        entry => Err(format!("found is {entry:x}")),
    };
    in_every_order(begin, |_| {}, &[LEARNED, LEARNED_TOO], is_known);
}
