//! How does an interface become a port, and how does it stop being one?
//!
//! First the record, so that a crash leaves word of what was changed; then tables; then links, when frames begin to flow.

use anyhow::{Context as _, Result, anyhow, bail};
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, Port, PortRecord, fdb_flags, port_flags, record_flags},
    frame::MacAddr,
};

use crate::{
    config::{Datapath, FarEnd, PortConfig, Role},
    dataplane::{
        Access, Dataplane, links,
        links::Hook,
        pins::Pins,
        state::{self, EntryKind, Member, entry_kind, key},
    },
    net::{Link, LinkKind, Netlink, Netns, Target, Undo, Veth, readiness},
    uplink,
};

/// Adds a port, making its interface if it is one that vswitch makes. Nothing is left if it fails.
///
/// Returns what the user should know.
pub(crate) async fn add(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    config: &PortConfig,
) -> Result<Vec<String>> {
    possible(&dataplane.name, &own_programs(dataplane), netlink, config).await?;
    for mac in &config.mac {
        unclaimed(dataplane, *mac, None)?;
    }
    let slot = dataplane.free_slot()?;
    let record = state::new_record(config)?;
    // Before the interface: it has no other mark by which `down` would know after a crash that it is ours to delete.
    dataplane.maps.set_record(slot, record)?;
    if let Err(err) = make_interface(netlink, &dataplane.name, config).await {
        dataplane.maps.set_record(slot, bytemuck::Zeroable::zeroed())?;
        return Err(err);
    }
    let port = Port { flags: state::flags(config), mode: state::mode_number(config.mode), ..Port::default() };
    let added = async {
        dataplane.maps.clear_counters(slot)?;
        dataplane.maps.set_port(slot, port)?;
        for mac in &config.mac {
            bind(dataplane, *mac, slot, 0)?;
        }
        dataplane.set_sources(slot, &config.source)?;
        let member = dataplane.member(&config.ifname)?;
        attach(dataplane, netlink, &member).await
    }
    .await;
    match added {
        Ok(notes) => Ok(notes),
        Err(err) => {
            let member = Member { slot, record: dataplane.record(slot).unwrap_or(record), port };
            let undone = remove(dataplane, netlink, &member).await;
            Err(with_failed_undo(err, undone))
        }
    }
}

/// Fails if an interface cannot become a port of the switch `name`, as far as that can be told without touching it.
/// `own` are the switch's XDP programs.
pub(crate) async fn possible(name: &str, own: &[u32], netlink: &Netlink, config: &PortConfig) -> Result<()> {
    let ifname = &config.ifname;
    match &config.far_end {
        FarEnd::Existing => {
            not_of_another_switch(name, ifname)?;
            let (facts, _) = netlink.facts(ifname).await?;
            readiness(&facts, config.datapath, config.role, own)?;
        }
        FarEnd::Veth { netns, .. } => {
            vacant(netlink, ifname).await?;
            Netns::open(netns).with_context(|| format!(r#""{ifname}""#))?;
        }
        FarEnd::Tap => vacant(netlink, ifname).await?,
    }
    Ok(())
}

/// The XDP programs by which the switch's own ports are told from others'.
pub(crate) fn own_programs(dataplane: &Dataplane) -> Vec<u32> {
    dataplane.xdp_program_id().into_iter().collect()
}

async fn vacant(netlink: &Netlink, ifname: &str) -> Result<()> {
    if netlink.find(ifname).await?.is_some() {
        bail!(
            r#""{ifname}": an interface of that name exists already: choose another name, or leave out --netns and --tap to add that one"#
        );
    }
    Ok(())
}

/// The failure, and that it left something behind if it did.
fn with_failed_undo(err: anyhow::Error, undone: Result<()>) -> anyhow::Error {
    match undone {
        Ok(()) => err,
        Err(failure) => anyhow!("{err:#} (and taking it back failed: {failure:#}; see `vswitch port show`)"),
    }
}

/// Removes a port, and its interface if vswitch made it.
pub(crate) async fn remove(dataplane: &mut Dataplane, netlink: &Netlink, member: &Member) -> Result<()> {
    detach(dataplane, netlink, member).await?;
    let slot = member.slot;
    let all = dataplane.maps.fdb_all()?;
    let keys: Vec<_> =
        all.into_iter().filter(|(_, entry)| entry.slot() == slot).map(|(key, _)| key).collect();
    unbind(dataplane, netlink, &keys).await?;
    dataplane.set_sources(slot, &[])?;
    delete_created(netlink, &member.record).await?;
    dataplane.maps.set_port(slot, Port::default())?;
    dataplane.maps.set_record(slot, bytemuck::Zeroable::zeroed())?;
    dataplane.refresh_settings()?;
    uplink::refresh(dataplane, netlink).await
}

/// Removes what a port has outside the maps, which may be damaged: programs, what made it ready, its interface if
/// vswitch made it.
pub(crate) async fn salvage(pins: &Pins, netlink: &Netlink, slot: u16, record: &PortRecord) -> Result<()> {
    let there = unhook(pins, netlink, slot, record).await?;
    revert(netlink, there, record).await?;
    delete_created(netlink, record).await
}

/// What an interface that vswitch made for a switch says of itself.
fn mark(switch: &str) -> String {
    format!("vswitch {switch}")
}

/// Deletes the interfaces that were made for a switch which has forgotten them.
pub(crate) async fn delete_marked(netlink: &Netlink, switch: &str) -> Result<()> {
    let mark = mark(switch);
    for link in netlink.list().await? {
        if matches!(link.kind, LinkKind::Veth | LinkKind::Tap) && link.alias.as_ref() == Some(&mark) {
            netlink.delete(&link).await?;
        }
    }
    Ok(())
}

/// Deletes a port's interface if vswitch made it, and if it is still of that kind.
async fn delete_created(netlink: &Netlink, record: &PortRecord) -> Result<()> {
    let kind = match record.flags {
        flags if flags & record_flags::CREATED_VETH != 0 => LinkKind::Veth,
        flags if flags & record_flags::CREATED_TAP != 0 => LinkKind::Tap,
        _ => return Ok(()),
    };
    match netlink.find(&state::text(&record.ifname)).await? {
        Some(link) if link.kind == kind => netlink.delete(&link).await,
        Some(_) | None => Ok(()),
    }
}

/// Takes the programs off a port's interface. Returns it, if it is still there.
async fn unhook(pins: &Pins, netlink: &Netlink, slot: u16, record: &PortRecord) -> Result<Option<Link>> {
    let there = match record.ifindex {
        0 => None,
        ifindex => netlink.find_index(ifindex).await?,
    };
    let ifname = there.as_ref().map(|link| link.ifname.as_str());
    for hook in [Hook::Xdp, Hook::In, Hook::Out] {
        links::detach(pins, slot, ifname, hook)?;
    }
    Ok(there)
}

/// Undoes what made a port's interface ready.
async fn revert(netlink: &Netlink, there: Option<Link>, record: &PortRecord) -> Result<()> {
    let Some(link) = there else { return Ok(()) };
    let target = Target::of(netlink, link).await?;
    Undo(record.undo).revert(netlink, &target).await
}

/// Changes a live port in place, from what it is to what it shall be. It stays as it is if that fails.
pub(crate) async fn change(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    from: &PortConfig,
    to: &PortConfig,
) -> Result<()> {
    match set(dataplane, netlink, to).await {
        Ok(()) => Ok(()),
        // Such as an FDB that is full of what was learned meanwhile.
        Err(err) => Err(with_failed_undo(err, set(dataplane, netlink, from).await)),
    }
}

async fn set(dataplane: &mut Dataplane, netlink: &Netlink, to: &PortConfig) -> Result<()> {
    let member = dataplane.member(&to.ifname)?;
    for mac in &to.mac {
        unclaimed(dataplane, *mac, Some(member.slot))?;
    }
    let first_mac = to.mac.first().map_or([0; 6], |mac| mac.0);
    let gone: Vec<_> = dataplane
        .maps
        .fdb_all()?
        .into_iter()
        .filter(|(key, entry)| {
            let kind = entry_kind(*entry);
            let replaced = kind == EntryKind::Derived && first_mac != [0; 6];
            entry.slot() == member.slot
                && (replaced || kind == EntryKind::Known && !to.mac.contains(&key.mac))
        })
        .map(|(key, _)| key)
        .collect();
    unbind(dataplane, netlink, &gone).await?;
    if first_mac != member.record.first_mac {
        readdress(netlink, &member, first_mac).await?;
    }
    for mac in &to.mac {
        bind(dataplane, *mac, member.slot, 0)?;
    }
    dataplane.maps.set_record(member.slot, PortRecord { first_mac, ..member.record })?;
    let derived = member.port.flags & (port_flags::XDP | port_flags::PEER | port_flags::DOWN);
    let port = Port { flags: state::flags(to) | derived, mode: state::mode_number(to.mode), ..member.port };
    dataplane.maps.set_port(member.slot, port)?;
    dataplane.set_sources(member.slot, &to.source)?;
    let member = dataplane.member(&to.ifname)?;
    if member.is_present() && first_mac == [0; 6] {
        let link = netlink.get_index(member.record.ifindex).await?;
        let target = Target::of(netlink, link.clone()).await?;
        let role = if member.is_uplink() { Role::Uplink } else { Role::Access };
        bind_own_addresses(dataplane, member.slot, role, &member.record, &link, &target).await?;
    }
    dataplane.refresh_settings()?;
    uplink::refresh(dataplane, netlink).await
}

/// Gives the far end that vswitch made the address that the user has given it.
async fn readdress(netlink: &Netlink, member: &Member, mac: [u8; 6]) -> Result<()> {
    if mac == [0; 6] || !member.is_present() || member.record.flags & record_flags::CREATED_VETH == 0 {
        return Ok(());
    }
    let link = netlink.get_index(member.record.ifindex).await?;
    let Some((netns, ifindex)) = Target::of(netlink, link).await?.peer else {
        bail!(r#""{}": its far end cannot be reached from here: set its address there"#, member.ifname());
    };
    netns.run_async_in(async || {
        let netlink = Netlink::open()?;
        netlink.set_mac(&netlink.get_index(ifindex).await?, &mac).await
    })?
}

/// Removes entries from the FDB, and from the uplinks' filters.
async fn unbind(dataplane: &mut Dataplane, netlink: &Netlink, keys: &[FdbKey]) -> Result<()> {
    let macs: Vec<_> = keys.iter().map(|key| key.mac).collect();
    uplink::forget(dataplane, netlink, &macs).await?;
    for key in keys {
        dataplane.maps.fdb_del(*key)?;
    }
    Ok(())
}

/// Makes the port's interface ready and attaches the programs to it. If it fails, the port is without interface.
pub(crate) async fn attach(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    member: &Member,
) -> Result<Vec<String>> {
    match try_attach(dataplane, netlink, member).await {
        Ok(notes) => Ok(notes),
        Err(err) => {
            let undone = match dataplane.member(&member.ifname()) {
                Ok(member) => detach(dataplane, netlink, &member).await,
                Err(unreadable) => Err(unreadable),
            };
            Err(with_failed_undo(err, undone))
        }
    }
}

async fn try_attach(dataplane: &mut Dataplane, netlink: &Netlink, member: &Member) -> Result<Vec<String>> {
    let ifname = member.ifname();
    let slot = member.slot;
    let role = if member.is_uplink() { Role::Uplink } else { Role::Access };
    let wanted = state::datapath(member.record.datapath);
    let (facts, target) = netlink.facts(&ifname).await?;
    let ready = readiness(&facts, wanted, role, &own_programs(dataplane))?;

    let mut undo = Undo(member.record.undo);
    for action in &ready.actions {
        undo.insert(*action);
    }
    let link = &facts.link;
    let record = PortRecord {
        undo: undo.0,
        ifindex: link.ifindex,
        active: state::datapath_number(Some(ready.datapath)),
        ..member.record
    };
    dataplane.maps.set_record(slot, record)?;
    for action in &ready.actions {
        action.apply(netlink, &target).await?;
    }

    bind_own_addresses(dataplane, slot, role, &member.record, link, &target).await?;
    let mut flags = member.port.flags & !(port_flags::XDP | port_flags::PEER);
    if ready.datapath == Datapath::Xdp {
        dataplane.maps.set_devmap(slot, link.ifindex)?;
        flags |= port_flags::XDP;
    }
    if peer_is_elsewhere(link) {
        flags |= port_flags::PEER;
    }
    dataplane.maps.set_port(slot, Port { ifindex: link.ifindex, mtu: link.mtu, flags, ..member.port })?;
    dataplane.maps.set_slot(link.ifindex, slot)?;
    dataplane.refresh_settings()?;

    let mut notes: Vec<_> = ready.notes.into_iter().map(|note| format!("{ifname}: {note}")).collect();
    let xdp = match ready.datapath {
        Datapath::Xdp => Some(Hook::Xdp),
        Datapath::XdpGeneric => Some(Hook::XdpGeneric),
        Datapath::Tc | Datapath::Auto => None,
    };
    links::attach(&dataplane.pins, slot, &ifname, Hook::In)?;
    if role == Role::Uplink {
        links::attach(&dataplane.pins, slot, &ifname, Hook::Out)?;
    }
    if let Some(hook) = xdp
        && let Err(err) = links::attach(&dataplane.pins, slot, &ifname, hook)
    {
        if wanted != Datapath::Auto {
            return Err(err);
        }
        let member = dataplane.member(&ifname)?;
        let port = Port { flags: member.port.flags & !port_flags::XDP, ..member.port };
        dataplane.maps.set_port(slot, port)?;
        dataplane.maps.clear_devmap(slot)?;
        let active = state::datapath_number(Some(Datapath::Tc));
        dataplane.maps.set_record(slot, PortRecord { active, ..member.record })?;
        notes.push(format!("{ifname}: tc, for XDP did not attach ({err:#})"));
    }
    uplink::refresh(dataplane, netlink).await?;
    Ok(notes)
}

/// Takes the programs off the port's interface and undoes what made it ready. The port remains, without interface.
pub(crate) async fn detach(dataplane: &mut Dataplane, netlink: &Netlink, member: &Member) -> Result<()> {
    let slot = member.slot;
    let there = unhook(&dataplane.pins, netlink, slot, &member.record).await?;
    dataplane.maps.set_port(slot, Port { ifindex: 0, ..member.port })?;
    dataplane.maps.clear_devmap(slot)?;
    if member.record.ifindex != 0 {
        dataplane.maps.clear_slot(member.record.ifindex)?;
    }
    let gone: Vec<_> = dataplane
        .maps
        .fdb_all()?
        .into_iter()
        .filter(|(_, entry)| {
            let kept = matches!(entry_kind(*entry), EntryKind::Static | EntryKind::Known);
            entry.slot() == slot && !kept
        })
        .map(|(key, _)| key)
        .collect();
    unbind(dataplane, netlink, &gone).await?;
    if let (Some(link), true) = (&there, member.is_uplink()) {
        uplink::release(dataplane, netlink, link).await?;
    }
    revert(netlink, there, &member.record).await?;
    let record = PortRecord { undo: 0, ifindex: 0, active: 0, ..member.record };
    dataplane.maps.set_record(slot, record)?;
    dataplane.refresh_settings()
}

/// Whether frames may be handed to the far end directly: only if it is in another namespace, the kernel drops them else.
pub(crate) fn peer_is_elsewhere(link: &Link) -> bool {
    link.kind == LinkKind::Veth && link.peer.is_some_and(|peer| peer.netnsid.is_some())
}

/// Binds an address to a port for good: it is known before its first frame, and does not move.
fn bind(dataplane: &mut Dataplane, mac: MacAddr, slot: u16, also: u8) -> Result<()> {
    let flags = fdb_flags::STATIC | fdb_flags::STICKY | also;
    let there = dataplane.maps.fdb_get(key(mac))?;
    // One that is bound already may be in the uplinks' filters, and must not forget it.
    if there.is_some_and(|entry| entry.slot() == slot && entry.flags() & !fdb_flags::FILTERED == flags) {
        return Ok(());
    }
    dataplane.maps.fdb_set(key(mac), FdbEntry::new(slot, flags, Dataplane::now()))
}

/// Enters the addresses that follow from the interface: an uplink's own is the host's, and that of a far end which
/// vswitch made is known.
async fn bind_own_addresses(
    dataplane: &mut Dataplane,
    slot: u16,
    role: Role,
    record: &PortRecord,
    link: &Link,
    target: &Target,
) -> Result<()> {
    if role == Role::Uplink {
        let mac = MacAddr(link.mac);
        unclaimed(dataplane, mac, Some(slot)).with_context(|| format!(r#""{}""#, link.ifname))?;
        return dataplane.maps.fdb_set(key(mac), FdbEntry::new(slot, fdb_flags::LOCAL, Dataplane::now()));
    }
    if record.flags & record_flags::CREATED_VETH == 0 || record.first_mac != [0; 6] {
        return Ok(());
    }
    let Some((netns, ifindex)) = &target.peer else { return Ok(()) };
    let peer = netns.run_async_in(async || Netlink::open()?.get_index(*ifindex).await)??;
    bind(dataplane, MacAddr(peer.mac), slot, fdb_flags::DERIVED)
}

/// Fails if an address is bound to the host or to another port than `slot`.
fn unclaimed(dataplane: &Dataplane, mac: MacAddr, slot: Option<u16>) -> Result<()> {
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

/// Makes the interface of a port whose far end says so, up at both ends.
async fn make_interface(netlink: &Netlink, switch: &str, config: &PortConfig) -> Result<()> {
    match &config.far_end {
        FarEnd::Existing => Ok(()),
        FarEnd::Tap => {
            let link = netlink.add_tap(&config.ifname).await?;
            let marked = netlink.set_alias(&link, &mark(switch)).await;
            if marked.is_err() {
                let _deleted = netlink.delete(&link).await;
            }
            marked
        }
        FarEnd::Veth { netns, peer } => {
            let inside = Netns::open(netns)?;
            let link = netlink
                .add_veth(&Veth {
                    ifname: &config.ifname,
                    peer_ifname: peer,
                    peer_netns: Some(std::os::fd::AsFd::as_fd(&inside)),
                    peer_mac: config.mac.first().map(|mac| mac.0),
                    ..Veth::default()
                })
                .await?;
            let up = async {
                netlink.set_alias(&link, &mark(switch)).await?;
                inside.run_async_in(async || {
                    let netlink = Netlink::open()?;
                    netlink.set_up(&netlink.get(peer).await?).await
                })??;
                netlink.set_up(&link).await
            };
            let done: Result<()> = up.await;
            if done.is_err() {
                let _deleted = netlink.delete(&link).await;
            }
            done
        }
    }
}

fn not_of_another_switch(this: &str, ifname: &str) -> Result<()> {
    for name in Pins::switches() {
        if name == this {
            continue;
        }
        // One that cannot be opened is half made, another build's, or in another namespace.
        let Ok(other) = Dataplane::open_any(&name, Access::Read) else { continue };
        if other.member(ifname).is_ok() {
            bail!(
                r#""{ifname}": already a port of switch "{name}": remove it there first (vswitch -s {name} port del {ifname})"#
            );
        }
    }
    Ok(())
}
