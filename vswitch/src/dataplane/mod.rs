//! The kernel's side of a switch: making it, opening it, taking it away.

pub(crate) mod links;
mod load;
pub(crate) mod maps;
pub mod pins;
pub(crate) mod state;
mod sys;

use std::io;

use anyhow::{Context as _, Result, bail};
use vswitch_ebpf::abi::{Identity, STAMP_SHIFT, Stamp};

pub use maps::Access;
use maps::Maps;
use pins::Pins;

use crate::net::Netns;

/// A switch that exists.
pub struct Dataplane {
    /// Its name.
    pub name: String,
    pub(crate) pins: Pins,
    pub(crate) maps: Maps,
}

impl Dataplane {
    /// Makes a switch without ports in the calling thread's namespace. Until [`Dataplane::complete`] it counts as half
    /// made. Nothing is left if it fails.
    pub fn create(name: &str, fdb_max: u32) -> Result<Self> {
        let pins = Pins::of(name);
        let made = Self::create_at(name, &pins, fdb_max);
        if made.is_err() {
            // The error of the creation is the one to tell.
            let _kept = pins.remove();
        }
        made
    }

    fn create_at(name: &str, pins: &Pins, fdb_max: u32) -> Result<Self> {
        pins.create()?;
        load::load_new(pins, fdb_max)?;
        let mut maps = Maps::open(pins, Access::Write)?;
        let (netns_dev, netns_ino) = Netns::current()?.identity();
        maps.set_identity(Identity { netns_dev, netns_ino, complete: 0, reserved: 0 })?;
        Ok(Self { name: name.to_owned(), pins: pins.clone(), maps })
    }

    /// Marks the switch as whole, or as being taken away.
    pub fn set_complete(&mut self, complete: bool) -> Result<()> {
        let identity = self.maps.identity()?;
        self.maps.set_identity(Identity { complete: u32::from(complete), ..identity })
    }

    /// Opens a switch that lives in the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// There is none of that name; it lives elsewhere; it is half made or half removed; it is another build's; its pins
    /// may not be read.
    pub fn open(name: &str, access: Access) -> Result<Self> {
        let dataplane = Self::open_any(name, access)?;
        if dataplane.maps.identity()?.complete == 0 {
            bail!(
                r#"switch "{name}": half made or half removed by a command that did not finish: remove it with `vswitch -s {name} down`"#
            );
        }
        Ok(dataplane)
    }

    /// Opens a switch, whole or not, that lives in the calling thread's namespace.
    pub fn open_any(name: &str, access: Access) -> Result<Self> {
        let pins = Pins::of(name);
        let exists = pins.exist().map_err(|err| unreadable(name, err))?;
        if !exists {
            bail!(r#"switch "{name}": there is none of that name: make it with `vswitch -s {name} up`"#);
        }
        let maps = Maps::open(&pins, access).map_err(|err| match refusal(&err) {
            Some(io::ErrorKind::PermissionDenied) => unreadable(name, io::ErrorKind::PermissionDenied.into()),
            _ => err.context(format!(r#"switch "{name}""#)),
        })?;
        let identity = maps.identity()?;
        let here = Netns::current()?;
        if here.identity() != (identity.netns_dev, identity.netns_ino) {
            let there = Netns::all()
                .into_iter()
                .find(|netns| netns.identity() == (identity.netns_dev, identity.netns_ino));
            match there {
                Some(netns) => {
                    bail!(
                        r#"switch "{name}": lives in namespace {}: use -n {}"#,
                        netns.label(),
                        netns.label()
                    )
                }
                None => bail!(
                    r#"switch "{name}": lives in a network namespace that cannot be found from here: run the command inside it"#
                ),
            }
        }
        Ok(Self { name: name.to_owned(), pins, maps })
    }

    /// Whether a map of the switch is missing or not this build's, so that it can only be removed.
    pub fn is_damaged(pins: &Pins) -> bool {
        Maps::open(pins, Access::Write)
            .is_err_and(|err| refusal(&err) != Some(io::ErrorKind::PermissionDenied))
    }

    /// The time, as the dataplane stamps entries.
    pub fn now() -> Stamp {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of ours. CLOCK_MONOTONIC exists always.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        let ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        ns >> STAMP_SHIFT
    }

    /// Seconds as the dataplane counts them, rounded up.
    pub fn stamps(seconds: u32) -> u32 {
        let ns = u64::from(seconds) * 1_000_000_000;
        u32::try_from(ns.div_ceil(1 << STAMP_SHIFT)).unwrap_or(u32::MAX)
    }

    /// Seconds of a time that the dataplane counted, rounded to the nearest.
    pub fn seconds(stamps: u64) -> u64 {
        ((stamps << STAMP_SHIFT) + 500_000_000) / 1_000_000_000
    }

    /// Loads the object's programs anew for this switch's maps.
    pub(crate) fn load_again(&self, log_packets: bool) -> Result<aya::Ebpf> {
        load::load_again(&self.pins, self.maps.fdb_max(), log_packets).context("load the dataplane")
    }

    /// Makes these programs the ones that new ports are attached with.
    pub(crate) fn repin_programs(&self, ebpf: &mut aya::Ebpf) -> Result<()> {
        load::repin_programs(&self.pins, ebpf)
    }
}

fn refusal(err: &anyhow::Error) -> Option<io::ErrorKind> {
    err.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

fn unreadable(name: &str, err: io::Error) -> anyhow::Error {
    if err.kind() == io::ErrorKind::PermissionDenied {
        return anyhow::anyhow!(
            r#"switch "{name}": its pins may not be read: run as root or as a member of the group of {}"#,
            pins::BPFFS
        );
    }
    anyhow::Error::new(err).context(format!(r#"switch "{name}""#))
}
