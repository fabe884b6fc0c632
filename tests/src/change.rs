//! What may be changed of a switch between two frames? One kind of change each, made to the model.

use std::fmt;

use proptest::{prelude::*, sample::Index};

use crate::{
    frame::Mac,
    model::{Entry, FLAGS, Kind, Member, Mode, Model},
};

/// A change that userspace makes.
#[derive(Clone, Copy)]
pub struct Change {
    /// Index into [`FLAGS`] and then [`KINDS`].
    kind: usize,
    /// Which port, address or value, as far as the kind needs one.
    which: Index,
    what: Index,
    /// The port and address that it is about, if they are said.
    about: Option<(u16, Mac)>,
    /// As in [`crate::cases::Case::slowed`].
    unit: u64,
}

type Make = fn(&Change, &mut Model);

/// Every kind but a port's flags, by name.
const KINDS: [(&str, Make); 12] = [
    ("down", |change, model| change.port(model, |port| port.down ^= true)),
    ("mtu", |change, model| change.port(model, |port| port.mtu = if port.mtu == 1500 { 576 } else { 1500 })),
    ("mode", Change::mode),
    ("gone", |change, model| {
        let slot = change.slot(model);
        if model.ports.len() > 1 {
            model.ports.remove(&slot);
            model.sources.retain(|&(by, _)| by != slot);
        }
    }),
    ("host_access", |_, model| model.host_access ^= true),
    ("compat", |_, model| model.compat ^= true),
    ("ageing", |change, model| {
        let times = *change.what.get(&[(0, 1), (1, 1), (4, 2), (4, 1), (1000, 2)]);
        (model.ageing, model.refresh) = (slowed(times.0, change.unit), slowed(times.1, change.unit));
    }),
    ("fdb set", |change, model| {
        if model.fdb.len() < model.fdb_max {
            let kind = *change.what.get(&[Kind::Static, Kind::StickyStatic]);
            let entry = Entry { at: Member::Port(change.slot(model)), kind, seen: model.now };
            model.fdb.insert(change.mac(), entry);
        }
    }),
    ("fdb host", |change, model| {
        let slot = change.slot(model);
        if model.ports[&slot].uplink && model.fdb.len() < model.fdb_max {
            let entry = Entry { at: Member::Host { uplink: slot }, kind: Kind::Local, seen: model.now };
            model.fdb.insert(change.mac(), entry);
        }
    }),
    ("fdb del", |change, model| {
        model.fdb.remove(&change.mac());
    }),
    ("fdb flush", |_, model| model.fdb.retain(|_, entry| entry.kind != Kind::Learned)),
    ("source", |change, model| {
        let slot = change.slot(model);
        let row = (slot, change.mac());
        if model.ports[&slot].mode == Mode::Source && !model.sources.remove(&row) {
            model.sources.insert(row);
        }
    }),
];

/// The names of all kinds.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|(name, _)| *name).chain(KINDS.iter().map(|(name, _)| *name))
}

/// Any change.
pub fn change() -> impl Strategy<Value = Change> {
    (0..FLAGS.len() + KINDS.len(), any::<Index>(), any::<Index>()).prop_map(|(kind, which, what)| Change {
        kind,
        which,
        what,
        about: None,
        unit: 1,
    })
}

/// A time in units, away from where a clock that goes on makes a difference.
pub fn slowed(time: u64, unit: u64) -> u64 {
    (time * unit).saturating_sub(unit / 2)
}

impl Change {
    /// The same where time goes so much more slowly.
    #[must_use]
    pub const fn slowed(self, unit: u64) -> Self {
        Self { unit, ..self }
    }

    /// The same, about this port, if it is there then, and this address.
    #[must_use]
    pub const fn about(self, slot: u16, mac: Mac) -> Self {
        Self { about: Some((slot, mac)), ..self }
    }

    /// The kind's name.
    pub fn name(&self) -> &'static str {
        FLAGS.get(self.kind).map_or_else(|| KINDS[self.kind - FLAGS.len()].0, |(name, _)| name)
    }

    /// Makes it.
    pub fn make(&self, model: &mut Model) {
        match FLAGS.get(self.kind) {
            Some((_, flag)) => self.port(model, |port| {
                *flag(port) ^= true;
                port.fit_mode();
            }),
            None => KINDS[self.kind - FLAGS.len()].1(self, model),
        }
    }

    fn slot(&self, model: &Model) -> u16 {
        match self.about {
            Some((slot, _)) if model.ports.contains_key(&slot) => slot,
            Some(_) | None => *self.which.get(&model.ports.keys().copied().collect::<Vec<_>>()),
        }
    }

    fn port(&self, model: &mut Model, change: impl FnOnce(&mut crate::model::Port)) {
        let slot = self.slot(model);
        model.ports.entry(slot).and_modify(change);
    }

    /// One of the few stations of `cases`.
    fn mac(&self) -> Mac {
        self.about.map_or_else(|| [2, 0, 0, 0, 0, *self.what.get(&[1, 2, 3, 4, 5, 6])], |(_, mac)| mac)
    }

    /// To another mode, except from and to passthru, which is for a switch's only port.
    fn mode(&self, model: &mut Model) {
        let slot = self.slot(model);
        let mode = *self.what.get(&[Mode::Bridge, Mode::Vepa, Mode::Private, Mode::Source]);
        let port = model.ports.get_mut(&slot).expect("one of its ports");
        if port.uplink || port.mode == Mode::Passthru {
            return;
        }
        port.mode = mode;
        port.fit_mode();
        if mode != Mode::Source {
            model.sources.retain(|&(by, _)| by != slot);
        }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?} {:?}", self.name(), self.which, self.what, self.about)
    }
}
