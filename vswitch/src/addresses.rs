//! Which addresses are bound to a port, by the user or by its interface, and whose is one already?

use anyhow::{Context as _, Result, bail};
use vswitch_ebpf::{
    abi::{FdbEntry, PortRecord, fdb_flags, record_flags},
    frame::MacAddr,
};

use crate::{
    config::Role,
    dataplane::{
        Dataplane,
        state::{EntryKind, entry_kind, key},
    },
    net::{Link, Netlink, Target},
};

/// Replaces the addresses that are bound to a port. Those that go make room for those that come.
pub(crate) fn rebind(dataplane: &mut Dataplane, slot: u16, from: &[MacAddr], to: &[MacAddr]) -> Result<()> {
    for mac in from.iter().filter(|mac| !to.contains(mac)) {
        dataplane.maps.fdb_del(key(*mac))?;
    }
    to.iter().try_for_each(|mac| bind(dataplane, *mac, slot))
}

/// Binds an address to a port for good: it is known before its first frame, and does not move.
pub(crate) fn bind(dataplane: &mut Dataplane, mac: MacAddr, slot: u16) -> Result<()> {
    let flags = fdb_flags::STATIC | fdb_flags::STICKY;
    dataplane.maps.fdb_set(key(mac), FdbEntry::new(slot, flags, Dataplane::now()))
}

/// Enters the addresses that follow from the interface: an uplink's own is the host's, and that of a far end which
/// vswitch made is known.
pub(crate) async fn bind_own(
    dataplane: &mut Dataplane,
    slot: u16,
    role: Role,
    record: &PortRecord,
    link: &Link,
    target: &Target,
) -> Result<()> {
    let now = Dataplane::now();
    if role == Role::Uplink {
        let mac = MacAddr(link.mac);
        unclaimed(dataplane, mac, Some(slot)).with_context(|| format!(r#""{}""#, link.ifname))?;
        return dataplane.maps.fdb_set(key(mac), FdbEntry::new(slot, fdb_flags::LOCAL, now));
    }
    if record.flags & record_flags::CREATED_VETH == 0 || record.first_mac != [0; 6] {
        return Ok(());
    }
    let Some((netns, ifindex)) = &target.peer else { return Ok(()) };
    let peer = netns.run_async_in(async || Netlink::open()?.get_index(*ifindex).await)??;
    let flags = fdb_flags::STATIC | fdb_flags::STICKY | fdb_flags::DERIVED;
    dataplane.maps.fdb_set(key(MacAddr(peer.mac)), FdbEntry::new(slot, flags, now))
}

/// Fails if an address is bound to the host or to another port than `slot`.
pub(crate) fn unclaimed(dataplane: &Dataplane, mac: MacAddr, slot: Option<u16>) -> Result<()> {
    let Some(entry) = dataplane.maps.fdb_get(key(mac))? else { return Ok(()) };
    let owner = dataplane
        .members()?
        .into_iter()
        .find(|member| member.slot == entry.slot())
        .map(|member| member.ifname())
        .unwrap_or_default();
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
