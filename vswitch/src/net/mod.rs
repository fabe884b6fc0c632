//! What are the machine's interfaces and namespaces, and how are they changed? The controller's only way to see them.

pub mod action;
mod change;
mod errno;
pub mod ethtool;
mod fdb;
pub mod links;
mod netlink;
pub mod netns;
pub mod ready;
mod tap;
mod tc;
#[cfg(test)]
mod tests;
pub mod watch;

pub use action::{Action, Target, Undo};
pub use change::Veth;
use change::check_name;
pub use errno::Refused;
pub(crate) use errno::words;
pub use ethtool::{Ethtool, Feature, Features};
pub use links::{Link, LinkKind, Mac, Master, Peer, XdpMode, XdpProgram, mac_text};
pub use netlink::Netlink;
pub use netns::Netns;
pub use ready::{Facts, PeerFacts, Readiness, Refusal, readiness};
pub use watch::{LinkEvent, Watch};
