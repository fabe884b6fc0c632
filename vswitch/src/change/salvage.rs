//! How is a switch taken away that cannot be opened? By the records of its ports alone.

use anyhow::Result;

use super::{interface, lifecycle, nics};
use crate::{
    dataplane::{ledger::PortRecord, pins::Pins},
    failure::in_words,
    net::Netlink,
};

/// Takes it away. Adds to the notes what nobody knows any more; returns the failures.
pub(crate) async fn salvage(
    switch: &str,
    pins: &Pins,
    records: Option<Vec<(u16, PortRecord)>>,
    netlink: &Netlink,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    if records.is_none() {
        notes.push(
            "which ports it had is lost: interfaces that it set promiscuous or changed for XDP stay so"
                .into(),
        );
        let made = interface::delete_marked(netlink, switch).await;
        for done in [made, lifecycle::unfilter(pins, netlink).await] {
            failures.extend(done.err().map(|err| in_words(&err)));
        }
    }
    let records = records.unwrap_or_default();
    match nics::salvage(pins, netlink, &records).await {
        Ok(note) => notes.extend(note),
        Err(err) => failures.push(in_words(&err)),
    }
    for (slot, record) in &records {
        if let Err(err) = lifecycle::salvage(pins, netlink, *slot, record).await {
            failures.push(in_words(&err));
        }
    }
    if let Err(err) = interface::delete_all_made(switch, pins, netlink, &records).await {
        failures.push(in_words(&err));
    }
    pins.remove()?;
    Ok(failures)
}
