//! What may change of an interface while it is a port, and is no table's? Its name, and whether frames can leave by it.

use anyhow::Result;

use crate::{
    change::intent,
    config::SwitchConfig,
    dataplane::{
        Dataplane,
        ledger::PortRecord,
        state::{Member, bytes},
    },
    net::Link,
};

/// Follows what has changed, if anything has. Returns the port as it is then.
pub(super) fn follow(
    dataplane: &mut Dataplane,
    config: &mut SwitchConfig,
    member: &Member,
    link: &Link,
) -> Result<Member> {
    // Not an uplink: the host behind it is there without the wire.
    let dead = !link.up || !link.carrier;
    dataplane.set_down(member.slot, dead && !member.is_uplink());
    if link.ifname != member.ifname() {
        rename(dataplane, config, member, link)?;
    }
    dataplane.member_at(member.slot)
}

/// The port is called as its interface, unless another port is or nobody can be.
fn rename(dataplane: &mut Dataplane, config: &mut SwitchConfig, member: &Member, link: &Link) -> Result<()> {
    let (before, after) = (member.ifname(), &link.ifname);
    let mut renamed = config.clone();
    renamed.rename(&before, after);
    if dataplane.is_port(after)? || renamed.check().is_err() {
        return Ok(());
    }
    eprintln!(r#""{before}": is now called "{after}""#);
    intent::want(&dataplane.pins, &renamed)?;
    // Not the record of the round's beginning: another port's turn may have made its uplink promiscuous since.
    let record = PortRecord { ifname: bytes(after)?, ..dataplane.ledger.record(member.slot)? };
    dataplane.ledger.set_record(member.slot, record)?;
    intent::reached(&dataplane.pins)?;
    *config = renamed;
    Ok(())
}

/// Takes the mark off the ports that are down: nobody stays to do it when they come up.
pub(super) fn revive(dataplane: &Dataplane) -> Result<()> {
    // No command says that an interface is down: there is no reason to wait for whoever has the lock.
    dataplane.members()?.iter().for_each(|member| dataplane.set_down(member.slot, false));
    Ok(())
}
