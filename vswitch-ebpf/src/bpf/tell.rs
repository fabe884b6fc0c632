//! `run --log-packets`: one line for each decision, by aya-log.

use aya_ebpf::{Global, bindings::__sk_buff, programs::TcContext};
use aya_log_ebpf::debug;
use vswitch_ebpf::verdict::{Action, Decision, Members, Verdict};

/// Set by the loader for `--log-packets`. Read-only data: the verifier removes the logging where it is 0.
#[unsafe(no_mangle)]
static LOG_PACKETS: Global<u8> = Global::new(0);

/// One line, where the loader asked for it.
#[inline(always)]
pub(crate) fn tell(ctx: &TcContext, decision: &Decision) {
    if LOG_PACKETS.load() == 0 {
        return;
    }
    let Verdict { action, target, reason, list, .. } = decision.verdict;
    let action = if matches!(list, Members::Nobody) { action } else { Action::Flood };
    let detail = match action {
        Action::Forward | Action::Host => u32::from(target.slot),
        Action::Drop => reason as u32,
        Action::Flood | Action::HostHere => 0,
    };
    vswitch_tell(ctx.skb.skb, u32::from(decision.counted()), action as u32, detail);
}

const FORWARD: u32 = Action::Forward as u32;
const FLOOD: u32 = Action::Flood as u32;
const HOST: u32 = Action::Host as u32;
const HOST_HERE: u32 = Action::HostHere as u32;

/// A global function to the verifier, which looks at it once, with any arguments, and not after each path that leads to it:
/// that was 600,000 instructions on 6.18, and more than are allowed on 6.1. Hence the plain types, and no name of Rust's.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn vswitch_tell(skb: *mut __sk_buff, slot: u32, action: u32, detail: u32) -> i32 {
    if LOG_PACKETS.load() == 0 {
        return 0;
    }
    let ctx = TcContext::new(skb);
    let what = match action {
        FORWARD => "forward to slot",
        FLOOD => "flood",
        HOST => "host behind slot",
        HOST_HERE => "host on this link",
        _ => "drop for reason",
    };
    debug!(ctx, "from slot {}: {} {} ({} bytes)", slot, what, detail, ctx.len());
    0
}
