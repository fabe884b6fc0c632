//! Do the changes lead from any tables to any other, and is each step of the way safe?

use std::collections::BTreeMap;

use proptest::prelude::*;
use vswitch_ebpf::frame::MacAddr;

use super::*;
use crate::{
    change::compile::{Observed, Seen, compile},
    config::{SwitchConfig, samples::switch},
};

/// Carries out one change as simply as can be.
fn execute(image: &mut Image, write: &Write) {
    match write {
        Write::Settings(settings) => image.settings = *settings,
        Write::Port(slot, port) if *port == Port::default() => drop(image.ports.remove(slot)),
        Write::Port(slot, port) => drop(image.ports.insert(*slot, *port)),
        Write::Enter(ifindex, slot) => drop(image.interfaces.insert(*ifindex, *slot)),
        Write::Leave(ifindex) => drop(image.interfaces.remove(ifindex)),
        Write::Bind(key, bound) => {
            image.learned.retain(|(learned, _)| learned != key);
            image.fdb.insert(*key, *bound);
        }
        Write::Forget(keys) => {
            image.fdb.retain(|key, _| !keys.contains(key));
            image.learned.retain(|(key, _)| !keys.contains(key));
        }
        Write::List(mac, slot) => drop(image.sources.insert((*mac, *slot))),
        Write::Unlist(mac, slot) => drop(image.sources.remove(&(*mac, *slot))),
        Write::Listeners(mac, listeners) if listeners.slots.is_empty() => drop(image.listeners.remove(mac)),
        Write::Listeners(mac, listeners) => drop(image.listeners.insert(*mac, listeners.clone())),
        Write::Domain(slots) => image.domain.clone_from(slots),
        Write::Uplinks(slots) => image.uplinks.clone_from(slots),
        Write::Teach(..) | Write::Sweep => panic!("no change of what shall be: {write:?}"),
    }
}

/// What a switch is compiled to whose nth port has the nth of these slots, and an interface or none.
fn image(config: &SwitchConfig, slots: &BTreeMap<String, (u16, bool)>) -> Image {
    let mut observed = Observed::default();
    for port in &config.ports {
        let (slot, there) = slots[&port.ifname];
        let own = MacAddr([2, 0xaa, 0, 0, 0, slot as u8]);
        let ifindex = if there { 100 + u32::from(slot) } else { 0 };
        observed.ports.insert(port.ifname.clone(), Seen { slot, ifindex, mac: own, ..Seen::default() });
    }
    let mut image = compile(config, &observed).unwrap();
    // In the table, a missing one whose flags are all off is as none.
    image.ports.retain(|_, port| *port != Port::default());
    image
}

/// One slot for each name that there is, so that ports stay in theirs, and whether its interface is there.
fn slots(presence: &[bool]) -> BTreeMap<String, (u16, bool)> {
    let names = ["web0", "vm0", "nic2", "nic3", "nic4", "nic5"];
    let places = (1..).zip(presence.iter().copied());
    names.map(str::to_owned).into_iter().zip(places).collect()
}

proptest! {
    #[test]
    fn they_lead_there_safely(
        from in switch(), to in switch(),
        before in prop::collection::vec(any::<bool>(), 6), after in prop::collection::vec(any::<bool>(), 6),
    ) {
        let (mut now, goal) = (image(&from, &slots(&before)), image(&to, &slots(&after)));
        for slot in now.ports.keys() {
            now.learned.push((FdbKey { mac: MacAddr([2, 0xcc, 0, 0, 0, *slot as u8]), vlan: 0 }, *slot));
        }
        let start = now.clone();
        for write in diff(&start, &goal) {
            execute(&mut now, &write);
            for (ifindex, slot) in &now.interfaces {
                // A frame may come in: of a port that is whole, or of one that has gone.
                let port = now.ports.get(slot);
                let as_before = start.ports.get(slot).is_some_and(|port| port.ifindex == *ifindex);
                prop_assert!(as_before || port == goal.ports.get(slot), "{write:?}");
            }
            for (key, bound) in &now.fdb {
                // It is not where it was, it is where it shall be.
                let same = |image: &Image| image.fdb.get(key) == Some(bound);
                prop_assert!(same(&start) || same(&goal), "{write:?}");
            }
            for (key, bound) in &goal.fdb {
                // What is bound before and after is bound all the time.
                prop_assert!(!start.fdb.contains_key(key) || now.fdb.contains_key(key), "{bound:?}: {write:?}");
            }
            for slot in now.domain.iter().filter(|slot| !start.domain.contains(slot)) {
                prop_assert_eq!(now.ports.get(slot), goal.ports.get(slot), "what is for many: {:?}", write);
            }
            let looks = now.settings.flags & goal.settings.flags & LOOKS;
            prop_assert_eq!(looks, goal.settings.flags & LOOKS, "what comes is looked at from the first change on");
        }
        prop_assert!(now.learned.iter().all(|(_, slot)| goal.is_present(*slot)));
        now.learned.clear();
        now.nics.clone_from(&goal.nics);
        prop_assert_eq!(&now, &goal);
        prop_assert_eq!(diff(&goal, &goal), Vec::new());
    }
}
