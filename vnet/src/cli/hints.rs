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

/// Has commands name an instance from now on, unless they work on it anyway: `usual` does without being named.
pub(super) fn are_for(instance: &Instance, usual: &str) {
    if instance.name() != usual {
        // A process works on one instance.
        let _ = OPTION.set(format!("--instance {} ", instance.name()));
    }
}

/// A text whose commands name the instance.
pub(super) fn complete(text: &str) -> Cow<'_, str> {
    OPTION.get().map_or(Cow::Borrowed(text), |option| Cow::Owned(with(option, text)))
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
}
