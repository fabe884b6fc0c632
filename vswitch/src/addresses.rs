//! Which addresses are bound to a port, by the user or by its interface, and whose is one already?

use anyhow::{Context as _, Result, bail};
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, PortRecord, fdb_flags, record_flags},
    frame::MacAddr,
};

use crate::{
    config::Role,
    dataplane::{
        Dataplane,
        state::{EntryKind, Member, entry_kind, key},
    },
    interface,
    net::{Link, Netlink, Target},
    uplink,
};

/// Makes `macs` the addresses that the user has bound to a port. Those that go make room for those that come.
pub(crate) async fn rebind(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    member: &Member,
    macs: &[MacAddr],
) -> Result<()> {
    let slot = member.slot;
    for mac in macs {
        unclaimed(dataplane, *mac, Some(slot))?;
    }
    release(dataplane, netlink, |key, entry| {
        entry.slot() == slot
            && match entry_kind(entry) {
                EntryKind::Known => !macs.contains(&key.mac),
                EntryKind::Derived => !macs.is_empty(),
                EntryKind::Learned | EntryKind::Static | EntryKind::Local => false,
            }
    })
    .await?;
    for mac in macs {
        bind(dataplane, *mac, slot, 0)?;
    }
    let first_mac = macs.first().map_or([0; 6], |mac| mac.0);
    let record = PortRecord { first_mac, ..member.record };
    dataplane.maps.set_record(slot, record)?;
    if first_mac == member.record.first_mac {
        return Ok(());
    }
    let Some(link) = interface::of(&dataplane.pins, netlink, slot, &record).await? else { return Ok(()) };
    let target = Target::of(netlink, link.clone(), member.netns().as_deref()).await?;
    if first_mac != [0; 6] {
        return readdress(&record, &target, first_mac).await;
    }
    let made = record.flags & record_flags::CREATED_VETH != 0;
    let peer = if made { target.peer_mac()?.map(MacAddr) } else { None };
    bind_own(dataplane, slot, member.role(), &record, &link, peer)
}

/// Gives the far end that vswitch made the address that the user has given it.
async fn readdress(record: &PortRecord, target: &Target, mac: [u8; 6]) -> Result<()> {
    if record.flags & record_flags::CREATED_VETH == 0 {
        return Ok(());
    }
    let Some((netns, ifindex)) = &target.peer else {
        bail!(r#""{}": its far end cannot be reached from here: set its address there"#, target.link.ifname);
    };
    netns.run_async_in(async || {
        let netlink = Netlink::open()?;
        netlink.set_mac(&netlink.get_index(*ifindex).await?, &mac).await
    })?
}

/// Removes entries from the FDB, and from the uplinks' filters.
pub(crate) async fn release(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    which: impl Fn(FdbKey, FdbEntry) -> bool,
) -> Result<()> {
    let all = dataplane.maps.fdb.all()?;
    let gone: Vec<_> = all.into_iter().filter(|(key, entry)| which(*key, *entry)).collect();
    let filtered: Vec<_> =
        gone.iter().filter(|(_, entry)| entry.has(fdb_flags::FILTERED)).map(|(key, _)| key.mac).collect();
    if !filtered.is_empty() {
        uplink::forget(dataplane, netlink, &filtered).await?;
    }
    dataplane.maps.fdb.del(gone.into_iter().map(|(key, _)| key)).map(|_| ())
}

/// Binds an address to a port for good: it is known before its first frame, and does not move.
pub(crate) fn bind(dataplane: &mut Dataplane, mac: MacAddr, slot: u16, also: u8) -> Result<()> {
    let flags = fdb_flags::STATIC | fdb_flags::STICKY | also;
    let there = dataplane.maps.fdb.get(key(mac))?;
    // One that is bound already may be in the uplinks' filters, and must not forget it.
    if there.is_some_and(|entry| entry.slot() == slot && entry.flags() & !fdb_flags::FILTERED == flags) {
        return Ok(());
    }
    dataplane.maps.fdb_set(key(mac), FdbEntry::new(slot, flags, dataplane.now()))
}

/// Enters the addresses that follow from the interface: an uplink's own is the host's, and that of a far end which
/// vswitch made, `peer`, is known.
pub(crate) fn bind_own(
    dataplane: &mut Dataplane,
    slot: u16,
    role: Role,
    record: &PortRecord,
    link: &Link,
    peer: Option<MacAddr>,
) -> Result<()> {
    if role == Role::Uplink {
        let mac = MacAddr(link.mac);
        unclaimed(dataplane, mac, Some(slot)).with_context(|| format!(r#""{}""#, link.ifname))?;
        return dataplane.maps.fdb_set(key(mac), FdbEntry::new(slot, fdb_flags::LOCAL, dataplane.now()));
    }
    match peer {
        Some(mac) if record.flags & record_flags::CREATED_VETH != 0 && record.first_mac == [0; 6] => {
            unclaimed(dataplane, mac, Some(slot))
                .with_context(|| format!(r#""{}": its far end"#, link.ifname))?;
            bind(dataplane, mac, slot, fdb_flags::DERIVED)
        }
        Some(_) | None => Ok(()),
    }
}

/// Fails if an address is bound to the host or to another port than `slot`.
pub(crate) fn unclaimed(dataplane: &Dataplane, mac: MacAddr, slot: Option<u16>) -> Result<()> {
    let Some(entry) = dataplane.maps.fdb.get(key(mac))? else { return Ok(()) };
    let owner = dataplane.member_at(entry.slot())?.ifname();
    match entry_kind(entry) {
        EntryKind::Learned => Ok(()),
        EntryKind::Static | EntryKind::Known | EntryKind::Derived if Some(entry.slot()) == slot => Ok(()),
        EntryKind::Local if Some(entry.slot()) == slot => Ok(()),
        EntryKind::Local => bail!("address {mac}: is the host's own, of uplink {owner}: choose another"),
        EntryKind::Static | EntryKind::Known | EntryKind::Derived => {
            bail!("address {mac}: belongs to port {owner}: choose another, or take it away there first")
        }
    }
}

/// Fails if an entry is not the user's to change by `fdb`, or by the `[[fdb]]` of a file.
pub(crate) fn changeable(key: FdbKey, entry: FdbEntry) -> Result<()> {
    let mac = key.mac;
    match entry_kind(entry) {
        EntryKind::Learned | EntryKind::Static => Ok(()),
        EntryKind::Local => {
            bail!("fdb {mac}: is the host's own address: it stays while the uplink is a port")
        }
        EntryKind::Known | EntryKind::Derived => {
            bail!("fdb {mac}: is a port's known address: change the port (vswitch port set IF --mac ...)")
        }
    }
}
