//! What may change of an interface while it is a port? Name, MTU, address, carrier, and where its far end is.

use anyhow::Result;
use vswitch_ebpf::{
    abi::{FdbEntry, Port, PortRecord, fdb_flags, port_flags},
    frame::MacAddr,
};

use crate::{
    addresses, attach,
    dataplane::{
        Dataplane,
        state::{EntryKind, Member, bytes, entry_kind, key},
    },
    lock::Lock,
    net::Link,
};

/// Follows what has changed, if anything has, and another port has no claim to it. Returns the port as it is then.
pub(super) fn follow(dataplane: &mut Dataplane, member: &Member, link: &Link) -> Result<Member> {
    let ifname = member.ifname();
    let mut record = member.record;
    if link.ifname != ifname && !dataplane.is_port(&link.ifname)? {
        eprintln!(r#""{ifname}": is now called "{}""#, link.ifname);
        // Not the record of the round's beginning: another port's turn may have made its uplink promiscuous since.
        record = PortRecord { ifname: bytes(&link.ifname)?, ..dataplane.maps.record(member.slot)? };
        dataplane.maps.set_record(member.slot, record)?;
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
    if member.is_uplink() {
        follow_address(dataplane, member.slot, MacAddr(link.mac))?;
    }
    Ok(Member { slot: member.slot, record, port })
}

/// The host is reached by its uplink's address, whatever it is now.
fn follow_address(dataplane: &mut Dataplane, slot: u16, mac: MacAddr) -> Result<()> {
    let is_local = |entry: FdbEntry| entry.slot() == slot && entry_kind(entry) == EntryKind::Local;
    let address = key(mac);
    if dataplane.maps.fdb.get(address)?.is_some_and(is_local)
        || addresses::unclaimed(dataplane, mac, Some(slot)).is_err()
    {
        return Ok(());
    }
    let entry = FdbEntry::new(slot, fdb_flags::LOCAL, dataplane.now());
    dataplane.maps.fdb_set(address, entry)?;
    for (key, entry) in dataplane.maps.fdb.all()? {
        if is_local(entry) && key != address {
            dataplane.maps.fdb.del([key])?;
        }
    }
    Ok(())
}

/// Takes the mark off the ports that are down: nobody stays to do it when they come up.
pub(super) async fn revive(dataplane: &mut Dataplane) -> Result<()> {
    let is_down = |member: &Member| member.port.flags & port_flags::DOWN != 0;
    if !dataplane.members()?.iter().any(is_down) {
        // No reason to wait for whoever has the lock.
        return Ok(());
    }
    let _lock = Lock::change(&dataplane.name).await?;
    for Member { slot, port, .. } in dataplane.members()?.into_iter().filter(is_down) {
        dataplane.maps.set_port(slot, Port { flags: port.flags & !port_flags::DOWN, ..port })?;
    }
    Ok(())
}

/// At once, and without the lock, for which others may make it wait: no frame goes to an interface that is gone, nor to
/// a stranger that is given its index. What a command writes at the same moment is put right in the round that follows.
pub(super) fn cut(dataplane: &mut Dataplane, ifindex: u32) -> Result<()> {
    let Some(slot) = dataplane.maps.slot_of(ifindex)? else { return Ok(()) };
    let port = dataplane.maps.port(slot)?;
    if port.ifindex == ifindex {
        dataplane.maps.set_port(slot, Port { ifindex: 0, ..port })?;
    }
    Ok(())
}
