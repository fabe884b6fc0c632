//! Who reflects what stations in mode vepa say to each other? A switch behind the uplink, whose only port has hairpin on.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use rtnetlink::{
    LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoVeth},
};

use super::{Contestant, kernel};
use crate::lab::{Lab, Room, gro_on, ifindex, port};
use vswitch::{
    config::{Datapath, Flags, PortConfig, SwitchConfig},
    control::{self, Scope},
};
use vswitch_ebpf::abi::port_flags;

/// The number of the cable to it, beyond those of the stations: both ends are called by it.
pub(super) const TRUNK: u32 = 2;

/// A switch that reflects, until it is dropped.
pub(super) struct Adjacent {
    room: Room,
    /// The switch, if it is ours.
    switch: Option<Scope>,
}

impl Adjacent {
    /// A Linux bridge, unless the contestant is of ours.
    pub(super) fn new(lab: &Lab, contestant: Contestant) -> Result<Self> {
        // Named as a lab's switch: so the guard finds it.
        let name = format!("{}r", lab.name);
        let netns = format!("{name}-s");
        let mut adjacent = Self { room: Room::new(&netns)?, switch: None };
        cable(lab, &adjacent.room)?;
        if contestant.is_vswitch() {
            let datapath = if contestant == Contestant::VswitchXdp { Datapath::Xdp } else { Datapath::Tc };
            let flags = Flags::default().with(port_flags::HAIRPIN, true);
            let ports = vec![PortConfig { flags, datapath, ..PortConfig::new(&port(TRUNK)) }];
            let config = SwitchConfig { ports, ..SwitchConfig::new(&name) };
            let scope = adjacent.switch.insert(Scope { switch: name, netns: Some(netns) });
            adjacent.room.netns.run_async_in(|| control::up(scope, config))??;
        } else {
            kernel::bridge_of(&adjacent.room, TRUNK..TRUNK + 1, |_| true, false)?;
        }
        Ok(adjacent)
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }
}

impl Drop for Adjacent {
    fn drop(&mut self) {
        if let Some(scope) = &self.switch {
            // The guard complains of what is left.
            let _down = self.room.netns.run_async_in(|| control::down(scope));
        }
    }
}

/// From the switch's room to the adjacent one's.
fn cable(lab: &Lab, room: &Room) -> Result<()> {
    lab.switch.links(|handle| async move {
        let peer = LinkUnspec::new_with_name(&port(TRUNK))
            .address(vec![0x02, 0x50, 0, 2, 0, 1])
            .setns_by_fd(room.netns.as_fd().as_raw_fd())
            .build();
        let near = LinkVeth::new(&port(TRUNK), &port(TRUNK))
            .index(ifindex(TRUNK))
            .address(vec![0x02, 0x50, 0, 2, 0, 0])
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        handle.link().add(near.build()).execute().await.context("create the cable to the adjacent switch")
    })?;
    room.links(|handle| async move {
        let up = LinkUnspec::new_with_name(&port(TRUNK)).up().build();
        handle.link().set(up).execute().await.context("set the adjacent switch's port up")
    })?;
    for end in [&lab.switch, room] {
        end.netns.run_in(|| gro_on([port(TRUNK)].into_iter()))??;
    }
    Ok(())
}
