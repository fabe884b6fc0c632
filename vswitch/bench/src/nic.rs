//! How are two interfaces of the user's, cabled to each other, borrowed for a bench and given back?
//!
//! They move into rooms of the bench, where nothing else of the machine uses them, and come back under their own names.
//! Addresses and routes are lost on the way: the user is asked before.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use rtnetlink::{Handle, LinkUnspec, packet_route::link::LinkFlags};

use super::lab::{Room, far, index_of, port};
use vswitch::net::Netns;

const NEGOTIATION: Duration = Duration::from_secs(10);

/// Frames leave by one and come in by the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The sender's.
    pub tx: String,
    /// The switch's.
    pub rx: String,
}

/// A pair that is in rooms of the bench, until it is dropped.
pub(super) struct Lent {
    pair: Pair,
    rooms: [Netns; 2],
}

impl Pair {
    /// Whether both are here, and are two.
    pub fn check(&self) -> Result<()> {
        if self.tx == self.rx {
            bail!("--tx and --rx: must be two interfaces");
        }
        let (tx, rx) = (self.tx.clone(), self.rx.clone());
        in_netns(&Netns::current()?, |handle| async move {
            index_of(&handle, &tx).await?;
            index_of(&handle, &rx).await.map(drop)
        })
    }

    /// Moves those that are in a room back here. Those that are not there are no error.
    pub(super) fn bring_home(&self, from: &Netns) -> Result<()> {
        let home = Netns::current()?;
        for (inside, name) in [(far(0), &self.tx), (port(0), &self.rx)] {
            carry(from, &inside, &home, name)?;
        }
        Ok(())
    }
}

impl Lent {
    pub(super) fn take(pair: &Pair, sender: &Room, switch: &Room) -> Result<Self> {
        let home = Netns::current()?;
        // From here on it comes back, also if only one of them went.
        let lent = Self { pair: pair.clone(), rooms: [sender.netns.clone(), switch.netns.clone()] };
        carry(&home, &pair.tx, &sender.netns, &far(0))?;
        carry(&home, &pair.rx, &switch.netns, &port(0))?;
        in_netns(&switch.netns, |handle| async move {
            let up = LinkUnspec::new_with_name(&port(0)).promiscuous(true).up().build();
            handle.link().set(up).execute().await.context("set the receiving interface up")
        })?;
        Ok(lent)
    }
}

/// Waits until an interface has its carrier, which a NIC takes seconds for.
pub(super) async fn carrier(handle: &Handle, name: &str) -> Result<()> {
    let deadline = Instant::now() + NEGOTIATION;
    while Instant::now() < deadline {
        let mut links = handle.link().get().match_name(name.to_owned()).execute();
        let link = links.next().await.with_context(|| format!(r#"interface "{name}": not found"#))?;
        if link.context("look up an interface")?.header.flags.contains(LinkFlags::LowerUp) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("no carrier within {NEGOTIATION:?}: are the two interfaces cabled to each other?")
}

impl Drop for Lent {
    fn drop(&mut self) {
        for room in &self.rooms {
            // What could not be moved the guard tries again, and complains of.
            let _guarded = self.pair.bring_home(room);
        }
    }
}

/// Moves an interface and names it anew; up again at home, as it most likely was. One that is not there is no error.
fn carry(from: &Netns, name: &str, to: &Netns, new_name: &str) -> Result<()> {
    let fd = to.as_fd().as_raw_fd();
    let (name, new_name) = (name.to_owned(), new_name.to_owned());
    let (wanted, what) = (new_name.clone(), format!(r#"move "{name}" to {}"#, to.label()));
    let moved = in_netns(from, |handle| async move {
        let Ok(index) = index_of(&handle, &name).await else { return Ok(false) };
        let link = LinkUnspec::new_with_index(index).down().promiscuous(false).build();
        handle.link().set(link).execute().await.context(what.clone())?;
        let link = LinkUnspec::new_with_index(index).name(new_name).setns_by_fd(fd).build();
        handle.link().set(link).execute().await.context(what)?;
        Ok(true)
    })?;
    if moved {
        in_netns(to, |handle| async move {
            let up = LinkUnspec::new_with_name(&wanted).up().build();
            handle.link().set(up).execute().await.with_context(|| format!("set {wanted} up"))
        })?;
    }
    Ok(())
}

/// As [`Room::links`].
fn in_netns<T: Send, F>(netns: &Netns, work: impl FnOnce(Handle) -> F + Send) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    netns.run_async_in(|| async {
        let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
        tokio::spawn(connection);
        work(handle).await
    })?
}
