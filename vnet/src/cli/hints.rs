//! Commands that are named in what people read: they work on the instance that this command works on.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::instance::Instance;

/// How a command begins that is named for people to run.
const COMMAND: &str = "`vnet ";
/// What is not about an instance that is named before it.
const COMPLETE: [&str; 2] = ["--instance", "router"];

/// What names the instance, where a command without it would work on another.
static OPTION: OnceLock<String> = OnceLock::new();

/// The router in whose namespace the command works, if it does.
static ROUTER: OnceLock<String> = OnceLock::new();

/// Commands of others that work on the network namespace that they are run in, with what has them work on another.
const OF_NAMESPACE: [(&str, &str); 7] = [
    ("`ip link ", "`ip -n NAME link "),
    ("`ip addr ", "`ip -n NAME addr "),
    ("`sysctl -w net.ipv", "`ip netns exec NAME sysctl -w net.ipv"),
    ("`sysctl -w net.bridge", "`ip netns exec NAME sysctl -w net.bridge"),
    ("`iptables", "`ip netns exec NAME iptables"),
    ("`ip6tables", "`ip netns exec NAME ip6tables"),
    ("`nft ", "`ip netns exec NAME nft "),
];

/// Has texts speak of a router from now on, where they speak of the host: that is what it is to everything that works in
/// there. Its own host is "its host".
pub(super) fn are_of_router(router: &Instance) {
    // A process enters one namespace.
    let _ = ROUTER.set(router.name().to_owned());
}

/// Has commands name an instance from now on, unless they work on it anyway: `usual` does without being named.
pub(super) fn are_for(instance: &Instance, usual: &str) {
    if instance.name() != usual {
        // A process works on one instance.
        let _ = OPTION.set(format!("--instance {} ", instance.name()));
    }
}

/// A text whose commands name the instance, and that speaks of the router if it is one.
pub(super) fn complete(text: &str) -> Cow<'_, str> {
    let text = OPTION.get().map_or(Cow::Borrowed(text), |option| Cow::Owned(with(option, text)));
    ROUTER.get().map_or(text.clone(), |router| Cow::Owned(within(router, &text)))
}

/// A text about a host, as one about a router.
fn within(router: &str, text: &str) -> String {
    let mut text = text.to_owned();
    for (here, there) in OF_NAMESPACE {
        text = text.replace(here, &there.replace("NAME", router));
    }
    for word in ["the", "this"] {
        text = text.replace(&format!("{word} host"), &format!("{word} router"));
    }
    text
}

fn with(option: &str, text: &str) -> String {
    let mut parts = text.split(COMMAND);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push_str(COMMAND);
        if !COMPLETE.iter().any(|word| part.starts_with(word)) {
            whole.push_str(option);
        }
        whole.push_str(part);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_the_instance_once() {
        let text =
            "run `vnet up`, or `vnet --instance b down`, then `vnet router rm b`; vnet is no command here";
        let expected = "run `vnet --instance b up`, or `vnet --instance b down`, then `vnet router rm b`; vnet is no \
                        command here";
        assert_eq!(with("--instance b ", text), expected);
        assert_eq!(complete(text), text, "where nothing else is usual");
    }

    #[test]
    fn what_is_said_of_the_host_is_said_of_the_router_that_plays_it() {
        assert_eq!(
            within(
                "r1",
                "the host's firewall, `nft add rule`; `ip link set eth0 up` on this host, not on its host"
            ),
            "the router's firewall, `ip netns exec r1 nft add rule`; `ip -n r1 link set eth0 up` on this router, not on \
             its host"
        );
    }
}
