//! Whose programs run as clsact filters of an interface? Only kernels without tcx (before 6.6) need to be asked.

use anyhow::Result;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption},
};

use super::{Link, Netlink};

/// TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS) and TC_H_MIN_EGRESS, include/uapi/linux/pkt_sched.h.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// The programs' numbers; 0 for a filter that is no program. None: there is no such filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Of what arrives.
    pub ingress: Option<u32>,
    /// Of what the host sends.
    pub egress: Option<u32>,
}

impl Netlink {
    /// The filters of that priority and handle.
    pub async fn clsact_filters(&self, link: &Link, priority: u16, handle: u32) -> Result<Filters> {
        let mut filters = Filters::default();
        for (parent, found) in [(INGRESS, &mut filters.ingress), (EGRESS, &mut filters.egress)] {
            let mut message = TcMessage::with_index(link.ifindex.cast_signed());
            message.header.parent = parent.into();
            let what = format!(r#"list the tc filters of "{}""#, link.ifname);
            let replies = self.dump(RouteNetlinkMessage::GetTrafficFilter(message), &what).await?;
            *found = replies.iter().find_map(|reply| {
                let RouteNetlinkMessage::NewTrafficFilter(filter) = reply else { return None };
                // tcm_info: the priority above, the protocol below.
                let ours = u32::from(filter.header.handle) == handle
                    && filter.header.info >> 16 == u32::from(priority);
                ours.then(|| program(filter).unwrap_or_default())
            });
        }
        Ok(filters)
    }
}

fn program(filter: &TcMessage) -> Option<u32> {
    filter.attributes.iter().find_map(|attribute| {
        let TcAttribute::Options(options) = attribute else { return None };
        options.iter().find_map(|option| {
            if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option { Some(*id) } else { None }
        })
    })
}
