//! Who is compared, and how is each set up? On the same terms: the same cables, offloads, ageing; nothing snoops or spans.

mod adjacent;
mod kernel;
pub(super) mod ovs;

use std::{fmt, sync::Arc};

use anyhow::{Context as _, Result};
use aya::Ebpf;

use super::{
    generator::{self, attach_tc, attach_xdp},
    lab::{Lab, Room, far, ifindex, port},
};
use adjacent::{Adjacent, TRUNK};
use vswitch::{
    config::{Datapath, Flags, Mode, PortConfig, Role, SwitchConfig},
    control::{self, Scope},
    view::StatsView,
};
use vswitch_ebpf::abi::port_flags;

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
    /// The ports exchange all by an adjacent switch, which reflects.
    pub(super) vepa: bool,
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
    adjacent: Option<Adjacent>,
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

    /// Whether it decides where a frame goes.
    pub(super) const fn is_switch(self) -> bool {
        !self.is_floor() && !matches!(self, Self::Generator)
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
            vepa: false,
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
        let mut rival = Self { contestant, lab, switch: None, adjacent: None, _programs: Vec::new() };
        rival.set_up(terms, shared.is_some()).with_context(|| format!("set up {contestant}"))?;
        Ok(rival)
    }

    fn set_up(&mut self, terms: Terms, cabled: bool) -> Result<()> {
        if terms.vepa {
            self.adjacent = Some(Adjacent::new(&self.lab, self.contestant)?);
        }
        if self.contestant == Contestant::Macvlan {
            return kernel::macvlan(&self.lab, terms);
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
            // What is compared is the adjacent switch; a bridge has no such ports.
            Contestant::Bridge if terms.vepa => self.vswitch(terms, Datapath::Tc),
            Contestant::VswitchXdp => self.vswitch(terms, Datapath::Xdp),
            Contestant::Bridge => kernel::bridge(&self.lab, terms),
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
        let trunk = terms.vepa.then_some(TRUNK);
        let ports = (0..terms.ports).chain(trunk).map(|number| {
            let uplink = number == TRUNK || terms.uplink && number == 0;
            let mode = match (terms.private, terms.vepa) {
                (true, _) => Mode::Private,
                (_, true) if !uplink => Mode::Vepa,
                _ => Mode::Bridge,
            };
            PortConfig {
                role: if uplink { Role::Uplink } else { Role::Downlink },
                mode,
                flags: Flags::default().with(port_flags::HAIRPIN, terms.hairpin && number == 0),
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

    /// The room of the adjacent switch.
    pub(super) fn adjacent(&self) -> Option<&Room> {
        self.adjacent.as_ref().map(Adjacent::room)
    }

    /// Forgets what was learned.
    pub(super) fn flush(&self) -> Result<()> {
        if let Some(scope) = &self.switch {
            self.lab.switch.netns.run_async_in(|| control::fdb_flush(scope, None))??;
            return Ok(());
        }
        if self.contestant == Contestant::Bridge { kernel::flush(&self.lab.switch) } else { Ok(()) }
    }

    /// How many addresses are learned now; `None` if it cannot be told.
    pub(super) fn learned(&self) -> Result<Option<u64>> {
        if let Some(scope) = &self.switch {
            let show = self.lab.switch.netns.run_async_in(|| control::show(scope))??;
            return Ok(Some(show.fdb_used.into()));
        }
        if self.contestant == Contestant::Bridge {
            kernel::learned(&self.lab.switch).map(Some)
        } else {
            Ok(None)
        }
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        if let Some(scope) = &self.switch {
            // The guard complains of what is left.
            let _down = self.lab.switch.netns.run_async_in(|| control::down(scope));
        } else if self.contestant == Contestant::Bridge && Arc::strong_count(&self.lab) > 1 {
            let _gone = kernel::remove_bridge(&self.lab.switch);
        }
    }
}
