//! How are the kernel's own switches set up, its bridge and macvlan?

use std::{
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMacVlan, LinkUnspec, LinkVeth,
    packet_route::{
        AddressFamily,
        link::{BridgeStpState, InfoBridge, MacVlanMode},
    },
};

use super::{Terms, adjacent};
use crate::lab::{self, Lab, Room, far, ifindex, index_of, port};

pub(super) fn bridge(lab: &Lab, terms: Terms) -> Result<()> {
    bridge_of(&lab.switch, 0..terms.ports, |number| terms.hairpin && number == 0, terms.private)
}

/// A bridge whose ports are the near ends of these cables.
pub(super) fn bridge_of(
    room: &Room,
    cables: Range<u32>,
    hairpin: impl Fn(u32) -> bool + Send,
    isolated: bool,
) -> Result<()> {
    room.links(|handle| async move {
        let bridge = LinkBridge::new("br0")
            .append_info_data(InfoBridge::StpState(BridgeStpState::Disabled))
            .append_info_data(InfoBridge::MulticastSnooping(false))
            .append_info_data(InfoBridge::AgeingTime(30_000))
            .address(vec![0x02, 0x50, 0, 1, 0, 0])
            .up();
        handle.link().add(bridge.build()).execute().await.context("create br0")?;
        let master = index_of(&handle, "br0").await?;
        for number in cables {
            let member = LinkUnspec::new_with_name(&port(number)).controller(master).build();
            handle.link().set(member).execute().await.with_context(|| port(number))?;
            let hairpin = hairpin(number);
            if hairpin || isolated {
                let member = index_of(&handle, &port(number)).await?;
                let options = LinkBridgePort::new(member).hairpin(hairpin).isolated(isolated);
                handle.link().set_port(options.build()).execute().await.context("set bridge port")?;
            }
        }
        Ok(())
    })
}

/// Makes the bridge forget.
pub(super) fn flush(room: &Room) -> Result<()> {
    room.links(|handle| async move {
        for number in 0..2 {
            let flush = LinkBridgePort::new(ifindex(number)).fdb_flush().build();
            handle.link().set_port(flush).execute().await.context("flush the bridge's port")?;
        }
        Ok(())
    })
}

/// How many addresses the bridge has.
pub(super) fn learned(room: &Room) -> Result<u64> {
    room.links(|handle| async move {
        let mut dump = handle.neighbours().get();
        dump.message_mut().header.family = AddressFamily::Bridge;
        let mut entries = dump.execute();
        let mut count = 0;
        while let Some(entry) = entries.next().await {
            entry.context("list the bridge's addresses")?;
            count += 1;
        }
        Ok(count)
    })
}

/// Takes the bridge away from ports that the next contestant wants.
pub(super) fn remove_bridge(room: &Room) -> Result<()> {
    room.links(|handle| async move {
        let master = index_of(&handle, "br0").await?;
        handle.link().del(master).execute().await.context("delete br0")
    })
}

/// Its children are the stations: there are no cables but the uplink's, or the one to the adjacent switch.
pub(super) fn macvlan(lab: &Lab, terms: Terms) -> Result<()> {
    if terms.uplink {
        lab.cable(0..1)?;
    } else if !terms.vepa {
        lab.switch.links(|handle| async move {
            let parent = LinkVeth::new(&port(0), "parent").index(ifindex(0)).up();
            handle.link().add(parent.build()).execute().await.context("create the parent")?;
            let up = LinkUnspec::new_with_name("parent").up().build();
            handle.link().set(up).execute().await.context("set the parent up")
        })?;
    }
    let mode = if terms.vepa { MacVlanMode::Vepa } else { MacVlanMode::Bridge };
    let parent = ifindex(if terms.vepa { adjacent::TRUNK } else { 0 });
    for number in if terms.uplink { 1..2 } else { 0..2 } {
        let room = lab.room(number);
        let fd = room.netns.as_fd().as_raw_fd();
        lab.switch.links(|handle| async move {
            let child = LinkMacVlan::new(&far(number), parent, mode)
                .address(lab::mac(number).to_vec())
                .setns_by_fd(fd);
            handle.link().add(child.build()).execute().await.context("create a macvlan")
        })?;
        room.links(|handle| async move { lab::set_up(&handle, number).await })?;
    }
    Ok(())
}
