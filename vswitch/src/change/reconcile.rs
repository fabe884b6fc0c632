//! How does a switch become what it shall be? The one way for every command, for recovery and for the controller: ports that
//! are wanted no longer part, those that are wanted and are not there join, and the tables follow from the intent and from what
//! the interfaces are. Compared is with what is there; what is as it should be is not touched.

use anyhow::{Result, bail};
use vswitch_ebpf::{
    abi::{FdbEntry, FdbKey, MAX_PORTS, fdb_flags, port_flags},
    frame::MacAddr,
};

use super::{
    compile::{Observed, Seen, compile},
    diff::diff,
    lifecycle, nics,
    work::{Known, Work, locals, look, seen, stays},
};
use crate::{
    config::{PortConfig, Role, SwitchConfig},
    dataplane::{Dataplane, state::Member},
    failure::with_undo,
    net::{Link, Netlink},
};

/// So many ports join at a time: the tables are written once for all of them.
const TOGETHER: usize = 32;

/// What happens if a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Nothing more is done: the caller takes back what was.
    Whole,
    /// The others are done all the same: there is nobody after this to do them. A port whose interface cannot be attached to
    /// stays without.
    AsFarAsPossible,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What the user should know.
    pub(super) notes: Vec<String>,
    /// What interfaces are not again that they were before: there is no use in trying once more.
    pub(super) left: Vec<String>,
    /// What failed and may be tried again.
    pub(super) failed: Vec<String>,
}

/// Makes the switch, which has been `from`, what `to` says. With `again`, it is also looked at what was done before.
pub(super) async fn reconcile(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    change: [&SwitchConfig; 2],
    manner: Manner,
    again: bool,
) -> Result<Outcome> {
    let known = Known::read(dataplane)?;
    reconcile_known(dataplane, known, netlink, change, manner, again).await
}

/// As [`reconcile`], of a switch of which is known what it is.
pub(super) async fn reconcile_known(
    dataplane: &mut Dataplane,
    Known { image, members }: Known,
    netlink: &Netlink,
    [from, to]: [&SwitchConfig; 2],
    manner: Manner,
    again: bool,
) -> Result<Outcome> {
    let mut work = Work::new(dataplane, netlink, to, manner, image);
    work.forgive_moves(from, &members);
    let (kept, parting): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| stays(member, &work.wanted));
    work.observe(from, &kept, again).await?;
    if !parting.is_empty() {
        work.part(&parting).await?;
    }
    work.readdress(&kept).await?;
    let here = &work.observed.ports;
    let coming = to.ports.iter().filter(|port| !here.contains_key(&port.ifname));
    let mut coming: Vec<&PortConfig> = coming.collect();
    coming.sort_by_key(|port| port.role != Role::Uplink);
    for group in coming.chunks(TOGETHER) {
        work.join(group).await?;
    }
    // Those that came have brought it in line.
    if coming.is_empty() || again || manner == Manner::AsFarAsPossible {
        let nics = work.tables()?;
        let settled = nics::settle(work.dataplane, netlink, &nics, again).await;
        work.check(settled)?;
    }
    Ok(work.outcome)
}

/// Fails if the switch cannot be what `to` says, as far as that can be told without touching anything. Returns what it is.
pub(super) async fn possible(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    [from, to]: [&SwitchConfig; 2],
) -> Result<Known> {
    let own = lifecycle::own_programs(dataplane);
    let Known { image, members } = Known::read(dataplane)?;
    let mut work = Work::new(dataplane, netlink, to, Manner::Whole, image);
    let kept = members.iter().filter(|member| stays(member, &work.wanted)).cloned();
    let kept: Vec<_> = kept.collect();
    work.observe(from, &kept, false).await?;
    let Work { mut image, observed, .. } = work;
    can_be(observed, &own, netlink, to).await?;
    // To look at interfaces takes a while, and frames teach.
    dataplane.read_fdb(&mut image)?;
    Ok(Known { image, members })
}

/// Fails if no switch can be what `to` says.
pub(super) async fn possible_anew(netlink: &Netlink, to: &SwitchConfig) -> Result<()> {
    can_be(Observed::default(), &[], netlink, to).await
}

/// Fails if the ports that are not `observed` cannot come. `own` are the switch's XDP programs.
async fn can_be(mut observed: Observed, own: &[u32], netlink: &Netlink, to: &SwitchConfig) -> Result<()> {
    let coming: Vec<_> = to.ports.iter().filter(|port| !observed.ports.contains_key(&port.ifname)).collect();
    if to.ports.len() >= MAX_PORTS as usize {
        bail!(r#"switch "{}": all {} ports are in use"#, to.name, MAX_PORTS - 1);
    }
    // Slots that no port has.
    for (slot, port) in (MAX_PORTS as u16..).zip(coming) {
        let link = lifecycle::possible(&to.name, own, netlink, port).await?;
        let mut seen = Seen { slot, ..Seen::default() };
        if let Some(link) = &link {
            seen.ifindex = link.ifindex;
            look(&mut seen, link);
        }
        observed.ports.insert(port.ifname.clone(), seen);
    }
    compile(to, &observed)?;
    Ok(())
}

/// A port's interface is gone, or is somebody else's: the port stays, without. With `keep`, the interface lives on elsewhere.
pub(crate) async fn detach(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    intent: &SwitchConfig,
    member: &Member,
    keep: bool,
) -> Result<Vec<String>> {
    let mut work = Work::follow(dataplane, netlink, intent).await?;
    work.detach(member, keep).await?;
    let nics = work.tables()?;
    nics::settle(work.dataplane, netlink, &nics, false).await?;
    Ok(work.outcome.left)
}

/// An interface of a port's name is there: the port's. If that fails, the port stays without. Returns what the user should
/// know.
pub(crate) async fn attach(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    intent: &SwitchConfig,
    member: &Member,
) -> Result<Vec<String>> {
    let mut work = Work::follow(dataplane, netlink, intent).await?;
    let ready = lifecycle::ready(work.dataplane, netlink, member).await;
    let attached = match ready {
        Ok(ready) => work.attach(vec![ready]).await,
        Err(err) => Err(err),
    };
    match attached {
        Ok(()) => Ok(work.outcome.notes),
        Err(err) => {
            let undone = async {
                let member = work.dataplane.member_at(member.slot)?;
                work.detach(&member, false).await?;
                let nics = work.tables()?;
                nics::settle(work.dataplane, netlink, &nics, false).await?;
                Ok(work.outcome.left)
            };
            Err(with_undo(err, undone.await))
        }
    }
}

/// The interfaces of ports may have changed: tables and NICs follow. With `again`, as [`reconcile`]'s.
pub(crate) async fn follow(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    intent: &SwitchConfig,
    links: &[Link],
    again: bool,
) -> Result<()> {
    let mut work = Work::follow(dataplane, netlink, intent).await?;
    work.look(links)?;
    let nics = work.tables()?;
    nics::settle(work.dataplane, netlink, &nics, again).await
}

/// Makes the tables of a switch whose ports are as `members` say, wherever that is known from.
pub(crate) fn make_tables(
    dataplane: &mut Dataplane,
    intent: &SwitchConfig,
    members: &[Member],
) -> Result<()> {
    let image = dataplane.image()?;
    let mut observed = Observed { clock: dataplane.clock(), ..Observed::default() };
    let locals = locals(&image);
    observed.ports.extend(members.iter().map(|member| (member.ifname(), seen(member, &locals))));
    let target = compile(intent, &observed)?;
    diff(&image, &target).iter().try_for_each(|write| dataplane.write(write))
}

/// Whether the tables have something else of an interface than there is to see now.
pub(crate) fn is_changed(dataplane: &Dataplane, member: &Member, link: &Link) -> Result<bool> {
    let direct = member.port.flags & port_flags::PEER != 0;
    let own = FdbKey { mac: MacAddr(link.mac), vlan: 0 };
    let is_local = |entry: FdbEntry| entry.slot() == member.slot && entry.flags() == fdb_flags::LOCAL;
    Ok(member.port.mtu != link.mtu
        || direct != lifecycle::peer_is_elsewhere(link)
        || member.is_uplink() && !dataplane.fdb_entry(own)?.is_some_and(is_local))
}
