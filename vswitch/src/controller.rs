//! What needs a process that stays: removing aged entries, and following interfaces that come, go and change.
//!
//! The dataplane does not need it: when it ends, in whatever way, frames go on flowing.

use std::{fs, os::unix::fs::MetadataExt as _, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, Port, PortRecord, fdb_flags, port_flags},
    frame::MacAddr,
};

use crate::{
    attach,
    config::SwitchConfig,
    control::{self, Scope},
    dataplane::{
        Access, Dataplane,
        pins::Pins,
        state::{EntryKind, Member, bytes, entry_kind, key},
    },
    lock::Lock,
    net::{Link, LinkEvent, Netlink, Watch},
    packet_log::PacketLog,
    privileges,
    recover::recover,
    service,
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

/// The longest that an aged entry stays in the FDB; it does not forward meanwhile.
const SWEEP: Duration = Duration::from_secs(10);

/// How soon the controller ends when its switch is taken away.
const LOOK: Duration = Duration::from_secs(1);

/// Makes the switch as `config` if there is one, then keeps it so until SIGTERM or SIGINT, which leave it forwarding.
pub async fn run(scope: &Scope, config: Option<SwitchConfig>, options: RunOptions) -> Result<()> {
    // From here on, so that no signal ends the process between two steps of a change.
    let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    privileges::may_change()?;
    // Before anything is changed: a second controller must not apply its file either.
    let _controller = Lock::run(&scope.switch)?;
    // Before the file, which is for a switch of this build.
    for op in control::take_over(scope, !options.log_packets).await?.ops {
        eprintln!("{op}");
    }
    let kept = options.keep && Pins::of(&scope.switch).exist()?;
    if let Some(config) = config.filter(|_| !kept) {
        for note in control::apply(scope, config, false).await?.notes {
            eprintln!("note: {note}");
        }
    }
    let mut controller = Controller::new(scope, options)?;
    privileges::only_follow(options.log_packets)?;
    service::ready(&scope.switch);
    let ended = controller.stay(signals).await;
    if let Ok(End::SwitchGone) = ended {
        eprintln!(r#"switch "{}": is gone: the controller ends"#, scope.switch);
        return Ok(());
    }
    service::stopping(&scope.switch);
    let stopped = controller.log.stop(scope);
    let revived = revive(scope);
    ended.map(|_asked| ()).and(stopped).and(revived)
}

/// Why a controller stays no longer.
enum End {
    Asked,
    SwitchGone,
}

struct Controller<'a> {
    scope: &'a Scope,
    /// Tells the switch from a later one of the same name: the inode of a directory of its pins.
    pins: u64,
    watch: Watch,
    log: PacketLog,
    /// What was wrong when ports were last compared with their interfaces: told once and not every time.
    wrong: String,
}

impl<'a> Controller<'a> {
    fn new(scope: &'a Scope, options: RunOptions) -> Result<Self> {
        let dataplane = Dataplane::open(&scope.switch, Access::Write)?;
        let pins = pins(scope)?;
        // Before the first look, so that nothing is missed in between.
        let watch = Watch::open()?;
        let log = PacketLog::new(&dataplane, options.log_packets)?;
        Ok(Self { scope, pins, watch, log, wrong: String::new() })
    }

    /// Does what there is to do until a signal comes, for as long as there is a switch.
    async fn stay(&mut self, [mut terminate, mut interrupt]: [Signal; 2]) -> Result<End> {
        eprintln!(r#"switch "{}": controller is running"#, self.scope.switch);
        let mut looking = interval(LOOK);
        let mut reconciling = interval(service::pulse().map_or(RECONCILE, |pulse| pulse.min(RECONCILE)));
        for timer in [&mut looking, &mut reconciling] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut next_sweep = Instant::now();
        loop {
            let done = tokio::select! {
                _ = terminate.recv() => return Ok(End::Asked),
                _ = interrupt.recv() => return Ok(End::Asked),
                event = self.watch.next() => {
                    let gone = self.drain(event?)?;
                    self.reconcile(&gone).await
                }
                _ = reconciling.tick() => self.reconcile(&[]).await,
                () = sleep_until(next_sweep) => {
                    next_sweep = Instant::now() + SWEEP;
                    sweep(self.scope).map(|within| next_sweep = Instant::now() + within)
                }
                _ = looking.tick() => Ok(()),
                logged = self.log.print() => logged,
            };
            // `down` may have been asked for by somebody else: then this controller has nothing left to control.
            if pins(self.scope).ok() != Some(self.pins) {
                return Ok(End::SwitchGone);
            }
            if let Err(err) = done {
                complain(&format!("{err:#}"));
            }
        }
    }

    /// The interfaces that are gone, by `event` and by those that wait behind it. One look answers them all.
    fn drain(&mut self, event: LinkEvent) -> Result<Vec<u32>> {
        let mut gone = Vec::new();
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                LinkEvent::Gone { ifindex, .. } => gone.push(ifindex),
                LinkEvent::Changed(_) | LinkEvent::Resync => {}
            }
            next = self.watch.next().now_or_never().transpose()?;
        }
        Ok(gone)
    }

    /// Brings every port in line with its interface. With nothing to do it changes nothing.
    async fn reconcile(&mut self, gone: &[u32]) -> Result<()> {
        let wrong = reconcile(self.scope, gone).await?.join("\n");
        service::progress(&self.scope.switch, &wrong);
        if wrong != self.wrong {
            complain(&wrong);
            self.wrong = wrong;
        }
        Ok(())
    }
}

/// Takes the mark off the ports that are down: nobody stays to do it when they come up.
fn revive(scope: &Scope) -> Result<()> {
    let _lock = Lock::change(&scope.switch)?;
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    for Member { slot, port, .. } in dataplane.members()? {
        if port.flags & port_flags::DOWN != 0 {
            dataplane.maps.set_port(slot, Port { flags: port.flags & !port_flags::DOWN, ..port })?;
        }
    }
    Ok(())
}

fn complain(text: &str) {
    for line in text.lines() {
        eprintln!("vswitch: {line}");
    }
}

fn pins(scope: &Scope) -> Result<u64> {
    let links = Pins::of(&scope.switch).links();
    Ok(fs::metadata(&links).with_context(|| format!("look at {}", links.display()))?.ino())
}

/// Removes entries past their ageing time. They do not forward any more; this makes room. Returns when to do it again.
fn sweep(scope: &Scope) -> Result<Duration> {
    let _lock = Lock::change(&scope.switch)?;
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let ageing = dataplane.maps.settings()?.ageing;
    let now = dataplane.now();
    for (key, entry) in dataplane.maps.fdb_all()? {
        // Read again: the address may have spoken since.
        if entry.expired(now, ageing)
            && dataplane.maps.fdb_get(key)?.is_some_and(|entry| entry.expired(now, ageing))
        {
            dataplane.maps.fdb_del(key)?;
        }
    }
    Ok(SWEEP.min(Duration::from_secs(dataplane.seconds(ageing.into()).max(4) / 4)))
}

/// Brings every port in line with its interface, as far as it can be; `gone` are interfaces that were deleted, whatever
/// has their index now. Returns what is wrong, a line for each port.
async fn reconcile(scope: &Scope, gone: &[u32]) -> Result<Vec<String>> {
    let _lock = Lock::change(&scope.switch)?;
    // A command may have been killed meanwhile.
    let mut wrong = recover(&scope.switch).await?;
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let netlink = Netlink::open()?;
    let links = netlink.list().await?;
    for member in dataplane.members()? {
        if let Err(err) = reconcile_port(&mut dataplane, &netlink, &links, gone, &member).await {
            wrong.push(format!("{err:#}"));
        }
    }
    Ok(wrong)
}

async fn reconcile_port(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    links: &[Link],
    gone: &[u32],
    member: &Member,
) -> Result<()> {
    let ifname = member.ifname();
    let ifindex = member.port.ifindex;
    if member.is_present()
        && !gone.contains(&ifindex)
        && let Some(link) = links.iter().find(|link| link.ifindex == ifindex)
    {
        return follow(dataplane, member, link);
    }
    if member.is_present() {
        eprintln!(r#""{ifname}": the interface is gone"#);
        // What was changed on it went with it.
        let record = PortRecord { undo: 0, ..member.record };
        attach::detach(dataplane, netlink, &Member { record, ..member.clone() }).await?;
    }
    let Some(link) = links.iter().find(|link| link.ifname == ifname) else { return Ok(()) };
    // Another port's interface may have been given the name.
    if dataplane.members()?.iter().any(|other| other.is_present() && other.port.ifindex == link.ifindex) {
        return Ok(());
    }
    let member = dataplane.member(&ifname)?;
    match attach::attach(dataplane, netlink, &member).await {
        Ok(notes) => {
            eprintln!(r#""{ifname}": attached"#);
            notes.iter().for_each(|note| eprintln!("note: {note}"));
            Ok(())
        }
        Err(err) => {
            // Half attached is not a port: the next look finds it missing, and tries again.
            let member = dataplane.member(&ifname)?;
            attach::detach(dataplane, netlink, &member).await?;
            Err(err)
        }
    }
}

/// Follows what may change of an interface while it is a port: name, MTU, address, and where its far end is.
fn follow(dataplane: &mut Dataplane, member: &Member, link: &Link) -> Result<()> {
    let ifname = member.ifname();
    if link.ifname != ifname {
        eprintln!(r#""{ifname}": is now called "{}""#, link.ifname);
        dataplane
            .maps
            .set_record(member.slot, PortRecord { ifname: bytes(&link.ifname)?, ..member.record })?;
    }
    let mut flags = member.port.flags & !(port_flags::PEER | port_flags::DOWN);
    if attach::peer_is_elsewhere(link) {
        flags |= port_flags::PEER;
    }
    // Not an uplink: the host behind it is there without the wire.
    let dead = !link.up || !link.carrier;
    if dead && !member.is_uplink() {
        flags |= port_flags::DOWN;
    }
    let port = Port { mtu: link.mtu, flags, ..member.port };
    if port != member.port {
        dataplane.maps.set_port(member.slot, port)?;
    }
    if member.is_uplink() { follow_address(dataplane, member.slot, key(MacAddr(link.mac))) } else { Ok(()) }
}

/// The host is reached by its uplink's address, whatever it is now.
fn follow_address(dataplane: &mut Dataplane, slot: u16, address: FdbKey) -> Result<()> {
    let is_local = |entry: FdbEntry| entry.slot() == slot && entry_kind(entry) == EntryKind::Local;
    if dataplane.maps.fdb_get(address)?.is_some_and(is_local) {
        return Ok(());
    }
    dataplane.maps.fdb_set(address, FdbEntry::new(slot, fdb_flags::LOCAL, dataplane.now()))?;
    for (key, entry) in dataplane.maps.fdb_all()? {
        if is_local(entry) && key != address {
            dataplane.maps.fdb_del(key)?;
        }
    }
    Ok(())
}
