//! What needs a process that stays: removing aged entries, and following interfaces that come, go and change.
//!
//! The dataplane does not need it: when it ends, in whatever way, frames go on flowing.

use std::time::Duration;

use anyhow::Result;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use vswitch_ebpf::abi::{FdbEntry, Port, PortRecord, fdb_flags, port_flags};

use crate::{
    attach,
    config::SwitchConfig,
    control::{self, Scope},
    dataplane::{
        Access, Dataplane,
        state::{EntryKind, Member, bytes, entry_kind, key},
    },
    lock::Lock,
    net::{Link, LinkEvent, Netlink, Watch},
    packet_log::PacketLog,
};

/// How a controller behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// A line for every frame that the switch decides at tc.
    pub log_packets: bool,
}

/// How often everything is compared with what should be, whether or not an event said so.
const RECONCILE: Duration = Duration::from_secs(10);

/// The longest that an aged entry stays in the FDB; it does not forward meanwhile.
const SWEEP: Duration = Duration::from_secs(10);

/// Makes the switch as `config` if there is one, then keeps it so until SIGTERM or SIGINT, which leave it forwarding.
pub async fn run(scope: &Scope, config: Option<SwitchConfig>, options: RunOptions) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if let Some(config) = config {
        for note in control::apply(scope, config, false).await?.notes {
            eprintln!("note: {note}");
        }
    }
    let dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let ageing = Dataplane::seconds(dataplane.maps.settings()?.ageing.into());
    let _controller = Lock::run(&scope.switch)?;
    let mut log = PacketLog::new(&dataplane, options.log_packets)?;
    drop(dataplane);

    // Before the first look, so that nothing is missed in between.
    let mut watch = Watch::open()?;
    let mut reconciling = interval(RECONCILE);
    let mut sweeping = interval(SWEEP.min(Duration::from_secs(ageing.max(4) / 4)));
    for timer in [&mut reconciling, &mut sweeping] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    eprintln!(r#"switch "{}": controller is running"#, scope.switch);
    loop {
        let done = tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            event = watch.next() => match event? {
                LinkEvent::Changed(_) | LinkEvent::Gone { .. } | LinkEvent::Resync => reconcile(scope).await,
            },
            _ = reconciling.tick() => reconcile(scope).await,
            _ = sweeping.tick() => sweep(scope),
            logged = log.print() => logged,
        };
        if let Err(err) = done {
            // `down` may have been asked for by somebody else: then this controller has nothing left to control.
            if !crate::dataplane::pins::Pins::of(&scope.switch).exist()? {
                eprintln!(r#"switch "{}": is gone: the controller ends"#, scope.switch);
                return Ok(());
            }
            eprintln!("vswitch: {err:#}");
        }
    }
    log.stop(scope)
}

/// Removes entries past their ageing time. They do not forward any more; this makes room.
fn sweep(scope: &Scope) -> Result<()> {
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let ageing = dataplane.maps.settings()?.ageing;
    let now = Dataplane::now();
    for (key, entry) in dataplane.maps.fdb_all()? {
        // Read again: the address may have spoken since.
        if entry.expired(now, ageing)
            && dataplane.maps.fdb_get(key)?.is_some_and(|entry| entry.expired(now, ageing))
        {
            dataplane.maps.fdb_del(key)?;
        }
    }
    Ok(())
}

/// Brings every port in line with its interface. With nothing to do it changes nothing.
async fn reconcile(scope: &Scope) -> Result<()> {
    let _lock = Lock::change(&scope.switch)?;
    let mut dataplane = Dataplane::open(&scope.switch, Access::Write)?;
    let netlink = Netlink::open()?;
    let links = netlink.list().await?;
    let mut first = Ok(());
    for member in dataplane.members()? {
        let done = reconcile_port(&mut dataplane, &netlink, &links, &member).await;
        first = first.and(done);
    }
    first
}

async fn reconcile_port(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    links: &[Link],
    member: &Member,
) -> Result<()> {
    let ifname = member.ifname();
    let attached = links.iter().find(|link| member.is_present() && link.ifindex == member.port.ifindex);
    match attached {
        Some(link) => follow(dataplane, member, link),
        None => {
            if member.is_present() {
                eprintln!(r#""{ifname}": the interface is gone"#);
                attach::detach(dataplane, netlink, member).await?;
            }
            if links.iter().any(|link| link.ifname == ifname) {
                let member = dataplane.member(&ifname)?;
                attach::attach(dataplane, netlink, &member).await?;
                eprintln!(r#""{ifname}": attached"#);
            }
            Ok(())
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
    let mut flags = member.port.flags & !port_flags::PEER;
    if attach::peer_is_elsewhere(link) {
        flags |= port_flags::PEER;
    }
    let port = Port { mtu: link.mtu, flags, ..member.port };
    if port != member.port {
        dataplane.maps.set_port(member.slot, port)?;
    }
    if member.is_uplink() {
        let mac = vswitch_ebpf::frame::MacAddr(link.mac);
        let own = dataplane
            .maps
            .fdb_all()?
            .into_iter()
            .filter(|(_, entry)| entry.slot() == member.slot && entry_kind(*entry) == EntryKind::Local);
        let old: Vec<_> = own.map(|(key, _)| key).filter(|old| *old != key(mac)).collect();
        let known = dataplane.maps.fdb_get(key(mac))?.map(entry_kind) == Some(EntryKind::Local);
        if !known {
            dataplane
                .maps
                .fdb_set(key(mac), FdbEntry::new(member.slot, fdb_flags::LOCAL, Dataplane::now()))?;
        }
        for old in old {
            dataplane.maps.fdb_del(old)?;
        }
    }
    Ok(())
}
