//! Where may vswitch differ from the Linux bridge? The written list: when, what each does, and why.

use vswitch_tests::{
    fabric::Knob,
    frame::{BROADCAST, Frame, Mac},
    lab::{HOST, HOST_MAC, Lab, OUTSIDE},
    model::Member,
};

use crate::frames_cases::{HOST_ALIAS, NARROW, NARROW_MTU, PORTS, Setup, untagged_len};

/// One frame in its circumstances.
pub(crate) struct Case<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) setup: &'a Setup,
    pub(crate) from: &'a str,
    pub(crate) frame: &'a Frame,
    pub(crate) dst: Mac,
    /// Where vswitch knows the destination to be.
    pub(crate) at: Option<Member>,
}

pub(crate) struct Difference {
    pub(crate) when: &'static str,
    pub(crate) applies: fn(&Case) -> bool,
    /// Who receives the frame, as in a table's cell.
    pub(crate) bridge: fn(&Case) -> String,
    pub(crate) vswitch: fn(&Case) -> String,
    /// The number in docs/semantics.md, "Differences from the Linux bridge", and the reason.
    pub(crate) why: &'static str,
}

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        when: "a port sends to 01-80-C2-00-00-00",
        applies: |case| case.from != HOST && case.link_local() == Some(0),
        bridge: |case| format!("{} {}", case.flood(), case.stack(HOST)),
        vswitch: |case| case.stack_here(),
        why: "2: reserved addresses are never forwarded; the bridge forwards this one while its STP is off",
    },
    Difference {
        when: "ext sends to another reserved address, but pause",
        applies: |case| case.from == OUTSIDE && case.link_local().is_some_and(|x| x > 1),
        bridge: |case| case.stack("host@ext"),
        vswitch: |case| case.stack(HOST),
        why: "1: the uplink is the host's own interface, and not a port of the device that is",
    },
    Difference {
        when: "the host sends to a reserved address",
        applies: |case| case.from == HOST && case.link_local().is_some(),
        bridge: |case| case.flood(),
        vswitch: |_| OUTSIDE.to_owned(),
        why: "2: never forwarded; what the host's stack sends on its uplink belongs to the uplink's link",
    },
    Difference {
        when: "a port sends to the address of a port's interface on this machine",
        applies: |case| case.from != HOST && case.owner().is_some(),
        bridge: |case| case.stack_of_owner(),
        vswitch: |case| case.flood(),
        why: "1: the host is reached through the uplink's address; the near end of a cable is nobody",
    },
    Difference {
        when: "the host sends to the address of a port's interface on this machine",
        applies: |case| case.from == HOST && case.owner().is_some(),
        bridge: |case| case.owner().expect("applies").to_owned(),
        vswitch: |case| case.and_the_wire(case.flood()),
        why: "1: as above; the bridge sends it out of that port",
    },
    Difference {
        when: "the host sends what nobody knows, with flood off at its uplink",
        applies: |case| case.from == HOST && case.is_unknown() && !case.setup.is(OUTSIDE, Knob::Flood),
        bridge: |case| case.flood(),
        vswitch: |case| case.and_the_wire(case.flood()),
        why: "1: attaching a switch must not cut the host off from its own wire",
    },
    Difference {
        when: "the host sends to itself",
        applies: |case| case.from == HOST && case.dst == HOST_MAC,
        bridge: |_| String::new(),
        vswitch: |_| OUTSIDE.to_owned(),
        why: "1: what the host sends leaves by its uplink, as without a switch",
    },
    Difference {
        when: "a port sends to an address under which the host has sent, and which is not the uplink's",
        applies: |case| case.from != HOST && case.is_alias_at_host(),
        bridge: |case| case.flood(),
        vswitch: |_| format!("({HOST})"),
        why: "1: the host is a member, and members' addresses are learned; the bridge learns only from its ports",
    },
    Difference {
        when: "the host sends to such an address",
        applies: |case| case.from == HOST && case.is_alias_at_host(),
        bridge: |case| case.flood(),
        vswitch: |_| OUTSIDE.to_owned(),
        why: "1: as above; it leaves by the wire, as without a switch",
    },
];

impl Case<'_> {
    fn link_local(&self) -> Option<u8> {
        let [a, b, c, d, e, x] = self.dst;
        ([a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && x < 16).then_some(x)
    }

    fn is_group(&self) -> bool {
        self.dst[0] & 1 == 1
    }

    fn is_unknown(&self) -> bool {
        !self.is_group() && self.dst != HOST_MAC && self.at.is_none()
    }

    fn is_alias_at_host(&self) -> bool {
        self.dst == HOST_ALIAS && self.at.is_some()
    }

    /// The station whose port's interface has the destination as its own address.
    fn owner(&self) -> Option<&str> {
        let owner = self.lab.downlinks().find(|member| member.port_mac == self.dst);
        owner.map(|member| member.name.as_str())
    }

    /// The ports that have a frame for many, by the rules that bridge and vswitch share.
    fn flood(&self) -> String {
        let knob = match self.dst {
            BROADCAST => Knob::BcastFlood,
            _ if self.is_group() => Knob::McastFlood,
            _ => Knob::Flood,
        };
        let setup = self.setup;
        let has = |port: &&str| {
            let wants = setup.is(port, knob) || self.from == HOST && self.is_group();
            let reflected = *port == self.from && !setup.is(port, Knob::Hairpin);
            let isolated =
                self.from != HOST && setup.is(self.from, Knob::Isolated) && setup.is(port, Knob::Isolated);
            let fits = *port != NARROW || untagged_len(self.frame) <= NARROW_MTU + 18;
            wants && !reflected && !isolated && fits
        };
        PORTS.into_iter().filter(has).collect::<Vec<_>>().join(" ")
    }

    fn and_the_wire(&self, cell: String) -> String {
        if cell.split(' ').any(|name| name == OUTSIDE) { cell } else { format!("{cell} {OUTSIDE}") }
    }

    /// A stack does not take frames of a VLAN that it has no device for.
    fn stack(&self, name: &str) -> String {
        let foreign = self.frame.tci.is_some_and(|tci| tci & 0xfff != 0);
        if foreign { format!("({name})") } else { name.to_owned() }
    }

    /// Of the interface that the frame is on.
    fn stack_here(&self) -> String {
        if self.from == OUTSIDE { self.stack(HOST) } else { self.stack(&format!("{HOST}@{}", self.from)) }
    }

    /// The bridge's device has it; whether as its own depends on the interface that it came by.
    fn stack_of_owner(&self) -> String {
        if self.owner() == Some(self.from) { self.stack(HOST) } else { format!("({HOST})") }
    }
}
