//! A state file in which somebody or something has changed a byte. redb takes what it reads for what it wrote, and where
//! that is not so it may panic instead of returning an error.

use std::panic::{Location, PanicHookInfo};
use std::path::Path;

use super::Error;
use crate::instance::Instance;

/// Has a panic over the state file told as what it is, with the way out, and end the process like any other failure: as
/// what is wanted is committed before the kernel is touched, that leaves no more behind than a kill. Other panics are
/// told as they are.
pub fn tell_of_damage(instance: &Instance) {
    let path = instance.state_file();
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(is_of_the_database) {
            return others(panic);
        }
        let source = Box::new(redb::Error::Corrupted(what(panic)));
        let error = Error::Damaged { path: path.clone(), source };
        eprintln!("vnet: {:#}", anyhow::Error::from(error));
        std::process::exit(1);
    }));
}

/// Whether a place is in the source of redb, wherever that is kept.
fn is_of_the_database(location: &Location<'_>) -> bool {
    let is_redb = |name: &str| name == "redb" || name.starts_with("redb-");
    Path::new(location.file()).iter().any(|part| part.to_str().is_some_and(is_redb))
}

fn what(panic: &PanicHookInfo<'_>) -> String {
    let said = panic.payload();
    let text =
        said.downcast_ref::<String>().map(String::as_str).or_else(|| said.downcast_ref::<&str>().copied());
    text.unwrap_or("it is not what was written").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_tests_is_not_the_databases() {
        assert!(!is_of_the_database(Location::caller()));
    }
}
