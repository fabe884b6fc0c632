//! Which drivers have native XDP, and how long a frame may be with it?

use super::{
    super::{Link, LinkKind},
    Facts, Refusal, describe, refusal,
};

// The longest payload for a program without frags: it must fit one page with headroom, skb_shared_info and Ethernet header.
/// Of a veth's *peer*, whose frames the program gets (drivers/net/veth.c, veth_xdp_set; tried on 6.18).
pub const VETH_XDP_MTU: u32 = 3506;
/// drivers/net/virtio_net.c, virtnet_xdp_set.
pub const VIRTIO_XDP_MTU: u32 = 3506;
/// tun accepts any MTU with XDP, but builds frames of more than a page without it.
pub const TUN_XDP_MTU: u32 = 1500;

/// Drivers with native XDP, by ethtool's name. An older kernel's may lack it all the same, which attaching tells.
const NATIVE: &[&str] = &[
    "am65-cpsw-nuss",
    "atlantic",
    "bnxt_en",
    "cpsw",
    "ena",
    "fec",
    "fsl_dpa",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "funeth",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "idpf",
    "igb",
    "igc",
    "ionic",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "nicvf",
    "qede",
    "rvu-nicpf",
    "sfc",
    "st_gmac",
    "tsnep",
    "vif",
    "virtio_net",
    "vmxnet3",
];

pub(super) fn known_native(link: &Link) -> bool {
    link.driver.as_deref().is_some_and(|driver| NATIVE.contains(&driver))
}

/// Is the MTU one that native XDP carries here?
pub(super) fn mtu(facts: &Facts) -> Result<(), Refusal> {
    let link = &facts.link;
    let (subject, set, mtu, limit, carrier) = match (&link.kind, &facts.peer) {
        (LinkKind::Veth, Some(peer)) => {
            let inside = peer.netns.as_ref().map(|netns| format!("-n {netns} ")).unwrap_or_default();
            let set = format!("ip {inside}link set {}", peer.link.ifname);
            (format!(" of {}", describe(peer)), set, peer.link.mtu, VETH_XDP_MTU, "a veth")
        }
        (LinkKind::Tap, _) => own_mtu(link, TUN_XDP_MTU, "a tap"),
        (LinkKind::Physical, _) if link.driver.as_deref() == Some("virtio_net") => {
            own_mtu(link, VIRTIO_XDP_MTU, "virtio_net")
        }
        // Others have limits of their own, which attaching tells.
        _ => return Ok(()),
    };
    if mtu <= limit {
        return Ok(());
    }
    let reason = format!("the MTU {mtu}{subject} is above the {limit} that native XDP on {carrier} carries");
    Err(refusal(link, reason, &format!("lower it ({set} mtu {limit}) or use --datapath tc")))
}

fn own_mtu<'a>(link: &Link, limit: u32, carrier: &'a str) -> (String, String, u32, u32, &'a str) {
    (String::new(), format!("ip link set {}", link.ifname), link.mtu, limit, carrier)
}
