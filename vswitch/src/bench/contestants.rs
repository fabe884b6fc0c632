//! Who is compared, and how is each set up? On the same terms: the same cables, offloads, ageing; nothing snoops or spans.

use std::{
    fmt,
    os::fd::{AsFd as _, AsRawFd as _},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use futures_util::StreamExt as _;
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMacVlan, LinkUnspec, LinkVeth,
    packet_route::{
        AddressFamily,
        link::{BridgeStpState, InfoBridge, MacVlanMode},
    },
};

use super::{
    generator::{self, attach_tc, attach_xdp},
    lab::{self, Lab, far, ifindex, index_of, port},
};
use crate::{
    config::{Datapath, Mode, PortConfig, Role, SwitchConfig},
    control::{self, Scope},
    view::StatsView,
};

/// One of those who forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contestant {
    VswitchTc,
    VswitchXdp,
    Bridge,
    Macvlan,
    /// Bare `bpf_redirect` in tc.
    FloorTc,
    /// Bare `bpf_redirect_peer` in tc.
    FloorTcPeer,
    /// Bare redirect in XDP; back to where it came from, for hairpin.
    FloorXdp,
    /// The generator into one veth.
    Generator,
}

/// What differs from scenario to scenario, the same for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) ports: u32,
    /// Port 0 leads to the outside.
    pub(super) uplink: bool,
    /// The ports exchange nothing.
    pub(super) private: bool,
    /// Port 0 gives back.
    pub(super) hairpin: bool,
    /// The receivers are XDP programs, not stacks.
    pub(super) to_xdp: bool,
    pub(super) fdb_max: u32,
}

/// A contestant at work, until it is dropped.
pub(super) struct Rival {
    pub(super) contestant: Contestant,
    pub(super) lab: Arc<Lab>,
    /// The switch, if it is ours.
    switch: Option<Scope>,
    /// Attached programs live as long as this.
    _programs: Vec<Ebpf>,
}

impl Contestant {
    pub(super) const ALL: [Self; 8] = [
        Self::VswitchTc,
        Self::VswitchXdp,
        Self::Bridge,
        Self::Macvlan,
        Self::FloorTc,
        Self::FloorTcPeer,
        Self::FloorXdp,
        Self::Generator,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::VswitchTc => "vswitch-tc",
            Self::VswitchXdp => "vswitch-xdp",
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::FloorTc => "floor-tc",
            Self::FloorTcPeer => "floor-tc-peer",
            Self::FloorXdp => "floor-xdp",
            Self::Generator => "generator",
        }
    }

    /// Whether it is a bare redirect: what is left when a switch decides nothing.
    pub(super) const fn is_floor(self) -> bool {
        matches!(self, Self::FloorTc | Self::FloorTcPeer | Self::FloorXdp)
    }

    pub(super) const fn is_vswitch(self) -> bool {
        matches!(self, Self::VswitchTc | Self::VswitchXdp)
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            ports: 2,
            uplink: false,
            private: false,
            hairpin: false,
            to_xdp: false,
            fdb_max: vswitch_ebpf::abi::DEFAULT_FDB_MAX,
        }
    }
}

impl Rival {
    /// In a lab of its own, or in one that it shares with those before and after it.
    pub(super) fn new(
        name: &str,
        contestant: Contestant,
        terms: Terms,
        shared: Option<&Arc<Lab>>,
    ) -> Result<Self> {
        let lab = match shared {
            Some(lab) => Arc::clone(lab),
            None => Arc::new(Lab::new(name)?),
        };
        let mut rival = Self { contestant, lab, switch: None, _programs: Vec::new() };
        rival.set_up(terms, shared.is_some()).with_context(|| format!("set up {contestant}"))?;
        Ok(rival)
    }

    fn set_up(&mut self, terms: Terms, cabled: bool) -> Result<()> {
        if self.contestant == Contestant::Macvlan {
            return macvlan(&self.lab, terms);
        }
        if !cabled {
            self.lab.cable(0..terms.ports)?;
        }
        if terms.to_xdp {
            let mut receivers = generator::load(0)?;
            for number in if terms.hairpin { 0..1 } else { 1..terms.ports } {
                let room = self.lab.room(number);
                room.netns.run_in(|| attach_xdp(&mut receivers, "receive", &far(number)))??;
            }
            self._programs.push(receivers);
        }
        match self.contestant {
            Contestant::VswitchTc => self.vswitch(terms, Datapath::Tc),
            Contestant::VswitchXdp => self.vswitch(terms, Datapath::Xdp),
            Contestant::Bridge => bridge(&self.lab, terms),
            Contestant::FloorTc => self.floor("floor_tc", false, 1),
            Contestant::FloorTcPeer => self.floor("floor_tc_peer", false, 1),
            Contestant::FloorXdp if terms.hairpin => self.floor("floor_reflect", true, 0),
            Contestant::FloorXdp if terms.private => self.floor("receive", true, 0),
            Contestant::FloorXdp => self.floor("floor_xdp", true, 1),
            Contestant::Generator => self.floor("receive", true, 0),
            Contestant::Macvlan => Ok(()),
        }
    }

    fn vswitch(&mut self, terms: Terms, datapath: Datapath) -> Result<()> {
        let name = &self.lab.name;
        let scope = Scope { switch: name.clone(), netns: Some(format!("{name}-s")) };
        let ports = (0..terms.ports).map(|number| {
            let uplink = terms.uplink && number == 0;
            PortConfig {
                role: if uplink { Role::Uplink } else { Role::Access },
                mode: if terms.private { Mode::Private } else { Mode::Bridge },
                hairpin: terms.hairpin && number == 0,
                datapath,
                ..PortConfig::new(&port(number))
            }
        });
        let config =
            SwitchConfig { fdb_max: terms.fdb_max, ports: ports.collect(), ..SwitchConfig::new(name) };
        self.switch = Some(scope.clone());
        self.lab.switch.netns.run_async_in(|| control::up(&scope, config))??;
        Ok(())
    }

    fn floor(&mut self, program: &str, is_xdp: bool, to: u32) -> Result<()> {
        self.redirect(program, is_xdp, (0, to))
    }

    /// The way back, for floors of tc.
    pub(super) fn floor_back(&mut self) -> Result<()> {
        let program = if self.contestant == Contestant::FloorTc { "floor_tc" } else { "floor_tc_peer" };
        self.redirect(program, false, (1, 0))
    }

    fn redirect(&mut self, program: &str, is_xdp: bool, (from, to): (u32, u32)) -> Result<()> {
        let mut programs = generator::load(ifindex(to))?;
        let attach = if is_xdp { attach_xdp } else { attach_tc };
        self.lab.switch.netns.run_in(|| attach(&mut programs, program, &port(from)))??;
        self._programs.push(programs);
        Ok(())
    }

    /// The switch's own counters, if it is ours.
    pub(super) fn stats(&self) -> Result<Vec<StatsView>> {
        let Some(scope) = &self.switch else { return Ok(Vec::new()) };
        self.lab.switch.netns.run_async_in(|| control::stats(scope))?
    }

    /// Forgets what was learned.
    pub(super) fn flush(&self) -> Result<()> {
        if let Some(scope) = &self.switch {
            self.lab.switch.netns.run_async_in(|| control::fdb_flush(scope, None))??;
        } else if self.contestant == Contestant::Bridge {
            self.lab.switch.links(|handle| async move {
                for number in 0..2 {
                    let flush = LinkBridgePort::new(ifindex(number)).fdb_flush().build();
                    handle.link().set_port(flush).execute().await.context("flush the bridge's port")?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// How many addresses are learned now; `None` if it cannot be told.
    pub(super) fn learned(&self) -> Result<Option<u64>> {
        if let Some(scope) = &self.switch {
            let show = self.lab.switch.netns.run_async_in(|| control::show(scope))??;
            return Ok(Some(show.fdb_used.into()));
        }
        if self.contestant != Contestant::Bridge {
            return Ok(None);
        }
        let entries = self.lab.switch.links(|handle| async move {
            let mut dump = handle.neighbours().get();
            dump.message_mut().header.family = AddressFamily::Bridge;
            let mut entries = dump.execute();
            let mut count = 0;
            while let Some(entry) = entries.next().await {
                entry.context("list the bridge's addresses")?;
                count += 1;
            }
            Ok(count)
        })?;
        Ok(Some(entries))
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        if let Some(scope) = &self.switch {
            // The guard complains of what is left.
            let _down = self.lab.switch.netns.run_async_in(|| control::down(scope));
        }
        if self.contestant == Contestant::Bridge && Arc::strong_count(&self.lab) > 1 {
            // The next one wants the ports.
            let _gone = self.lab.switch.links(|handle| async move {
                let master = index_of(&handle, "br0").await?;
                handle.link().del(master).execute().await.context("delete br0")
            });
        }
    }
}

fn bridge(lab: &Lab, terms: Terms) -> Result<()> {
    lab.switch.links(|handle| async move {
        let bridge = LinkBridge::new("br0")
            .append_info_data(InfoBridge::StpState(BridgeStpState::Disabled))
            .append_info_data(InfoBridge::MulticastSnooping(false))
            .append_info_data(InfoBridge::AgeingTime(30_000))
            .address(vec![0x02, 0x50, 0, 1, 0, 0]);
        handle.link().add(bridge.build()).execute().await.context("create br0")?;
        let master = index_of(&handle, "br0").await?;
        for number in 0..terms.ports {
            let member = LinkUnspec::new_with_name(&port(number)).controller(master).build();
            handle.link().set(member).execute().await.with_context(|| port(number))?;
            let hairpin = terms.hairpin && number == 0;
            if hairpin || terms.private {
                let options = LinkBridgePort::new(ifindex(number)).hairpin(hairpin).isolated(terms.private);
                handle.link().set_port(options.build()).execute().await.context("set bridge port")?;
            }
        }
        Ok(())
    })
}

/// Its children are the stations: there are no cables but the uplink's.
fn macvlan(lab: &Lab, terms: Terms) -> Result<()> {
    if terms.uplink {
        lab.cable(0..1)?;
    } else {
        lab.switch.links(|handle| async move {
            let parent = LinkVeth::new(&port(0), "parent").index(ifindex(0)).up();
            handle.link().add(parent.build()).execute().await.context("create the parent")?;
            let up = LinkUnspec::new_with_name("parent").up().build();
            handle.link().set(up).execute().await.context("set the parent up")
        })?;
    }
    let mode = if terms.private { MacVlanMode::Private } else { MacVlanMode::Bridge };
    for number in if terms.uplink { 1..2 } else { 0..2 } {
        let room = lab.room(number);
        let fd = room.netns.as_fd().as_raw_fd();
        lab.switch.links(|handle| async move {
            let child = LinkMacVlan::new(&far(number), ifindex(0), mode)
                .address(lab::mac(number).to_vec())
                .setns_by_fd(fd);
            handle.link().add(child.build()).execute().await.context("create a macvlan")
        })?;
        room.links(|handle| async move { lab::set_up(&handle, number).await })?;
    }
    Ok(())
}

/// Why Open vSwitch is not compared.
pub(super) fn ovs_absent() -> &'static str {
    match Command::new("ovs-vsctl").args(["--timeout=2", "show"]).output() {
        Err(_) => "not installed",
        Ok(output) if !output.status.success() => "installed, but not running",
        // Its daemon switches in its own namespace, where the bench would have to take its interfaces.
        Ok(_) => "runs here, but the bench cannot compare it yet",
    }
}
