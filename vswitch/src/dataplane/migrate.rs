//! How does a switch whose maps another build has laid out become one of this build, while frames flow?
//!
//! Beside it a whole one is made, out of sight: of maps that are the same in both, the very same; of others new ones, with
//! the state copied. Then the links go over, each in one step; then the new one gets the switch's name and the pins of
//! the old one go. Until it has the name, the old one is the switch, and all of it is there: whoever comes after an
//! interruption begins again, or puts the old programs back.

mod before;

use anyhow::{Context as _, Result, bail};
use before::Before;
use bytemuck::Zeroable as _;
use vswitch_ebpf::{
    abi::{ABI_VERSION, Counters, FdbEntry, FdbKey, MAX_PORTS},
    fdb::{Shape, WAYS, Way},
};

use super::{
    Dataplane, await_programs,
    clock::Clock,
    fdb,
    ledger::{self, Identity, Ledger},
    links::{self, Hook},
    lives_here, load,
    maps::Maps,
    pins::Pins,
    programs,
    raw::RawMap,
    spec::{self, Access, BASES, PRESENT, Spec},
    state::Member,
};
use crate::change::{intent, reconcile};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Migration {
    /// The maps that are another now, with how many elements of how many were copied.
    pub(crate) copied: Vec<(&'static str, usize, usize)>,
    /// The ports that have gone over.
    pub(crate) ports: Vec<String>,
}

/// What becomes of a map.
struct Move {
    spec: &'static Spec,
    old: RawMap,
    /// The same map is used by both.
    shared: bool,
}

/// Makes the switch `name`, one of ABI version `from`, one of this build's. The caller has the switch's lock. `begin` is called
/// when nothing speaks against it any more, before the old one is touched.
pub(crate) fn migrate(name: &str, from: u32, begin: impl FnOnce()) -> Result<Migration> {
    if from > ABI_VERSION {
        bail!(
            r#"switch "{name}": was made by a newer build (ABI {from}, this one has {ABI_VERSION}): use that one"#
        );
    }
    let (old, new) = (Pins::of_version(from, name), Pins::of(name));
    // Before anything is touched.
    let moves = survey(&old, from).with_context(|| format!(r#"switch "{name}", of ABI {from}"#))?;
    lives_here(name, &identity(&moves)?)?;
    let scratch = new.scratch();
    let made = build(name, from, &old, &scratch, &moves);
    let made = made.and_then(|copied| {
        begin();
        let ports = go_over(name, &old, &scratch, &moves)?;
        scratch.become_switch(&new)?;
        Ok(Migration { copied, ports })
    });
    if made.is_err() {
        // The error is the one to tell. The old build puts its own programs back, as its mark is gone.
        let _back = links::follow_all(&old);
        let _kept = scratch.clear();
    }
    let made = made.with_context(|| format!(r#"switch "{name}", of ABI {from}"#))?;
    old.clear()?;
    Ok(made)
}

/// Removes the pins of another build's that have gone over to the switch `name`, where that was interrupted at its end.
pub(crate) fn forget(name: &str) -> Result<()> {
    let new = Pins::of(name);
    for version in Pins::other_versions(name) {
        let old = Pins::of_version(version, name);
        if links::ids(&old)?.is_subset(&links::ids(&new)?) {
            old.clear()?;
        } else {
            bail!(
                r#"switch "{name}": there is another one of that name, of ABI {version}: take that away with the build that made it"#
            );
        }
    }
    Ok(())
}

/// Which maps there are, and which of them are this build's as they are.
fn survey(old: &Pins, from: u32) -> Result<Vec<Move>> {
    let mut moves = Vec::new();
    for spec in spec::specs() {
        let path = old.map(spec.name);
        if !path.try_exists()? {
            if spec.since > from {
                continue;
            }
            bail!("its map {} is missing: take it away with the build that made it", spec.name);
        }
        let map = RawMap::open(&path)?;
        // The FDB is carried entry by entry: where each is follows from what else the old build knew.
        let is_fdb = spec.name.starts_with("FDB");
        let shared = from >= spec.since && !is_fdb && spec::check(spec, &map.info).is_ok();
        moves.push(Move { spec, old: map, shared });
    }
    Ok(moves)
}

fn find<'a>(moves: &'a [Move], name: &str) -> Result<&'a Move> {
    moves.iter().find(|step| step.spec.name == name).with_context(|| format!("its map {name} is missing"))
}

fn identity(moves: &[Move]) -> Result<Identity> {
    let value = find(moves, "IDENTITY")?.old.get(&[0; 4]).context("read the switch's identity")?;
    Ok(bytemuck::pod_read_unaligned(&fit(&value.unwrap_or_default(), size_of::<Identity>())))
}

/// Makes the maps and programs, and copies the state. Returns how much of which map.
fn build(
    name: &str,
    from: u32,
    old: &Pins,
    scratch: &Pins,
    moves: &[Move],
) -> Result<Vec<(&'static str, usize, usize)>> {
    scratch.create()?;
    let shared: Vec<_> = moves.iter().filter(|step| step.shared).collect();
    for step in &shared {
        step.old.pin(&scratch.map(step.spec.name)).with_context(|| format!("pin map {}", step.spec.name))?;
        scratch.protect_map(step.spec.name)?;
    }
    let shared: Vec<_> = shared.iter().map(|step| step.spec.name).collect();
    let shape = fdb_shape(moves)?;
    let Clock { tick, epoch } = load::load_new(scratch, shape, &shared)?;
    let mut copied = Vec::new();
    // Counters are carried when the old ones count no more, and which interfaces are there is asked again.
    let apart = ["COUNTERS", "FDB", "FDB_USED", "VERDICTS", PRESENT];
    // What follows from the intent is made anew.
    let derived = |spec: &Spec| from < before::INTENT && spec.decides;
    let apart = |spec: &Spec| apart.contains(&spec.name) || derived(spec);
    for step in moves.iter().filter(|step| !step.shared && !apart(step.spec)) {
        let (done, all) = copy(step, scratch)?;
        copied.push((step.spec.name, done, all));
    }
    let mut identity = ledger::open_identity(scratch, Access::Write)?;
    if identity.tick == 0 {
        (identity.tick, identity.epoch) = (tick, epoch);
    }
    (identity.fdb_max, identity.fdb_secret) = (shape.max, shape.secret);
    ledger::write_identity(scratch, identity)?;
    let mut new = opened(name, scratch)?;
    let fdb = find(moves, "FDB")?;
    let (done, all) = carry_fdb(&fdb.old, &mut new.maps)?;
    copied.push((fdb.spec.name, done, all));
    if from < before::INTENT {
        derive(old, new, moves, &identity)?;
    } else {
        intent::begin(scratch, &intent::read(old)?)?;
        intent::wanted(old)?.map(|wanted| intent::want(scratch, &wanted)).transpose()?;
    }
    Ok(copied)
}

/// The new switch, which is none yet.
fn opened(name: &str, scratch: &Pins) -> Result<Dataplane> {
    let (maps, ledger) = (Maps::open(scratch, Access::Write)?, Ledger::open(scratch, Access::Write)?);
    let clock = Clock::of(&ledger.identity()?);
    Ok(Dataplane { name: name.to_owned(), pins: scratch.clone(), maps, ledger, clock })
}

/// Makes intent and ledger of what an older build had in other maps, and the tables of them.
fn derive(old: &Pins, mut new: Dataplane, moves: &[Move], identity: &Identity) -> Result<()> {
    let before = Before::read(moves, old_entries(&find(moves, "FDB")?.old)?)?;
    let config = before.intent(&new.name, identity)?;
    intent::begin(&new.pins, &config)?;
    if let Some(wanted) = before::wanted(old)? {
        intent::want(&new.pins, &wanted)?;
    }
    for (slot, record) in before.records() {
        new.ledger.set_record(slot, record)?;
    }
    before.filters().try_for_each(|filter| new.ledger.set_filter(filter))?;
    let members = before.ports().map(|(slot, port, _)| Ok(Member { port, ..new.member_at(slot)? }));
    let members = members.collect::<Result<Vec<_>>>()?;
    reconcile::make_tables(&mut new, &config, &members)?;
    before.ports().for_each(|(slot, _, down)| new.set_down(slot, down));
    Ok(())
}

/// All entries of an older build's FDB.
fn old_entries(old: &RawMap) -> Result<Vec<(FdbKey, FdbEntry)>> {
    let what = "copy map FDB";
    let mut entries = Vec::new();
    for key in old.keys().context(what)?.chunks(old.sizes().0) {
        if let Some(value) = old.get(key).context(what)? {
            entries.extend(fdb_entries(key, &value));
        }
    }
    Ok(entries)
}

/// The shape of the FDB, as it was or, where that is not known, for as many entries.
fn fdb_shape(moves: &[Move]) -> Result<Shape> {
    let before = identity(moves)?.fdb();
    if before.max != 0 && before.secret != 0 {
        return Ok(before);
    }
    let old = &find(moves, "FDB")?.old;
    let entries = old.info.max_entries();
    let is_hash = old.sizes().0 == size_of::<FdbKey>();
    fdb::shape(if is_hash { entries } else { entries.saturating_mul(WAYS as u32 / 2) })
}

/// Copies the entries that the new FDB has not, or not as new. Returns how many of how many.
fn carry_fdb(old: &RawMap, maps: &mut Maps) -> Result<(usize, usize)> {
    let (mut done, mut all) = (0, 0);
    for (key, entry) in old_entries(old)? {
        let there = maps.tables().fdb.get(key)?;
        let newer = there.is_none_or(|there| entry.stamp() > there.stamp());
        all += 1;
        done +=
            usize::from(!newer || maps.change(|tables| tables.fdb.set(key, before::entry(entry)))?.is_ok());
    }
    Ok((done, all))
}

/// The entries in an element of an FDB: of a hash map, or of a table of sets with however many ways.
fn fdb_entries(key: &[u8], value: &[u8]) -> Vec<(FdbKey, FdbEntry)> {
    if key.len() == size_of::<FdbKey>() {
        return vec![(
            bytemuck::pod_read_unaligned(key),
            bytemuck::pod_read_unaligned(&fit(value, size_of::<FdbEntry>())),
        )];
    }
    let ways = value.chunks(size_of::<Way>()).map(|way| fit(way, size_of::<Way>()));
    ways.filter_map(|way| bytemuck::pod_read_unaligned::<Way>(&way).known()).collect()
}

/// Copies the elements that the new map has not.
fn copy(step: &Move, scratch: &Pins) -> Result<(usize, usize)> {
    let name = step.spec.name;
    let what = || format!("copy map {name}");
    let new = RawMap::open(&scratch.map(name))?;
    let (key_size, value_size) = new.sizes();
    let keys = step.old.keys().with_context(what)?;
    let keys = keys.chunks(step.old.sizes().0);
    let all = keys.len();
    let mut done = 0;
    for key in keys {
        // Gone meanwhile, or an element of a device map without device: nothing to carry.
        let Some(value) = step.old.get(key).with_context(what)? else {
            done += 1;
            continue;
        };
        let (key, value) = (fit(key, key_size), fit(&value, value_size));
        let there = new.get(&key).with_context(what)?;
        let newer = there.is_none_or(|there| there.iter().all(|byte| *byte == 0));
        match newer.then(|| new.set(&key, &value)) {
            // Beyond the end of a smaller one.
            Some(Err(err)) if err.raw_os_error() == Some(libc::E2BIG) => {}
            Some(Err(err)) => return Err(err).with_context(what),
            Some(Ok(())) | None => done += 1,
        }
    }
    Ok((done, all))
}

/// Lets the links run the new programs, and carries what the old ones have done up to then.
fn go_over(name: &str, old: &Pins, scratch: &Pins, moves: &[Move]) -> Result<Vec<String>> {
    links::share(old, scratch)?;
    // From here on the old build knows that its programs may not be the ones that run.
    programs::clear_mark(old)?;
    let mut dataplane = opened(name, scratch)?;
    if !moves.iter().any(|step| step.spec.name == PRESENT && step.shared) {
        find_present(&mut dataplane)?;
    }
    let ports = programs::follow(&dataplane)?;
    dataplane.raise();
    await_programs().context("wait for the programs that run")?;
    for step in moves.iter().filter(|step| !step.shared) {
        match step.spec.name {
            "FDB" => carry_fdb(&step.old, &mut dataplane.maps).map(|_| ())?,
            "COUNTERS" => set_bases(old, scratch, &step.old)?,
            _ => {}
        }
    }
    if find(moves, "COUNTERS")?.shared && old.map(BASES).exists() {
        RawMap::open(&old.map(BASES))?.pin(&scratch.map(BASES))?;
        scratch.protect_map(BASES)?;
    }
    Ok(ports)
}

/// Notes down the ports' interfaces, unless one is gone that no controller has missed: its index may be a stranger's.
fn find_present(dataplane: &mut Dataplane) -> Result<()> {
    for member in dataplane.members()?.iter().filter(|member| member.is_present()) {
        let ifindex = member.port.ifindex;
        let attached = links::attached_to(&dataplane.pins, member.slot, Hook::In);
        if !links::tcx() || attached == Some(ifindex) {
            // It may go at this moment.
            let _gone = dataplane.set_present(member.slot, ifindex);
        }
    }
    Ok(())
}

/// What the old counters have come to is what the new ones begin with. In a map of its own: the new ones count already.
fn set_bases(old: &Pins, scratch: &Pins, counters: &RawMap) -> Result<()> {
    let bases = RawMap::array(BASES, size_of::<Counters>(), MAX_PORTS)?;
    let before = old.map(BASES);
    let before = before.exists().then(|| RawMap::open(&before)).transpose()?;
    let each = (counters.info.value_size() as usize).next_multiple_of(8);
    for slot in 0..MAX_PORTS {
        let mut sum = Counters::zeroed();
        let read = |map: &RawMap| map.get(&slot.to_ne_bytes()).context("read the counters");
        let cpus = read(counters)?.unwrap_or_default();
        let base = before.as_ref().map(read).transpose()?.flatten().unwrap_or_default();
        for one in cpus.chunks(each).chain([base.as_slice()]) {
            sum.add(&bytemuck::pod_read_unaligned(&fit(one, size_of::<Counters>())));
        }
        if sum != Counters::zeroed() {
            bases.set(&slot.to_ne_bytes(), bytemuck::bytes_of(&sum)).context("write the counters")?;
        }
    }
    bases.pin(&scratch.map(BASES)).with_context(|| format!("pin map {BASES}"))?;
    scratch.protect_map(BASES)
}

/// Cuts to a length, or fills up with zeroes: what a layout gains, it gains at its end, and zero is what held before. A
/// version that changes one otherwise has its translation here.
fn fit(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(len, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_is_cut_and_what_is_shorter_filled() {
        assert_eq!(fit(&[1, 2, 3], 2), [1, 2]);
        assert_eq!(fit(&[1, 2], 4), [1, 2, 0, 0]);
    }
}
