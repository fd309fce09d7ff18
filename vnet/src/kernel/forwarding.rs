//! An interface of the host that forwards though the host does not: an uplink whose packets go through the host's
//! stack, to be seen by its firewall.
//!
//! What the parameters were is written down before they are changed (`RUN/sysctl/forwarding@INTERFACE`), so that
//! removal restores them; a parameter that the user has changed since stays as the user wants it.
//!
//! IPv6 is forwarded by `force_forwarding` (Linux 6.17), which leaves alone whether the interface is a router's:
//! `forwarding` of IPv6 would have the host ignore router advertisements, and forwards nothing by itself.

use super::error::Error;
use super::former::Former;
use super::sysctl::Setting;
use crate::instance::Instance;
use crate::plan::{Resource, State};

/// How the notes are named, before the interface.
const PREFIX: &str = "forwarding@";

fn settings(interface: &str) -> [Setting; 2] {
    [Setting::v4(interface, "forwarding", "1"), Setting::v6_if_known(interface, "force_forwarding", "1")]
}

fn former(instance: &Instance, interface: &str) -> Former {
    Former::of(instance, &format!("{PREFIX}{interface}"))
}

/// The interfaces of which it is noted what was before.
pub(super) fn noted(instance: &Instance) -> Result<Vec<Resource>, Error> {
    let names = Former::names(instance)?;
    let interfaces = names.iter().filter_map(|name| name.strip_prefix(PREFIX));
    // One whose note was being written has not been changed as yet.
    let interfaces = interfaces.filter(|interface| !interface.ends_with("+new"));
    Ok(interfaces.map(|interface| Resource::Forwarding { interface: interface.to_owned() }).collect())
}

/// How it stands.
pub(super) fn state(instance: &Instance, interface: &str) -> Result<State, Error> {
    if former(instance, interface).load()?.is_none() {
        return Ok(State::Absent);
    }
    for setting in settings(interface) {
        if let Some(difference) = setting.difference()? {
            return Ok(State::Differs(difference));
        }
    }
    Ok(State::Present)
}

/// Makes the interface forward.
pub(super) fn create(instance: &Instance, interface: &str) -> Result<(), Error> {
    let former = former(instance, interface);
    let settings = settings(interface);
    if former.load()?.is_none() {
        let mut text = String::new();
        for setting in &settings {
            if let Some(value) = setting.current()? {
                text.push_str(&format!("{}={value}\n", setting.key()));
            }
        }
        former.save(&text)?;
    }
    settings.iter().try_for_each(Setting::apply)
}

/// Restores what was before.
pub(super) fn remove(instance: &Instance, interface: &str) -> Result<(), Error> {
    let former = former(instance, interface);
    let Some(text) = former.load()? else { return Ok(()) };
    for setting in settings(interface) {
        let before = text.lines().find_map(|line| line.strip_prefix(&setting.key())?.strip_prefix('='));
        if let Some(before) = before {
            setting.restore(before)?;
        }
    }
    former.remove()
}
