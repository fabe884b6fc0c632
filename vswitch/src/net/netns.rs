//! Which network namespaces are there, which one is meant, and how is something done inside it?

use std::{
    collections::HashSet,
    fs::{self, File},
    future::Future,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, bail};
use rtnetlink::{
    packet_core::NLM_F_REQUEST,
    packet_route::{
        RouteNetlinkMessage,
        nsid::{NsidAttribute, NsidMessage},
    },
};

use super::{Netlink, Refused};
use crate::privileges::with_reserve;

const NAMED: &str = "/run/netns";

/// A network namespace, held open: it cannot go away meanwhile. Equal when it is the same namespace, by whatever name.
#[derive(Debug, Clone)]
pub struct Netns {
    file: Arc<File>,
    label: String,
    identity: (u64, u64),
}

impl Netns {
    /// The namespace that `ip netns` lists by that name, that a path leads to, or that the process of that number is in.
    pub fn open(name_or_path: &str) -> Result<Self> {
        let named = if name_or_path.contains('/') {
            PathBuf::from(name_or_path)
        } else if name_or_path.is_empty() || name_or_path == "." || name_or_path == ".." {
            bail!(r#"namespace "{name_or_path}": not a name"#);
        } else {
            Path::new(NAMED).join(name_or_path)
        };
        let mut opened = Self::at(&named, name_or_path.to_owned());
        if let (Err(_), Ok(pid)) = (&opened, name_or_path.parse::<u32>()) {
            opened = Self::at(Path::new(&format!("/proc/{pid}/ns/net")), format!("pid {pid}"));
        }
        match opened {
            Ok(netns) => Ok(netns),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                bail!(r#"namespace "{name_or_path}": not found (ip netns list shows them)"#)
            }
            Err(err) if err.raw_os_error() == Some(libc::ENOTTY) => {
                bail!(r#"namespace "{name_or_path}": {} is not a network namespace"#, named.display())
            }
            Err(err) => Err(Refused::from_io(format!(r#"open namespace "{name_or_path}""#), &err).into()),
        }
    }

    /// The calling thread's.
    pub fn current() -> Result<Self> {
        let path = Path::new("/proc/thread-self/ns/net");
        let opened = Self::at(path, "this namespace".to_owned());
        opened.map_err(|err| Refused::from_io("open this thread's network namespace", &err).into())
    }

    /// The namespaces that have a name or a process in them, each once, the named ones first.
    pub fn all() -> Vec<Self> {
        let mut all = Self::named();
        let further = Self::of_processes().into_iter().filter(|netns| !all.contains(netns));
        let further: Vec<_> = further.collect();
        all.extend(further);
        all
    }

    /// Those that have a name, each once.
    pub fn named() -> Vec<Self> {
        Self::distinct(entries(NAMED))
    }

    /// Those that have a process in them, each once.
    pub fn of_processes() -> Vec<Self> {
        let processes = entries("/proc").into_iter().filter(|(_, name)| name.parse::<u32>().is_ok());
        let namespaces = processes.map(|(path, name)| (path.join("ns/net"), format!("pid {name}")));
        // A process of another user, or with more capabilities, shows its namespace to CAP_SYS_PTRACE alone.
        with_reserve(|| Self::distinct(namespaces))
    }

    fn distinct(places: impl IntoIterator<Item = (PathBuf, String)>) -> Vec<Self> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for (path, label) in places {
            // By stat first: a machine has many processes and few namespaces.
            let Ok(meta) = fs::metadata(&path) else { continue };
            if !seen.contains(&(meta.dev(), meta.ino()))
                && let Ok(netns) = Self::at(&path, label)
            {
                seen.insert(netns.identity);
                found.push(netns);
            }
        }
        found
    }

    /// Its name, its path, or `pid N`: for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What [`Netns::open`] finds it by.
    pub fn name(&self) -> &str {
        // A process is named by its number alone.
        self.label.strip_prefix("pid ").unwrap_or(&self.label)
    }

    /// (st_dev, st_ino) of its file under nsfs: the same for the same namespace as long as it lives.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Runs `work` inside and waits for it: right here where the caller is inside already, else on a thread of its own,
    /// for the caller's thread never changes namespace. Errors: entering is refused (needs CAP_SYS_ADMIN).
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        if Self::current().is_ok_and(|current| current == *self) {
            return Ok(work());
        }
        self.run_on_thread(work)
    }

    fn run_on_thread<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || {
            // SAFETY: setns takes no pointers; the descriptor is open for as long as `self` lives. It moves this
            // thread alone, which ends after `work`.
            let entered = with_reserve(|| unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) });
            if entered < 0 {
                return Err(Refused::last(format!(r#"enter namespace "{}""#, self.label))
                    .remedy("run as root, or with CAP_SYS_ADMIN"));
            }
            Ok(work())
        };
        thread::scope(|scope| {
            let spawned = thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside);
            match spawned.context("start a thread")?.join() {
                Ok(done) => Ok(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// As [`Netns::run_in`], for asynchronous work: `make` and its future run in a single-threaded runtime of that
    /// thread, so that every socket that they open belongs to the namespace. Blocks the caller.
    pub fn run_async_in<T, W, F>(&self, make: W) -> Result<T>
    where
        T: Send,
        W: FnOnce() -> F + Send,
        F: Future<Output = T>,
    {
        // Never on this thread: it may have a runtime already, and they do not nest.
        self.run_on_thread(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            Ok(runtime.context("start a runtime")?.block_on(async { make().await }))
        })?
    }

    /// Errors: ENOTTY when there is something else at that path.
    fn at(path: &Path, label: String) -> io::Result<Self> {
        const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
        let file = File::open(path)?;
        // SAFETY: NS_GET_NSTYPE takes no argument; the descriptor is open.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(io::Error::from_raw_os_error(libc::ENOTTY));
        }
        let meta = file.metadata()?;
        Ok(Self { file: Arc::new(file), label, identity: (meta.dev(), meta.ino()) })
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Netlink {
    /// The namespace that this one numbers `netnsid` ([`super::Peer::netnsid`]); the one called `likely` is looked at
    /// first. `None`: it has neither a name under /run/netns nor a process that can be seen from here.
    pub async fn namespace_of(&self, netnsid: i32, likely: Option<&str>) -> Result<Option<Netns>> {
        if let Some(netns) = likely.and_then(|name| Netns::open(name).ok())
            && self.netnsid(&netns).await? == Some(netnsid)
        {
            return Ok(Some(netns));
        }
        // In this order: a machine has many processes.
        for places in [Netns::named, Netns::of_processes] {
            for netns in places() {
                if self.netnsid(&netns).await? == Some(netnsid) {
                    return Ok(Some(netns));
                }
            }
        }
        Ok(None)
    }

    /// The number that the namespace of this handle has given to `netns`, if any.
    pub async fn netnsid(&self, netns: &Netns) -> Result<Option<i32>> {
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Fd(netns.file.as_raw_fd().cast_unsigned()));
        let what = format!(r#"look up namespace "{}""#, netns.label);
        let replies = self.request(RouteNetlinkMessage::GetNsId(message), NLM_F_REQUEST, &what).await?;
        let id = replies.into_iter().find_map(|reply| {
            let RouteNetlinkMessage::NewNsId(reply) = reply else { return None };
            reply
                .attributes
                .into_iter()
                .find_map(|attribute| if let NsidAttribute::Id(id) = attribute { Some(id) } else { None })
        });
        // -1: not numbered.
        Ok(id.filter(|&id| id >= 0))
    }
}

fn entries(dir: &str) -> Vec<(PathBuf, String)> {
    let Ok(dir) = fs::read_dir(dir) else { return Vec::new() };
    dir.flatten().map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned())).collect()
}
