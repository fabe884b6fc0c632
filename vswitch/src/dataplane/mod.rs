//! The kernel's side of a switch: making it, opening it, taking it away.

mod bpffs;
pub(crate) mod clock;
mod fdb;
mod grace;
pub(crate) mod hold;
pub(crate) mod image;
pub mod ledger;
pub(crate) mod links;
mod load;
pub(crate) mod maps;
pub(crate) mod migrate;
pub mod pins;
pub(crate) mod programs;
pub(crate) mod raw;
mod spec;
pub(crate) mod state;
mod sys;
mod tables;
mod words;
mod write;

use std::{error::Error, fmt, io};

use anyhow::{Context as _, Result, anyhow, bail};
use vswitch_ebpf::{
    abi::{ABI_VERSION, Stamp},
    fdb::Shape,
};

use clock::Clock;
pub(crate) use grace::await_programs;
use ledger::{Identity, Ledger, PortRecord};
use links::Hook;
use maps::Maps;
pub(crate) use maps::is_there;
use pins::Pins;
pub use spec::Access;

use crate::{change::intent, config::SwitchConfig, failure::in_words, net::Netns};

/// A switch that exists.
pub struct Dataplane {
    /// Its name.
    pub name: String,
    pub(crate) pins: Pins,
    /// What the programs read: changed by [`Dataplane::write`] alone.
    maps: Maps,
    pub(crate) ledger: Ledger,
    clock: Clock,
}

/// What there is of a switch.
pub(crate) enum Found {
    /// What it takes to work with it, though the command that made it may not have finished.
    Switch(Box<Dataplane>),
    /// Less.
    Incomplete(Incomplete),
    /// All of it, but where it lives.
    Homeless(Homeless),
}

/// Something of a switch is there and something is not: it can only be taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    switch: String,
    what: String,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { switch, what } = self;
        write!(f, r#"switch "{switch}": incomplete: {what}: take it away with `vswitch -s {switch} down`"#)
    }
}

impl Error for Incomplete {}

impl Dataplane {
    /// Makes a switch without ports in the calling thread's namespace. Until [`Dataplane::set_complete`] it counts as half
    /// made. Nothing is left if it fails.
    pub(crate) fn create(config: &SwitchConfig) -> Result<Self> {
        let name = &config.name;
        let pins = Pins::of(name);
        let scratch = pins.scratch();
        let made = Self::create_at(&scratch, config).and_then(|made| {
            scratch.become_switch(&pins)?;
            Ok(made)
        });
        match made {
            Ok((maps, ledger, clock)) => Ok(Self { name: name.clone(), pins, maps, ledger, clock }),
            Err(err) => {
                // The error of the creation is the one to tell.
                let _kept = scratch.clear();
                Err(err.context(format!(r#"switch "{name}""#)))
            }
        }
    }

    fn create_at(pins: &Pins, config: &SwitchConfig) -> Result<(Maps, Ledger, Clock)> {
        pins.create()?;
        let shape = fdb::shape(config.fdb_max)?;
        let clock = load::load_new(pins, shape, &[])?;
        let (netns_dev, netns_ino) = Netns::current()?.identity();
        let Clock { tick, epoch } = clock;
        let Shape { max: fdb_max, secret: fdb_secret } = shape;
        let made = Identity { netns_dev, netns_ino, tick, epoch, fdb_max, fdb_secret, ..Identity::default() };
        ledger::write_identity(pins, made)?;
        intent::begin(pins, config)?;
        Ok((Maps::open(pins, Access::Write)?, Ledger::open(pins, Access::Write)?, clock))
    }

    /// Whether there is a switch of that name, whole or not.
    ///
    /// # Errors
    ///
    /// There is one, but with another ABI: it has to be upgraded first.
    pub fn exists(name: &str) -> Result<bool> {
        if Pins::of(name).exist().map_err(|err| unreadable(name, err))? {
            return Ok(true);
        }
        match Pins::other_versions(name).pop() {
            None => Ok(false),
            Some(newer) if newer > ABI_VERSION => bail!(
                r#"switch "{name}": was made by a newer build (ABI {newer}, this one has {ABI_VERSION}): use that one"#
            ),
            Some(older) => bail!(
                r#"switch "{name}": was made by another build (ABI {older}, this one has {ABI_VERSION}): let it go over to this one with `vswitch -s {name} upgrade`"#
            ),
        }
    }

    /// Marks the switch as whole, or as being taken away.
    pub fn set_complete(&mut self, complete: bool) -> Result<()> {
        let identity = self.ledger.identity()?;
        self.ledger.set_identity(Identity { complete: u32::from(complete), ..identity })
    }

    /// Whether the command that made the switch has finished, and none has begun to take it away.
    pub(crate) fn is_complete(&self) -> Result<bool> {
        Ok(self.ledger.identity()?.complete != 0)
    }

    /// Opens a switch that lives in the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// There is none of that name; it lives elsewhere; it is half made or half removed ([`Incomplete`]); it is another
    /// build's; its pins may not be read.
    pub fn open(name: &str, access: Access) -> Result<Self> {
        let dataplane = Self::open_any(name, access)?;
        let incomplete = |what: String| Incomplete { switch: name.to_owned(), what };
        if !dataplane.is_complete()? {
            let what = "the command that made it or took it away did not finish";
            return Err(incomplete(what.to_owned()).into());
        }
        if access == Access::Write
            && let Some(program) = load::PROGRAMS.iter().find(|name| !dataplane.pins.program(name).exists())
        {
            return Err(incomplete(format!("its program {program} is missing")).into());
        }
        Ok(dataplane)
    }

    /// Fails with [`Incomplete`] if an interface that is a port lacks one of the programs.
    pub(crate) fn check_links(&self) -> Result<()> {
        for member in self.members()?.iter().filter(|member| member.is_present()) {
            let lost = |hook: &Hook| match hook {
                Hook::In | Hook::Out if !links::tcx() => false,
                Hook::In | Hook::Out | Hook::Xdp | Hook::XdpGeneric => {
                    !links::is_attached(&self.pins, member.slot, *hook)
                }
            };
            if let Some(hook) = member.hooks().into_iter().find(lost) {
                let what =
                    format!(r#"its program {} is not attached to "{}""#, hook.program(), member.ifname());
                return Err(Incomplete { switch: self.name.clone(), what }.into());
            }
        }
        Ok(())
    }

    /// Opens a switch, whole or not, that lives in the calling thread's namespace.
    pub fn open_any(name: &str, access: Access) -> Result<Self> {
        match Self::find(name, access)? {
            Found::Switch(dataplane) => Ok(*dataplane),
            Found::Incomplete(incomplete) => Err(incomplete.into()),
            Found::Homeless(homeless) => Err(homeless.into()),
        }
    }

    /// As [`Dataplane::open_any`], and tells what can only be taken away from what cannot be opened at all.
    pub(crate) fn find(name: &str, access: Access) -> Result<Found> {
        let pins = Pins::of(name);
        if !Self::exists(name)? {
            bail!(r#"switch "{name}": there is none of that name: make it with `vswitch -s {name} up`"#);
        }
        let opened = Maps::open(&pins, access).and_then(|maps| {
            let ledger = Ledger::open(&pins, access)?;
            if !pins.map(intent::NAME).try_exists()? {
                bail!("its map {} is missing", intent::NAME);
            }
            Ok((maps, ledger))
        });
        let (maps, ledger) = match opened {
            Ok(opened) => opened,
            Err(err) if refusal(&err) == Some(io::ErrorKind::PermissionDenied) => {
                return Err(unreadable(name, io::ErrorKind::PermissionDenied.into()));
            }
            Err(err) => {
                return Ok(Found::Incomplete(Incomplete { switch: name.to_owned(), what: in_words(&err) }));
            }
        };
        let identity = ledger.identity()?;
        if let Some(homeless) = home_of(name, &identity)? {
            return Ok(Found::Homeless(homeless));
        }
        let clock = Clock::of(&identity);
        Ok(Found::Switch(Box::new(Self { name: name.to_owned(), pins, maps, ledger, clock })))
    }

    /// What the switch was made to be.
    pub(crate) fn intent(&self) -> Result<SwitchConfig> {
        intent::read(&self.pins).with_context(|| format!(r#"switch "{}""#, self.name))
    }

    /// What an incomplete switch still knows of its ports, by slot; `None` if that is lost too.
    ///
    /// # Errors
    ///
    /// It lives in another namespace.
    pub(crate) fn salvage(name: &str) -> Result<Option<Vec<(u16, PortRecord)>>> {
        let pins = Pins::of(name);
        if let Ok(identity) = ledger::open_identity(&pins, Access::Write) {
            lives_here(name, &identity)?;
        }
        Ok(ledger::open_records(&pins).ok())
    }

    /// The time, as the dataplane stamps entries.
    pub fn now(&self) -> Stamp {
        self.clock.now()
    }

    /// Seconds of a time that the dataplane counted, rounded to the nearest.
    pub fn seconds(&self, stamps: u64) -> u64 {
        self.clock.seconds(stamps)
    }
}

/// Fails if a switch is another namespace's.
fn lives_here(name: &str, identity: &Identity) -> Result<()> {
    home_of(name, identity)?.map_or(Ok(()), |homeless| Err(homeless.into()))
}

/// Fails if a switch is another namespace's that can be named. One that has died before it said so is at home everywhere.
fn home_of(name: &str, identity: &Identity) -> Result<Option<Homeless>> {
    let home = (identity.netns_dev, identity.netns_ino);
    if home == (0, 0) || Netns::current()?.identity() == home {
        return Ok(None);
    }
    match Netns::all().into_iter().find(|netns| netns.identity() == home) {
        Some(netns) => {
            bail!(r#"switch "{name}": lives in namespace {}: use -n {}"#, netns.label(), netns.name())
        }
        None => Ok(Some(Homeless(name.to_owned()))),
    }
}

/// A switch whose namespace is gone, or is nowhere to be seen from here.
#[derive(Debug)]
pub(crate) struct Homeless(String);

impl fmt::Display for Homeless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(
            f,
            r#"switch "{name}": its network namespace is gone, or cannot be seen from here: take it away with `vswitch -s {name} down`"#
        )
    }
}

impl Error for Homeless {}

fn refusal(err: &anyhow::Error) -> Option<io::ErrorKind> {
    err.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

fn unreadable(name: &str, err: io::Error) -> anyhow::Error {
    if err.kind() == io::ErrorKind::PermissionDenied {
        return anyhow!(
            r#"switch "{name}": this user may not read its pins: run as root, or join the group {} (if it existed when the switch was made)"#,
            pins::GROUP
        );
    }
    anyhow::Error::new(err).context(format!(r#"switch "{name}""#))
}
