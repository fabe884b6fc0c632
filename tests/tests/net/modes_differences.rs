//! Where does vswitch differ from the kernel's macvlan on purpose? The written list, and what each of the two does.

use vswitch_tests::{
    fabric::Mode,
    frame::Mac,
    lab::{HOST, OUTSIDE},
};

/// Two stations of each mode. `s1` lists, besides the outside and the host, a station of each other mode; `s2` nobody.
pub(crate) const STATIONS: [(&str, Mode); 8] = [
    ("b1", Mode::Bridge),
    ("b2", Mode::Bridge),
    ("v1", Mode::Vepa),
    ("v2", Mode::Vepa),
    ("p1", Mode::Private),
    ("p2", Mode::Private),
    ("s1", Mode::Source),
    ("s2", Mode::Source),
];
pub(crate) const LISTED: [&str; 5] = ["b1", "v1", "p1", OUTSIDE, HOST];
pub(crate) const LISTS: &str = "s1";

/// To whom a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    One(&'static str),
    /// An address that nobody has.
    Unknown,
    Group(Mac),
}

/// One frame in its circumstances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) reflects: bool,
    pub(crate) from: &'static str,
    pub(crate) to: To,
    /// From a source address that no station has: zero, or a group.
    pub(crate) bad: bool,
    /// Of the EtherType of pause frames.
    pub(crate) pause: bool,
}

pub(crate) struct Difference {
    pub(crate) when: &'static str,
    pub(crate) applies: fn(&Case) -> bool,
    /// The number in docs/semantics.md, "Where it differs from the kernel's macvlan", what each does, and the reason.
    pub(crate) why: &'static str,
}

/// The first that applies is the one.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        when: "a source address that no station has",
        applies: |case| case.bad,
        why: "6: dropped as by a bridge, but for the host's; macvlan lets it out, and to siblings",
    },
    Difference {
        when: "a station sends to 01-80-C2-00-00-0X",
        applies: |case| case.mode().is_some() && case.reserved().is_some(),
        why: "5: the stack of the port has it, and nobody pause frames; to macvlan it is any group",
    },
    Difference {
        when: "such a frame comes by the wire",
        applies: |case| case.reserved().is_some(),
        why: "5: the host alone has it; macvlan's children hear it",
    },
    Difference {
        when: "the EtherType of pause frames to another group",
        applies: |case| case.pause && case.is_group(),
        why: "5: the address makes a pause frame; no macvlan child has a group frame of that EtherType",
    },
    Difference {
        when: "a bridge port sends to itself",
        applies: |case| case.mode() == Some(Mode::Bridge) && case.to == To::One(case.from),
        why: "7: not back where it came from without hairpin; macvlan finds the sender among its siblings",
    },
    Difference {
        when: "a private port and a sibling, reflected",
        applies: |case| {
            let private = |mode| mode == Some(Mode::Private);
            case.mode().is_some()
                && case.mode_there().is_some()
                && (private(case.mode()) || private(case.mode_there()))
        },
        why: "1: private means private; macvlan delivers reflected unicast",
    },
    Difference {
        when: "a station sends to the host",
        applies: |case| case.mode().is_some() && case.to == To::One(HOST),
        why: "3: directly; macvlan's takes the wire, and arrives if that reflects",
    },
    Difference {
        when: "the host sends to a station",
        applies: |case| case.from == HOST && case.mode_there().is_some(),
        why: "3: directly, as above",
    },
    Difference {
        when: "the wire brings what is no port's",
        applies: |case| case.to == To::Unknown || case.mode_there() == Some(Mode::Source),
        why: "4: of unknown unicast a bridge's host sees nothing; macvlan's host is shown it as somebody else's",
    },
    Difference {
        when: "a private or source port sends to a group",
        applies: |case| case.is_group() && matches!(case.mode(), Some(Mode::Private | Mode::Source)),
        why: "2: it never hears its own echo, which macvlan gives to it instead of the host; 3: the host has it directly",
    },
    Difference {
        when: "another station sends to a group",
        applies: |case| case.is_group() && case.mode().is_some(),
        why: "3: the host has it directly; macvlan's only if the wire reflects",
    },
    Difference {
        when: "the host sends to a group",
        applies: |case| case.is_group() && case.from == HOST,
        why: "3: directly, and it does not hear itself; macvlan's children have it if the wire reflects, and the host, too",
    },
];

/// What the kernel's macvlan does, and the adjacent bridge.
pub(crate) fn macvlan(case: &Case) -> Vec<String> {
    let (mut all, from) = (Vec::new(), case.from);
    if case.mode() == Some(Mode::Bridge) {
        match case.to {
            To::One(to) if mode_of(to) == Some(Mode::Bridge) => {
                return [vec![to.to_owned()], case.listing()].concat();
            }
            To::Group(_) if !case.pause => all.extend(of(&[Mode::Bridge], from)),
            To::One(_) | To::Unknown | To::Group(_) => {}
        }
    }
    all.extend(case.outside());
    if case.comes_in() {
        all.extend(case.listing());
        let children = |modes: &[Mode]| if case.pause { Vec::new() } else { of(modes, from) };
        let host = vec![HOST.to_owned()];
        all.extend(match (case.to, case.mode()) {
            (To::Group(_), Some(Mode::Private | Mode::Source | Mode::Passthru)) => vec![from.to_owned()],
            (To::Group(_), Some(Mode::Vepa)) => [children(&[Mode::Vepa, Mode::Bridge]), host].concat(),
            (To::Group(_), Some(Mode::Bridge)) => [children(&[Mode::Vepa]), host].concat(),
            (To::Group(_), None) => [children(&[Mode::Bridge, Mode::Vepa, Mode::Private]), host].concat(),
            (To::One(to), _) if to == HOST || mode_of(to).is_some_and(|mode| mode != Mode::Source) => {
                vec![to.to_owned()]
            }
            (To::One(_) | To::Unknown, _) => vec![format!("({HOST})")],
        });
    }
    all
}

/// What vswitch does: docs/semantics.md, "Modes".
pub(crate) fn vswitch(case: &Case) -> Vec<String> {
    let from = case.from;
    let hears_all = [Mode::Bridge, Mode::Vepa, Mode::Private];
    let name = |name: &str| vec![name.to_owned()];
    match (case.mode(), case.reserved()) {
        (Some(_), _) if case.bad => return Vec::new(),
        (Some(_), Some(1)) => return Vec::new(),
        (Some(_), Some(_)) => return name(&format!("{HOST}@{from}")),
        (None, Some(_)) if case.comes_in() => return [case.outside(), name(HOST)].concat(),
        (None, Some(_)) => return case.outside(),
        (_, None) => {}
    }
    let direct = match (case.to, case.mode()) {
        (To::One(HOST), Some(_)) => return name(HOST),
        (To::One(to), None) if from == HOST && hears_all.map(Some).contains(&mode_of(to)) => return name(to),
        (To::One(LISTS), None) if from == HOST && !case.bad => return name(LISTS),
        (To::One(to), Some(Mode::Bridge)) if to == from => return case.listing(),
        (To::One(to), Some(Mode::Bridge)) if mode_of(to) == Some(Mode::Bridge) => {
            return [name(to), case.listing()].concat();
        }
        (To::Group(_), None) if from == HOST => {
            return [of(&hears_all, ""), case.listing(), case.outside()].concat();
        }
        (To::Group(_), Some(Mode::Bridge)) => [of(&[Mode::Bridge], from), name(HOST)].concat(),
        (To::Group(_), Some(_)) => name(HOST),
        (To::One(_) | To::Unknown | To::Group(_), _) => Vec::new(),
    };
    let back = match (case.to, case.mode()) {
        _ if !case.comes_in() => Vec::new(),
        (_, Some(Mode::Private)) => Vec::new(),
        // What the host sends to one it has sent to the ports itself, but to itself.
        (To::One(_) | To::Unknown, None) if from == HOST && case.to != To::One(HOST) => Vec::new(),
        (To::One(to), sender) => {
            let private = sender.is_some() && mode_of(to) == Some(Mode::Private);
            let one = to == HOST || mode_of(to).is_some_and(|mode| mode != Mode::Source && !private);
            [if one { name(to) } else { Vec::new() }, case.listing()].concat()
        }
        (To::Unknown, _) | (To::Group(_), Some(Mode::Source | Mode::Passthru)) => case.listing(),
        (To::Group(_), Some(Mode::Vepa)) => [of(&[Mode::Vepa, Mode::Bridge], from), case.listing()].concat(),
        (To::Group(_), Some(Mode::Bridge)) => [of(&[Mode::Vepa], from), case.listing()].concat(),
        (To::Group(_), None) => [of(&hears_all, ""), case.listing(), name(HOST)].concat(),
    };
    [direct, case.outside(), back].concat()
}

impl Case {
    /// Of the sender, if it is a station with a port.
    fn mode(&self) -> Option<Mode> {
        mode_of(self.from)
    }

    fn mode_there(&self) -> Option<Mode> {
        if let To::One(name) = self.to { mode_of(name) } else { None }
    }

    const fn is_group(&self) -> bool {
        matches!(self.to, To::Group(_))
    }

    fn reserved(&self) -> Option<u8> {
        match self.to {
            To::Group([0x01, 0x80, 0xc2, 0, 0, x]) if x < 16 => Some(x),
            To::One(_) | To::Unknown | To::Group(_) => None,
        }
    }

    /// Whether the adjacent bridge forwards it: it keeps some link-local frames whatever it is told.
    fn is_relayed(&self) -> bool {
        !self.bad && !matches!(self.reserved(), Some(1 | 2))
    }

    /// What `ext` hears of it.
    fn outside(&self) -> Vec<String> {
        let hears = self.from != OUTSIDE && matches!(self.to, To::One(OUTSIDE) | To::Unknown | To::Group(_));
        if hears && self.is_relayed() { vec![OUTSIDE.to_owned()] } else { Vec::new() }
    }

    /// Whether it comes in by the uplink: from outside, or back.
    fn comes_in(&self) -> bool {
        self.is_relayed() && self.to != To::One(OUTSIDE) && (self.reflects || self.from == OUTSIDE)
    }

    /// Who lists the sender.
    fn listing(&self) -> Vec<String> {
        if LISTED.contains(&self.from) && !self.bad { vec![LISTS.to_owned()] } else { Vec::new() }
    }
}

fn mode_of(name: &str) -> Option<Mode> {
    STATIONS.into_iter().find(|(station, _)| *station == name).map(|(_, mode)| mode)
}

/// The stations of these modes, but one.
fn of(modes: &[Mode], but: &str) -> Vec<String> {
    let all = STATIONS.into_iter().filter(|(name, mode)| modes.contains(mode) && *name != but);
    all.map(|(name, _)| name.to_owned()).collect()
}
