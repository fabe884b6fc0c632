//! Every change of a switch: under its lock, from the actual state to the desired one, whole or not at all.

use std::io::Write as _;

use anyhow::{Result, bail};
use vswitch_ebpf::{
    abi::{ABI_VERSION, FdbEntry, FdbKey},
    frame::MacAddr,
};

use crate::{
    change::{self, host_owns, plan::plan, port_owns, recover::recover},
    config::{StaticEntry, SwitchConfig},
    dataplane::{
        Access, Dataplane, Found,
        image::Write,
        migrate,
        pins::Pins,
        programs,
        state::{EntryKind, entry_kind},
    },
    inspect,
    lock::Lock,
    net::Netlink,
    privileges,
};

pub use crate::controller::{RunOptions, run};
pub use crate::inspect::{Meter, fdb, fdb_entry, ports, show, stats};

/// Which switch, seen from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The instance.
    pub switch: String,
    /// The namespace that the command was sent into, which the process has entered.
    pub netns: Option<String>,
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The operations that were carried out, or would be.
    pub ops: Vec<String>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Makes a switch.
pub async fn up(scope: &Scope, config: SwitchConfig) -> Result<Report> {
    let mut lock = begin(scope).await?;
    if Dataplane::exists(&scope.switch)? {
        let name = &scope.switch;
        Dataplane::open(name, Access::Write)?.check_links()?;
        bail!(
            r#"switch "{name}": up already: change it with `vswitch -s {name} port` or `vswitch -s {name} apply`"#
        );
    }
    create(&mut lock, config).await
}

/// Takes a switch away, also one that a crash left half made.
pub async fn down(scope: &Scope) -> Result<Report> {
    privileges::may_change()?;
    let _lock = Lock::change(&scope.switch).await?;
    let pins = Pins::of(&scope.switch);
    let half = pins.scratch().exist()?;
    pins.scratch().clear()?;
    if !Dataplane::exists(&scope.switch)? {
        if half {
            return Ok(Report::default());
        }
        bail!(r#"switch "{0}": there is none of that name: nothing to take away"#, scope.switch);
    }
    // Another one of that name, if there is, stays for the build that made it.
    let _another = migrate::forget(&scope.switch);
    let netlink = Netlink::open()?;
    let mut report = Report::default();
    let left = match Dataplane::find(&scope.switch, Access::Write)? {
        Found::Switch(dataplane) => {
            report.ops = dataplane.intent().map(|config| plan_down(&config)).unwrap_or_default();
            change::destroy(*dataplane, &netlink).await?
        }
        Found::Incomplete(_) => {
            let records = Dataplane::salvage(&scope.switch)?;
            change::salvage(&scope.switch, &pins, records, &netlink, &mut report.notes).await?
        }
        Found::Homeless(_) => {
            pins.remove()?;
            let note = "its network namespace is gone, or cannot be seen from here: nothing was done about interfaces";
            report.notes.push(note.to_owned());
            Vec::new()
        }
    };
    Lock::dismiss(&scope.switch);
    if !left.is_empty() {
        tell(&report.notes);
        bail!(
            r#"switch "{}": is gone, and not all is as it was before it: {}"#,
            scope.switch,
            left.join("; ")
        );
    }
    Ok(report)
}

/// Changes a switch's configuration. What `change` does may be done to more than one: to what the switch is, and to what it is
/// about to become.
pub async fn change(scope: &Scope, change: impl Fn(&mut SwitchConfig) -> Result<()>) -> Result<Report> {
    let mut lock = begin(scope).await?;
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let checked = |config: &mut SwitchConfig| {
        change(config)?;
        Ok(config.check()?)
    };
    let actual = dataplane.intent()?;
    alter(&mut dataplane, &mut lock, actual, checked).await
}

/// `actual`: what the switch is.
async fn alter(
    dataplane: &mut Dataplane,
    lock: &mut Lock,
    actual: SwitchConfig,
    change: impl Fn(&mut SwitchConfig) -> Result<()>,
) -> Result<Report> {
    let mut desired = actual.clone();
    change(&mut desired)?;
    let report = converge(dataplane, lock, &actual, &desired).await?;
    // Whoever adds or removes many ports at this time, in stages, is not to take it back.
    change::change_noted(&dataplane.pins, change)?;
    Ok(report)
}

/// Makes a switch as `desired`, creating it if there is none.
pub async fn apply(scope: &Scope, desired: SwitchConfig, dry_run: bool) -> Result<Report> {
    desired.check()?;
    if dry_run {
        let exists = Dataplane::exists(&scope.switch)?;
        let actual = if exists { Some(inspect::open(scope)?.intent()?) } else { None };
        let ops = plan(actual.as_ref(), &desired)?;
        return Ok(Report { ops: ops.iter().map(ToString::to_string).collect(), notes: Vec::new() });
    }
    let mut lock = begin(scope).await?;
    if !Dataplane::exists(&scope.switch)? {
        return create(&mut lock, desired).await;
    }
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let replace = |config: &mut SwitchConfig| {
        config.clone_from(&desired);
        Ok(())
    };
    let actual = dataplane.intent()?;
    alter(&mut dataplane, &mut lock, actual, replace).await
}

/// Makes the switch one of this build: its programs take the place of another's, port by port, and no frame is lost.
pub async fn upgrade(scope: &Scope) -> Result<Report> {
    let mut lock = begin(scope).await?;
    // A controller of the other build would put the pins back that are about to go.
    go_over(&scope.switch, &mut lock, true, || Lock::dismiss(&scope.switch)).await
}

/// As [`upgrade`], if there is a switch; its `programs` too, unless the caller is about to replace them anyway.
pub(crate) async fn take_over(scope: &Scope, programs: bool) -> Result<Report> {
    let mut lock = begin(scope).await?;
    let name = &scope.switch;
    if Pins::of(name).exist()? || !Pins::other_versions(name).is_empty() {
        go_over(name, &mut lock, programs, || {}).await
    } else {
        Ok(Report::default())
    }
}

/// `migrating` is called before the other build's switch is touched.
async fn go_over(name: &str, lock: &mut Lock, programs: bool, migrating: impl FnOnce()) -> Result<Report> {
    let mut report = Report::default();
    let mut ports = Vec::new();
    if let (false, Some(from)) = (Pins::of(name).exist()?, Pins::other_versions(name).pop()) {
        let done = migrate::migrate(name, from, migrating)?;
        report.ops.push(format!("~ switch {name}: ABI {from} -> {ABI_VERSION}"));
        for (map, copied, all) in done.copied {
            report.ops.push(format!("~ map {map}: {copied} of {all} elements copied"));
        }
        ports = done.ports;
        // It may have been half made or half changed.
        report.notes = recover(name, lock).await?;
    }
    let dataplane = Dataplane::open(name, Access::Write)?;
    if programs && !programs::are_current(&dataplane.pins, false) {
        ports = programs::replace(&dataplane)?;
    }
    report.ops.extend(ports.iter().map(|ifname| format!("~ port {ifname}: programs of this build")));
    Ok(report)
}

/// The switch as a configuration.
pub async fn export(scope: &Scope) -> Result<SwitchConfig> {
    inspect::open(scope)?.intent()
}

/// Adds an FDB entry, static or ageing.
pub async fn fdb_add(scope: &Scope, mac: MacAddr, vlan: u16, ifname: &str, is_static: bool) -> Result<()> {
    let mut lock = begin(scope).await?;
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let slot = dataplane.member(ifname)?.slot;
    let (key, intent) = (FdbKey { mac, vlan }, dataplane.intent()?);
    if let Some(entry) = dataplane.fdb_entry(key)? {
        changeable(key, entry)?;
    }
    if let Some(entry) = bound(&intent, key) {
        if is_static && entry.ifname == ifname {
            return Ok(());
        }
        bail!(
            "fdb {mac}: is bound to port {} already: delete that entry first (vswitch fdb del {mac})",
            entry.ifname
        );
    }
    if !is_static {
        return dataplane.write(&Write::Teach(key, slot));
    }
    let entry = StaticEntry { mac, vlan, ifname: ifname.to_owned() };
    let add = |config: &mut SwitchConfig| {
        config.fdb.push(entry.clone());
        Ok(())
    };
    alter(&mut dataplane, &mut lock, intent, add).await.map(drop)
}

/// Removes an FDB entry.
pub async fn fdb_del(scope: &Scope, mac: MacAddr, vlan: u16) -> Result<()> {
    let mut lock = begin(scope).await?;
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let (key, intent) = (FdbKey { mac, vlan }, dataplane.intent()?);
    if bound(&intent, key).is_some() {
        let remove = |config: &mut SwitchConfig| {
            config.fdb.retain(|entry| (entry.mac, entry.vlan) != (mac, vlan));
            Ok(())
        };
        return alter(&mut dataplane, &mut lock, intent, remove).await.map(drop);
    }
    let Some(entry) = dataplane.fdb_entry(key)? else {
        bail!("fdb {mac}: no such entry (vswitch fdb show lists them)");
    };
    changeable(key, entry)?;
    dataplane.write(&Write::Forget(vec![key]))
}

/// Removes all learned entries, or those of one port. Returns how many.
pub async fn fdb_flush(scope: &Scope, ifname: Option<&str>) -> Result<u64> {
    let _lock = begin(scope).await?;
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let slot = ifname.map(|ifname| dataplane.member(ifname)).transpose()?.map(|member| member.slot);
    let mut entries = dataplane.fdb_entries()?;
    entries.retain(|(_, entry)| {
        slot.is_none_or(|slot| slot == entry.slot()) && entry_kind(*entry) == EntryKind::Learned
    });
    let keys: Vec<_> = entries.into_iter().map(|(key, _)| key).collect();
    let count = keys.len() as u64;
    dataplane.write(&Write::Forget(keys))?;
    Ok(count)
}

/// What every change begins with: the lock, and an end to what was interrupted.
async fn begin(scope: &Scope) -> Result<Lock> {
    privileges::may_change()?;
    let mut lock = Lock::change(&scope.switch).await?;
    tell(&recover(&scope.switch, &mut lock).await?);
    Ok(lock)
}

/// Says what is worth knowing although nothing failed, and whatever becomes of the command.
pub(crate) fn tell(notes: &[String]) {
    for note in notes {
        let _nobody_listens = writeln!(std::io::stderr(), "note: {note}");
    }
}

async fn create(lock: &mut Lock, config: SwitchConfig) -> Result<Report> {
    config.check()?;
    let ops = plan(None, &config)?;
    let notes = change::create(&Netlink::open()?, lock, &config).await?;
    Ok(Report { ops: ops.iter().map(ToString::to_string).collect(), notes })
}

async fn converge(
    dataplane: &mut Dataplane,
    lock: &mut Lock,
    actual: &SwitchConfig,
    desired: &SwitchConfig,
) -> Result<Report> {
    let ops = plan(Some(actual), desired)?;
    if ops.is_empty() {
        return Ok(Report::default());
    }
    let notes = change::make(dataplane, &Netlink::open()?, lock, [actual, desired]).await?;
    Ok(Report { ops: ops.iter().map(ToString::to_string).collect(), notes })
}

fn plan_down(config: &SwitchConfig) -> Vec<String> {
    config.ports.iter().rev().map(|port| format!("- port {}", port.ifname)).collect()
}

/// The entry that the user has bound to a port.
fn bound(intent: &SwitchConfig, key: FdbKey) -> Option<&StaticEntry> {
    intent.fdb.iter().find(|entry| (entry.mac, entry.vlan) == (key.mac, key.vlan))
}

/// Fails if an entry is not the user's to change by `fdb`.
fn changeable(key: FdbKey, entry: FdbEntry) -> Result<()> {
    let mac = key.mac;
    match entry_kind(entry) {
        EntryKind::Learned | EntryKind::Static => Ok(()),
        EntryKind::Local => bail!("{}", host_owns(mac)),
        EntryKind::Known => bail!("{}", port_owns(mac)),
    }
}
