//! How does a plan become the switch? Its operations one by one; if one fails, those before it are undone.

use anyhow::{Context as _, Result};
use vswitch_ebpf::abi::{FdbEntry, FdbKey, PortRecord, fdb_flags};

use crate::{
    addresses, attach,
    config::{StaticEntry, SwitchConfig},
    dataplane::{Dataplane, pins::Pins},
    failure::{in_words, with_undo},
    interface,
    net::Netlink,
    plan::Op,
    uplink,
};

/// Carries out `ops` on an open switch, all or nothing. Returns what the user should know.
pub(crate) async fn apply(dataplane: &mut Dataplane, netlink: &Netlink, ops: &[Op]) -> Result<Vec<String>> {
    possible(&dataplane.name, &attach::own_programs(dataplane), netlink, ops).await?;
    unclaimed(dataplane, ops)?;
    let mut notes = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        match execute(dataplane, netlink, op).await {
            Ok(more) => notes.extend(more),
            Err(err) => {
                let undone = roll_back(dataplane, netlink, ops.get(..index).unwrap_or_default()).await;
                return Err(with_undo(err, undone));
            }
        }
    }
    Ok(notes)
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

/// Fails if an entry is to be added for an address that is somebody's and stays so, before anything is touched. Whose port
/// changes may release it: that shows when it is that entry's turn.
fn unclaimed(dataplane: &Dataplane, ops: &[Op]) -> Result<()> {
    for op in ops {
        let Op::AddFdb(StaticEntry { mac, vlan, .. }) = op else { continue };
        let key = FdbKey { mac: *mac, vlan: *vlan };
        let Some(entry) = dataplane.maps.fdb.get(key)? else { continue };
        let owner = dataplane.member_at(entry.slot())?.ifname();
        let changes = ops.iter().any(|op| match op {
            Op::DelPort(port) | Op::SetPort { from: port, .. } => port.ifname == owner,
            Op::DelFdb(old) => old.mac == *mac,
            Op::Create(_) | Op::Destroy(_) | Op::SetSwitch { .. } | Op::AddPort(_) | Op::AddFdb(_) => false,
        });
        if !changes {
            addresses::changeable(key, entry)?;
        }
    }
    Ok(())
}

/// Returns what of it did not work: what removing a port could not put back.
async fn roll_back(dataplane: &mut Dataplane, netlink: &Netlink, done: &[Op]) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for op in done.iter().rev() {
        let undo = op.inverse();
        let notes = execute(dataplane, netlink, &undo).await.with_context(|| format!("undo {op}"))?;
        if let Op::DelPort(_) = undo {
            left.extend(notes);
        }
    }
    Ok(left)
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
            return attach::remove(dataplane, netlink, &member).await;
        }
        Op::AddFdb(entry) => {
            let slot = dataplane.member(&entry.ifname)?.slot;
            let key = FdbKey { mac: entry.mac, vlan: entry.vlan };
            if let Some(there) = dataplane.maps.fdb.get(key)? {
                addresses::changeable(key, there)?;
            }
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
        let mut notes = Vec::new();
        for op in ops {
            notes.extend(execute(&mut dataplane, netlink, op).await?);
        }
        dataplane.set_complete(true)?;
        Ok(notes)
    }
    .await;
    match made {
        Ok(notes) => Ok(notes),
        Err(err) => Err(with_undo(err, destroy(dataplane, netlink).await)),
    }
}

/// Takes a switch away, whole or not: ports, links, maps, and the interfaces that vswitch made.
///
/// Goes on after a failure, so that as little as possible is left; returns the failures.
pub(crate) async fn destroy(mut dataplane: Dataplane, netlink: &Netlink) -> Result<Vec<String>> {
    dataplane.set_complete(false)?;
    let mut failures = Vec::new();
    let members = dataplane.members()?;
    for member in &members {
        match attach::abandon(&mut dataplane, netlink, member).await {
            Ok(left) => failures.extend(left),
            Err(err) => failures.push(in_words(&err)),
        }
    }
    let records: Vec<_> = members.into_iter().map(|member| (member.slot, member.record)).collect();
    let made = interface::delete_all_made(&dataplane.name, &dataplane.pins, netlink, &records).await;
    if let Err(err) = made {
        failures.push(in_words(&err));
    }
    dataplane.pins.remove()?;
    Ok(failures)
}

/// As [`destroy`], for a switch that cannot be opened: by the records of its ports alone. Adds to the notes what nobody knows
/// any more.
pub(crate) async fn salvage(
    switch: &str,
    pins: &Pins,
    records: Option<Vec<(u16, PortRecord)>>,
    netlink: &Netlink,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    if records.is_none() {
        notes.push(
            "which ports it had is lost: interfaces that it set promiscuous or changed for XDP stay so"
                .into(),
        );
        let made = interface::delete_marked(netlink, switch).await;
        for done in [made, attach::unfilter(pins, netlink).await] {
            failures.extend(done.err().map(|err| in_words(&err)));
        }
    }
    let records = records.unwrap_or_default();
    // While the far ends are there to be asked for their addresses.
    match uplink::salvage(pins, netlink, &records).await {
        Ok(note) => notes.extend(note),
        Err(err) => failures.push(in_words(&err)),
    }
    for (slot, record) in &records {
        if let Err(err) = attach::salvage(pins, netlink, *slot, record).await {
            failures.push(in_words(&err));
        }
    }
    if let Err(err) = interface::delete_all_made(switch, pins, netlink, &records).await {
        failures.push(in_words(&err));
    }
    pins.remove()?;
    Ok(failures)
}
