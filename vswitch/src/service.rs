//! What does the service manager get to know of a controller? sd_notify(3); nothing where there is no such manager.

use std::time::Duration;

use sd_notify::NotifyState;

/// The switch is as it shall be, and the controller at work.
pub(crate) fn ready(switch: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&status(switch, ""))]);
}

/// The controller has seen to every port; `wrong` is what it could not put right, a line for each.
pub(crate) fn progress(switch: &str, wrong: &str) {
    notify(&[NotifyState::Watchdog, NotifyState::Status(&status(switch, wrong))]);
}

/// The controller could not see to the ports. If that stays so, the manager may try with another one.
pub(crate) fn stuck(switch: &str, why: &str) {
    notify(&[NotifyState::Status(&status(switch, why))]);
}

/// The controller ends, and the switch goes on.
pub(crate) fn stopping(switch: &str) {
    let status = format!("switch {switch}: forwards without a controller");
    notify(&[NotifyState::Stopping, NotifyState::Status(&status)]);
}

/// How often the manager wants to hear of progress at least: twice in the time after which it takes the controller for
/// stuck.
pub(crate) fn pulse() -> Option<Duration> {
    Some(sd_notify::watchdog_enabled()? / 2)
}

fn status(switch: &str, wrong: &str) -> String {
    let mut lines = wrong.lines();
    match (lines.next(), lines.count()) {
        (None, _) => format!("switch {switch}: every port is followed"),
        (Some(line), 0) => format!("switch {switch}: {line}"),
        (Some(line), more) => format!("switch {switch}: {line} (and {more} more)"),
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // A manager that does not listen is no reason to stop switching.
    let _unheard = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_one_line() {
        assert_eq!(status("vs0", ""), "switch vs0: every port is followed");
        assert_eq!(status("vs0", r#""web0": down"#), r#"switch vs0: "web0": down"#);
        assert_eq!(status("vs0", "a: x\nb: y\nc: z"), "switch vs0: a: x (and 2 more)");
    }
}
