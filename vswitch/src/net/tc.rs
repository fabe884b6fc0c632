//! Which clsact filters has an interface? Only kernels without tcx (before 6.6) need to be asked.

use anyhow::Result;
use rtnetlink::packet_route::{RouteNetlinkMessage, tc::TcMessage};

use super::{Link, Netlink};

/// TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS) and TC_H_MIN_EGRESS, include/uapi/linux/pkt_sched.h.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

impl Netlink {
    /// Whether there is a filter of that priority and handle, at ingress and at egress.
    pub async fn clsact_filters(&self, link: &Link, priority: u16, handle: u32) -> Result<(bool, bool)> {
        let mut found = [false; 2];
        for (parent, found) in [INGRESS, EGRESS].into_iter().zip(&mut found) {
            let mut message = TcMessage::with_index(link.ifindex.cast_signed());
            message.header.parent = parent.into();
            let what = format!(r#"list the tc filters of "{}""#, link.ifname);
            let replies = self.dump(RouteNetlinkMessage::GetTrafficFilter(message), &what).await?;
            *found = replies.iter().any(|reply| {
                // tcm_info: the priority above, the protocol below.
                matches!(reply, RouteNetlinkMessage::NewTrafficFilter(filter)
                    if u32::from(filter.header.handle) == handle && filter.header.info >> 16 == u32::from(priority))
            });
        }
        Ok(found.into())
    }
}
