//! What is an interface: its kind, addresses, limits, master, peer and XDP program, as netlink tells it?

use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoNetkit, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
    NetkitMode, XdpAttached,
};

/// An Ethernet address, in the order of the wire.
pub type Mac = [u8; 6];

/// `aa:bb:cc:dd:ee:ff`
pub fn mac_text(mac: &Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// What made the interface, which decides how a frame is best delivered to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// An Ethernet interface of a driver, not of `ip link add`: a NIC, virtual or not.
    Physical,
    Veth,
    Tap,
    /// A tun device that carries IP packets, not frames.
    Tun,
    Bridge,
    Macvlan,
    Bond,
    Vlan,
    Dummy,
    Loopback,
    Netkit,
    /// A netkit device that carries IP packets, not frames.
    NetkitL3,
    /// The kernel's name of any other kind.
    Other(String),
}

impl LinkKind {
    /// The kind as `ip -d link` names it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Physical => "physical",
            Self::Veth => "veth",
            Self::Tap => "tap",
            Self::Tun => "tun",
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Bond => "bond",
            Self::Vlan => "vlan",
            Self::Dummy => "dummy",
            Self::Loopback => "loopback",
            Self::Netkit | Self::NetkitL3 => "netkit",
            Self::Other(name) => name,
        }
    }
}

/// The bridge, bond, ... that an interface is a port of (`IFLA_MASTER`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    pub ifindex: u32,
    /// `bridge`, `bond`, `vrf`, ... (`IFLA_INFO_SLAVE_KIND`).
    pub kind: String,
    /// Filled by look-ups, not in events.
    pub ifname: Option<String>,
}

/// The other end of a veth or netkit pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its index in its own namespace (`IFLA_LINK`).
    pub ifindex: u32,
    /// That namespace as this one numbers it (`IFLA_LINK_NETNSID`), resolved by [`super::Netlink::namespace_of`];
    /// `None`: this same namespace.
    pub netnsid: Option<i32>,
}

/// How an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    Native,
    Generic,
    Offloaded,
    /// Programs in several modes at once; the id is that of one of them.
    Several,
}

/// The XDP program of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpProgram {
    /// As `bpftool prog` shows it; 0 when the kernel does not tell.
    pub id: u32,
    pub mode: XdpMode,
}

/// An interface at one moment. Source: RTM_NEWLINK; lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub ifname: String,
    /// All zero where the interface has no Ethernet address.
    pub mac: Mac,
    /// It carries Ethernet frames (ARPHRD_ETHER).
    pub ethernet: bool,
    pub kind: LinkKind,
    /// Payload length, without the Ethernet header.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// It has a carrier (IFF_LOWER_UP): for a veth, both ends are up; for a tap, a process holds it.
    pub carrier: bool,
    /// The one administrative IFF_PROMISC flag, shared by everyone who sets it.
    pub promisc: bool,
    pub master: Option<Master>,
    pub peer: Option<Peer>,
    pub xdp: Option<XdpProgram>,
    /// What somebody noted down on the interface (`ip link set alias`).
    pub alias: Option<String>,
    /// The driver by ethtool's name for it (`virtio_net`, `veth`, `tun`); filled by look-ups, not in events.
    pub driver: Option<String>,
}

impl Link {
    /// Reads a RTM_NEWLINK or RTM_DELLINK message.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the kernel tells more of an interface than is asked here"
    )]
    pub(crate) fn parse(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            ifname: String::new(),
            mac: [0; 6],
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            kind: LinkKind::Physical,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            promisc: flags.contains(LinkFlags::Promisc),
            master: None,
            peer: None,
            xdp: None,
            alias: None,
            driver: None,
        };
        let (mut info, mut lower, mut netnsid, mut master) = (Vec::new(), None, None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.ifname = name,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::IfAlias(text) => link.alias = Some(text),
                LinkAttribute::Controller(ifindex) => master = Some(ifindex),
                LinkAttribute::Link(ifindex) => lower = Some(ifindex),
                LinkAttribute::LinkNetNsId(id) => netnsid = Some(id),
                LinkAttribute::LinkInfo(parts) => info = parts,
                LinkAttribute::Xdp(parts) => link.xdp = xdp(&parts),
                _ => {}
            }
        }
        link.kind = kind(message.header.link_layer_type, &info);
        if matches!(link.kind, LinkKind::Veth | LinkKind::Netkit) {
            link.peer = lower.filter(|&ifindex| ifindex != 0).map(|ifindex| Peer { ifindex, netnsid });
        }
        link.master = master.filter(|&ifindex| ifindex != 0).map(|ifindex| {
            let kind = info.iter().find_map(|part| match part {
                LinkInfo::PortKind(kind) => Some(kind.to_string()),
                _ => None,
            });
            Master { ifindex, kind: kind.unwrap_or_else(|| "master".into()), ifname: None }
        });
        link
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "kinds without rules of their own keep the kernel's name")]
fn kind(layer: LinkLayerType, info: &[LinkInfo]) -> LinkKind {
    let named = info.iter().find_map(|part| match part {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match (named, layer) {
        (_, LinkLayerType::Loopback) => LinkKind::Loopback,
        (None, LinkLayerType::Ether) => LinkKind::Physical,
        (None, layer) => LinkKind::Other(format!("{layer:?}").to_lowercase()),
        (Some(InfoKind::Tun), LinkLayerType::Ether) => LinkKind::Tap,
        (Some(InfoKind::Tun), _) => LinkKind::Tun,
        (Some(InfoKind::Veth), _) => LinkKind::Veth,
        (Some(InfoKind::Bridge), _) => LinkKind::Bridge,
        (Some(InfoKind::MacVlan | InfoKind::MacVtap), _) => LinkKind::Macvlan,
        (Some(InfoKind::Bond), _) => LinkKind::Bond,
        (Some(InfoKind::Vlan), _) => LinkKind::Vlan,
        (Some(InfoKind::Dummy), _) => LinkKind::Dummy,
        (Some(InfoKind::Netkit), _) if is_l3(info) => LinkKind::NetkitL3,
        (Some(InfoKind::Netkit), _) => LinkKind::Netkit,
        (Some(other), _) => LinkKind::Other(other.to_string()),
    }
}

fn is_l3(info: &[LinkInfo]) -> bool {
    let l3 = InfoNetkit::Mode(NetkitMode::L3);
    info.iter().any(|part| matches!(part, LinkInfo::Data(InfoData::Netkit(parts)) if parts.contains(&l3)))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "flags and file descriptors are for attaching, not for reading"
)]
fn xdp(parts: &[LinkXdp]) -> Option<XdpProgram> {
    let (mut mode, mut id) = (None, 0);
    for part in parts {
        match *part {
            LinkXdp::Attached(XdpAttached::None) => mode = None,
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some(XdpMode::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(XdpMode::Generic),
            LinkXdp::Attached(XdpAttached::Hardware) => mode = Some(XdpMode::Offloaded),
            LinkXdp::Attached(_) => mode = Some(XdpMode::Several),
            LinkXdp::ProgId(prog)
            | LinkXdp::DrvProgId(prog)
            | LinkXdp::SkbProgId(prog)
            | LinkXdp::HwProgId(prog)
                if prog != 0 =>
            {
                id = prog;
            }
            _ => {}
        }
    }
    mode.map(|mode| XdpProgram { id, mode })
}
