//! Where a command works: in the namespace it is run in, or in that of the router it is about.

use super::Command;
use super::context::Context;
use super::hints;
use crate::kernel::Kernel;
use crate::manage;

/// What a command makes of a router whose namespace is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    /// It works outside of any, whatever there is.
    Outside,
    /// Nothing: it says so.
    Fails,
    /// Brings it back, or takes away what is left of it.
    Works,
    /// Likewise, and makes it if it was never there.
    Makes,
}

/// Moves the process into the namespace of the router that its instance is, if it is one; into a new one if it has none and
/// the command gives it one. Runs before there is another thread. Says what is to be known of what is read then: that the
/// router's namespace is not there.
pub(super) fn enter(command: &Command, context: &Context) -> anyhow::Result<Option<String>> {
    let without = command.without_home();
    if without == Without::Outside {
        return Ok(None);
    }
    let instance = &context.instance;
    let Some(manage::Recorded { settings, router, .. }) = manage::recorded_router(instance)? else {
        // An instance that is no router is not made one.
        if without == Without::Makes && !manage::is_recorded(instance)? {
            command.check_outside(context)?;
            Kernel::enter_new()?;
            hints::are_of_router(instance);
        }
        return Ok(None);
    };
    hints::are_of_router(instance);
    // From anywhere else it would be another host's bridge that the router is brought back to. What needs the right
    // namespace finds that it is not there.
    if Kernel::here()? != router.host {
        return Ok(None);
    }
    let is_there = Kernel::enter(instance.name(), settings.namespace)?;
    // What lives in a namespace without a name had better go on living there.
    if !is_there && without != Without::Fails && !Kernel::enter_nameless(settings.namespace)? {
        Kernel::enter_new()?;
    }
    let is_lost = !is_there && without == Without::Fails;
    Ok(is_lost.then(|| hints::complete(&manage::home_gone(instance).to_string()).into_owned()))
}
