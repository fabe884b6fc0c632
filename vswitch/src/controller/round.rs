//! How are the ports brought in line with their interfaces? With nothing to do, nothing is written anywhere.

use std::{collections::BTreeSet, pin::pin, time::Instant};

use anyhow::Result;

use super::{Controller, complain, follow, news::News};
use crate::{
    change::{
        faults::{self, Fault},
        interface, lifecycle, nics, reconcile,
        recover::recover,
    },
    config::{Datapath, SwitchConfig},
    dataplane::{
        ledger::{PortRecord, record_flags},
        links,
        state::{self, Member},
    },
    failure::in_words,
    lock::Lock,
    net::{Action, Link, Target, Undo},
};

/// From so many interfaces on, one list of all costs less than to ask for each.
const MANY: usize = 32;

impl Controller<'_> {
    /// Looks at the ports that the news concern, and puts right what is not as it should be. Returns what has happened
    /// meanwhile.
    pub(super) async fn round(&mut self, mut news: News) -> Result<News> {
        self.forget(&news);
        let concerned = |members: &[Member]| members.iter().any(|member| news.concerns(member));
        if news.is_empty() || !news.all && !news.pins && !concerned(&self.dataplane.members()?) {
            return Ok(News::default());
        }
        let Some(mut lock) = self.change(&mut news).await? else { return Ok(News::default()) };
        if self.lock.is_dismissed() {
            // While it waited the switch went, or went over to another ABI: no pin of it may come back.
            return Ok(News::default());
        }
        if !self.dataplane.is_complete()? {
            // Somebody is at it, or was interrupted: whoever brings that to its end ends this controller, too.
            recover(&self.scope.switch, &mut lock).await?;
            Lock::dismiss(&self.scope.switch);
            return Ok(News::default());
        }
        if news.all || news.pins {
            for pin in self.hold.restore(&self.dataplane.members()?)? {
                eprintln!("{}: was removed: put back", pin.display());
            }
        }
        if news.all {
            // A command may have been killed meanwhile.
            recover(&self.scope.switch, &mut lock).await?.iter().for_each(|note| complain(note));
        }
        let members = self.members()?;
        let links = self.links(&news, &members).await?;
        // Where those live on that have gone meanwhile; and what else is news is for the next round.
        let mut later = News::default();
        self.drain(&mut later)?;
        self.forget(&later);
        let mut intent = self.dataplane.intent()?;
        self.follow(&mut intent, &news, &members, &links).await?;
        let members = self.members()?;
        let concerned: Vec<_> = members.iter().filter(|member| news.concerns(member)).collect();
        news.gone.extend(&later.gone);
        let promiscuous = nics::promiscuous(&intent, &members);
        for member in concerned {
            let wrong = match self.port(&intent, member, &links, &news, promiscuous).await {
                Ok(wrong) => wrong,
                Err(err) => vec![in_words(&err)],
            };
            self.tell(member, wrong);
        }
        let slots: BTreeSet<u16> = members.iter().map(|member| member.slot).collect();
        self.wrong.retain(|slot, _| slots.contains(slot));
        Ok(later)
    }

    /// The right to change the switch. While somebody else has it, events are taken in and added to the news. None if the
    /// controller is asked to end meanwhile.
    pub(super) async fn change(&mut self, news: &mut News) -> Result<Option<Lock>> {
        let mut lock = pin!(Lock::change(&self.scope.switch));
        while !self.asked {
            let event = tokio::select! {
                lock = &mut lock => return lock.map(Some),
                () = self.signals.asked() => {
                    self.asked = true;
                    break;
                }
                event = self.watch.next() => event?,
            };
            let mut later = News::default();
            later.add(event, &self.far_ends);
            self.drain(&mut later)?;
            self.forget(&later);
            news.append(later);
        }
        Ok(None)
    }

    /// Where the far ends were of interfaces that are gone.
    fn forget(&mut self, news: &News) {
        news.gone.keys().for_each(|ifindex| self.far_ends.forget(*ifindex));
    }

    /// The ports that no command is at.
    fn members(&self) -> Result<Vec<Member>> {
        let mut members = self.dataplane.members()?;
        members.retain(|member| member.record.flags & record_flags::PENDING == 0);
        Ok(members)
    }

    /// Follows what has changed of the ports' interfaces, if anything has.
    async fn follow(
        &mut self,
        intent: &mut SwitchConfig,
        news: &News,
        members: &[Member],
        links: &[Link],
    ) -> Result<()> {
        let mut changed = news.all;
        for member in members.iter().filter(|member| news.concerns(member) && member.is_present()) {
            let link = links.iter().find(|link| link.ifindex == member.port.ifindex);
            // Asked after the links: an index alone may be a stranger's.
            let Some(link) = link.filter(|_| self.dataplane.is_there(member.slot).unwrap_or(false)) else {
                continue;
            };
            follow::follow(&mut self.dataplane, intent, member, link)?;
            changed |= reconcile::is_changed(&self.dataplane, member, link)?;
        }
        if changed {
            reconcile::follow(&mut self.dataplane, &self.netlink, intent, links, false).await?;
        }
        Ok(())
    }

    /// The interfaces that matter.
    async fn links(&self, news: &News, members: &[Member]) -> Result<Vec<Link>> {
        let concerned: Vec<_> = members.iter().filter(|member| news.concerns(member)).collect();
        if news.all || concerned.len() > MANY {
            return self.netlink.list().await;
        }
        let mut links = Vec::new();
        for member in concerned {
            let there = interface::of(&self.dataplane, &self.netlink, member.slot, &member.record);
            links.extend(match there.await? {
                Some(link) => Some(link),
                None => self.netlink.find(&member.ifname()).await?,
            });
        }
        Ok(links)
    }

    /// Returns what is wrong with a port and stays so for now, a line each.
    async fn port(
        &mut self,
        intent: &SwitchConfig,
        member: &Member,
        links: &[Link],
        news: &News,
        promiscuous: bool,
    ) -> Result<Vec<String>> {
        let ifindex = member.record.ifindex;
        let there = links.iter().find(|link| link.ifindex == ifindex);
        // Asked after the links: an index alone may be a stranger's.
        if let (Some(link), true, true) = (there, member.is_present(), self.dataplane.is_there(member.slot)?)
        {
            return self.repair(intent, member, link, promiscuous).await;
        }
        if ifindex != 0 {
            self.part(intent, member, news.gone.get(&ifindex) == Some(&true)).await?;
        }
        let ifname = member.ifname();
        let Some(link) = links.iter().find(|link| link.ifname == ifname) else {
            // What kept it from being attached went with it.
            self.backoff.done(&attaching(&ifname));
            return Ok(Vec::new());
        };
        // Another port's interface may have been given the name: that one tells of it.
        if self.dataplane.member_of(link.ifindex)?.is_some() {
            return Ok(Vec::new());
        }
        self.join(intent, member.slot, link).await
    }

    /// The port's interface is gone, or is half attached: the port remains, without interface.
    async fn part(&mut self, intent: &SwitchConfig, member: &Member, moved: bool) -> Result<()> {
        // Another port's turn may have changed its record since the round began.
        let member = &self.dataplane.member_at(member.slot)?;
        let there = self.dataplane.is_there(member.slot)?;
        let what = if there { "was attached by half" } else { "the interface is gone" };
        eprintln!(r#""{}": {what}"#, member.ifname());
        // What was changed on it went with it. One that has moved is still as it was made, and so is its far end: if it
        // comes back it must be known what is ours.
        let keep = moved && !there;
        reconcile::detach(&mut self.dataplane, &self.netlink, intent, member, keep).await.map(drop)
    }

    /// An interface of the port's name is there.
    async fn join(&mut self, intent: &SwitchConfig, slot: u16, link: &Link) -> Result<Vec<String>> {
        let ifname = &link.ifname;
        let what = attaching(ifname);
        if !self.backoff.may(&what, Instant::now()) {
            return Ok(self.wrong.get(&slot).cloned().unwrap_or_default());
        }
        let member = self.dataplane.member(ifname)?;
        let attached = match lifecycle::not_of_another_switch(&self.scope.switch, link) {
            Ok(()) => reconcile::attach(&mut self.dataplane, &self.netlink, intent, &member).await,
            Err(taken) => Err(taken),
        };
        match attached {
            Ok(notes) => {
                self.backoff.done(&what);
                eprintln!(r#""{ifname}": attached"#);
                notes.iter().for_each(|note| eprintln!("note: {note}"));
                // Where its far end is, for one.
                let member = self.dataplane.member(ifname)?;
                let link = self.netlink.get(ifname).await?;
                let promiscuous = nics::promiscuous(intent, &self.dataplane.members()?);
                self.repair(intent, &member, &link, promiscuous).await
            }
            Err(err) => {
                if self.netlink.find(ifname).await?.is_some() {
                    return Ok(vec![in_words(&err)]);
                }
                // It has gone since it was listed.
                self.backoff.done(&what);
                Ok(Vec::new())
            }
        }
    }

    /// Puts the faults of a port right, as far as they are ours to put right.
    async fn repair(
        &mut self,
        intent: &SwitchConfig,
        member: &Member,
        link: &Link,
        promiscuous: bool,
    ) -> Result<Vec<String>> {
        let mut netns = self.far_ends.netns(link.ifindex);
        let faults =
            faults::find(&self.dataplane, &self.netlink, member, link, promiscuous, &mut netns).await?;
        // Only XDP needs something of a far end.
        if matches!(state::datapath(member.record.active), Datapath::Xdp | Datapath::XdpGeneric) {
            self.far_ends.note(link, netns);
        }
        let taken = faults.iter().any(|fault| matches!(fault, Fault::Taken(_)));
        let mut wrong = Vec::new();
        for fault in faults {
            let what = format!(r#""{}": {fault}"#, member.ifname());
            let settled = match fault {
                Fault::Taken(_) | Fault::Claimed(_) => false,
                // The kernel gives the place of another's program to nobody.
                Fault::Detached(links::Hook::Xdp | links::Hook::XdpGeneric) if taken => false,
                Fault::Detached(_) | Fault::Undone(_) | Fault::Unfiltered(_) => true,
            };
            if !settled || !self.backoff.may(&what, Instant::now()) {
                wrong.push(what);
                continue;
            }
            match self.put_right(intent, member, link, &fault).await {
                Ok(()) => eprintln!("{what}: put right"),
                Err(err) => wrong.push(format!("{what} ({})", in_words(&err))),
            }
        }
        Ok(wrong)
    }

    async fn put_right(
        &mut self,
        intent: &SwitchConfig,
        member: &Member,
        link: &Link,
        fault: &Fault,
    ) -> Result<()> {
        match fault {
            Fault::Taken(_) | Fault::Claimed(_) => Ok(()),
            Fault::Detached(hook) => {
                let pins = &self.dataplane.pins;
                // A clsact filter may have another program in its place.
                if !links::follow(pins, member.slot, Some(&link.ifname), *hook)? {
                    links::attach(pins, member.slot, &link.ifname, *hook)?;
                }
                self.hold.look();
                Ok(())
            }
            Fault::Undone(Action::PromiscOn) if member.is_uplink() => {
                reconcile::follow(&mut self.dataplane, &self.netlink, intent, &[], false).await
            }
            Fault::Undone(action) => {
                let mut undo = Undo(member.record.undo);
                if !undo.contains(*action) {
                    undo.insert(*action);
                    let record = self.dataplane.ledger.record(member.slot)?;
                    self.dataplane.ledger.set_record(member.slot, PortRecord { undo: undo.0, ..record })?;
                }
                let netns = self.far_ends.netns(link.ifindex);
                let target = Target::of(&self.netlink, link.clone(), netns.as_deref()).await?;
                action.apply(&self.netlink, &target).await
            }
            Fault::Unfiltered(_) => {
                reconcile::follow(&mut self.dataplane, &self.netlink, intent, &[], true).await
            }
        }
    }

    /// Says what is newly wrong with a port, and when all is well again.
    fn tell(&mut self, member: &Member, wrong: Vec<String>) {
        let before = self.wrong.remove(&member.slot).unwrap_or_default();
        wrong.iter().filter(|line| !before.contains(line)).for_each(|line| complain(line));
        if !wrong.is_empty() {
            self.wrong.insert(member.slot, wrong);
        } else if !before.is_empty() {
            eprintln!(r#""{}": is in order again"#, member.ifname());
        }
    }
}

/// What is tried again after a pause.
fn attaching(ifname: &str) -> String {
    format!(r#""{ifname}": attach"#)
}
