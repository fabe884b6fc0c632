//! How does a plan become the switch? Its operations one by one; if one fails, those before it are undone.

use anyhow::{Context as _, Result, anyhow};
use vswitch_ebpf::abi::{FdbEntry, FdbKey, PortRecord, fdb_flags};

use crate::{
    attach,
    config::SwitchConfig,
    dataplane::{Dataplane, pins::Pins},
    interface,
    net::Netlink,
    plan::Op,
    uplink,
};

/// Carries out `ops` on an open switch, all or nothing. Returns what the user should know.
pub(crate) async fn apply(dataplane: &mut Dataplane, netlink: &Netlink, ops: &[Op]) -> Result<Vec<String>> {
    possible(&dataplane.name, &attach::own_programs(dataplane), netlink, ops).await?;
    execute_all(dataplane, netlink, ops).await
}

/// Fails if a port cannot be added, before anything is touched: to take a port away and put it back is seen by its
/// stations, even if nothing is left of it.
async fn possible(name: &str, own: &[u32], netlink: &Netlink, ops: &[Op]) -> Result<()> {
    for op in ops {
        if let Op::AddPort(config) = op {
            attach::possible(name, own, netlink, config).await?;
        }
    }
    Ok(())
}

async fn execute_all(dataplane: &mut Dataplane, netlink: &Netlink, ops: &[Op]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        match execute(dataplane, netlink, op).await {
            Ok(more) => notes.extend(more),
            Err(err) => {
                return match roll_back(dataplane, netlink, ops.get(..index).unwrap_or_default()).await {
                    Ok(()) => Err(err),
                    Err(failure) => Err(anyhow!(
                        "{err:#} (and what was done before could not be undone: {failure:#}; see `vswitch port show`)"
                    )),
                };
            }
        }
    }
    Ok(notes)
}

async fn roll_back(dataplane: &mut Dataplane, netlink: &Netlink, done: &[Op]) -> Result<()> {
    for op in done.iter().rev() {
        execute(dataplane, netlink, &op.inverse()).await.with_context(|| format!("undo {op}"))?;
    }
    Ok(())
}

async fn execute(dataplane: &mut Dataplane, netlink: &Netlink, op: &Op) -> Result<Vec<String>> {
    match op {
        Op::SetSwitch { to, .. } => {
            dataplane.set_switch(to.ageing, to.host_access, to.macvlan_compat)?;
        }
        Op::AddPort(config) => return attach::add(dataplane, netlink, config).await,
        Op::SetPort { from, to } => attach::change(dataplane, netlink, from, to).await?,
        Op::DelPort(config) => {
            let member = dataplane.member(&config.ifname)?;
            attach::remove(dataplane, netlink, &member).await?;
        }
        Op::AddFdb(entry) => {
            let slot = dataplane.member(&entry.ifname)?.slot;
            let key = FdbKey { mac: entry.mac, vlan: entry.vlan };
            dataplane.maps.fdb_set(key, FdbEntry::new(slot, fdb_flags::STATIC, dataplane.now()))?;
        }
        Op::DelFdb(entry) => {
            dataplane.maps.fdb.del([FdbKey { mac: entry.mac, vlan: entry.vlan }])?;
        }
        Op::Create(_) | Op::Destroy(_) => {}
    }
    Ok(Vec::new())
}

/// Makes a switch as `config` says, ports and all; nothing is left if it fails.
pub(crate) async fn create(netlink: &Netlink, config: &SwitchConfig, ops: &[Op]) -> Result<Vec<String>> {
    possible(&config.name, &[], netlink, ops).await?;
    let mut dataplane = Dataplane::create(&config.name, config.fdb_max)?;
    let made = async {
        dataplane.set_switch(config.ageing, config.host_access, config.macvlan_compat)?;
        dataplane.refresh_settings()?;
        let notes = execute_all(&mut dataplane, netlink, ops).await?;
        dataplane.set_complete(true)?;
        Ok(notes)
    }
    .await;
    if made.is_err() {
        // The ports are undone; the error of the creation is the one to tell.
        let _kept = dataplane.pins.remove();
    }
    made
}

/// Takes a switch away, whole or not: ports, links, maps, and the interfaces that vswitch made.
///
/// Goes on after a failure, so that as little as possible is left; returns the failures.
pub(crate) async fn destroy(mut dataplane: Dataplane, netlink: &Netlink) -> Result<Vec<String>> {
    dataplane.set_complete(false)?;
    let mut failures = Vec::new();
    let members = dataplane.members()?;
    for member in &members {
        if let Err(err) = attach::abandon(&mut dataplane, netlink, member).await {
            failures.push(format!("{err:#}"));
        }
    }
    let records: Vec<_> = members.into_iter().map(|member| (member.slot, member.record)).collect();
    let made = interface::delete_all_made(&dataplane.name, &dataplane.pins, netlink, &records).await;
    if let Err(err) = made {
        failures.push(format!("{err:#}"));
    }
    dataplane.pins.remove()?;
    Ok(failures)
}

/// As [`destroy`], for a switch that cannot be opened: by the records of its ports alone.
pub(crate) async fn salvage(
    switch: &str,
    pins: &Pins,
    records: Option<Vec<(u16, PortRecord)>>,
    netlink: &Netlink,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if records.is_none() {
        notes.push(
            "which ports it had is lost: interfaces that it set promiscuous or changed for XDP stay so"
                .into(),
        );
        let made = interface::delete_marked(netlink, switch).await;
        for done in [made, attach::unfilter(pins, netlink).await] {
            notes.extend(done.err().map(|err| format!("{err:#}")));
        }
    }
    let records = records.unwrap_or_default();
    // While the far ends are there to be asked for their addresses.
    match uplink::salvage(pins, netlink, &records).await {
        Ok(note) => notes.extend(note),
        Err(err) => notes.push(format!("{err:#}")),
    }
    for (slot, record) in &records {
        if let Err(err) = attach::salvage(pins, netlink, *slot, record).await {
            notes.push(format!("{err:#}"));
        }
    }
    if let Err(err) = interface::delete_all_made(switch, pins, netlink, &records).await {
        notes.push(format!("{err:#}"));
    }
    pins.remove()?;
    Ok(notes)
}
