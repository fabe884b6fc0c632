//! Where do these tests run? In namespaces made for them, that no panic leaves behind.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::Netns;

/// A namespace of `ip netns`, gone when dropped, also by a panic.
pub(super) struct Fresh {
    pub(super) name: String,
    pub(super) netns: Netns,
}

impl Fresh {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vsnet-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Self { netns: Netns::open(&name).unwrap(), name }
    }

    /// Runs a test's body inside.
    pub(super) fn block_on<F: Future<Output = T>, T: Send>(&self, body: impl FnOnce() -> F + Send) -> T {
        self.netns.run_async_in(body).unwrap()
    }

    pub(super) fn run(&self, program: &str, args: &[&str]) {
        let done = self.netns.run_in(|| Command::new(program).args(args).status()).unwrap().unwrap();
        assert!(done.success(), "{program} {args:?}");
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
