//! Fuzz targets for the packet logic, and the rules that they hold it to.
//!
//! - [`parse`]: any bytes are read or refused, and what is not let through does not change.
//! - [`pipeline`]: a sequence of frames, answers, errors, strangers and hours over the tables of a small world, whose options
//!   are part of the input. A second opinion remembers who has talked to whom and allows nothing else.
//!
//! `cargo xtask fuzz` builds the targets with coverage counters and libFuzzer. Built in any other way they are programs
//! that run the files they are given, which is how a crash is looked at:
//!
//! ```text
//! cargo run --package vnet-fuzz --bin pipeline FILE
//! ```
//!
//! `corpus/TARGET` holds inputs that together reach whatever is known to be reachable; `cargo test` runs them all.
#![forbid(unsafe_code)]

mod input;
mod judge;
mod packet;
mod parsing;
mod rules;
mod story;
mod tables;
mod world;

pub use parsing::parse;
pub use story::pipeline;

/// Runs a target on the files that the command line names, and says what happens in each.
///
/// # Panics
/// When a file cannot be read, or a rule is broken.
#[cfg(not(fuzzing))]
pub fn replay(target: fn(&[u8])) {
    for path in std::env::args().skip(1) {
        eprintln!("{path}");
        target(&std::fs::read(&path).unwrap_or_else(|e| panic!("read {path}: {e}")));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Runs a target on its corpus, and on each of its inputs cut short.
    fn run(name: &str, target: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let entries = std::fs::read_dir(&corpus).unwrap_or_else(|e| panic!("list {}: {e}", corpus.display()));
        let mut run = 0;
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            let input = std::fs::read(&path).expect("an input");
            let held = std::panic::catch_unwind(|| target(&input));
            assert!(held.is_ok(), "cargo run --package vnet-fuzz --bin {name} {}", path.display());
            target(&input[..input.len() / 2]);
            run += 1;
        }
        assert!(run > 50, "only {run} inputs in {}", corpus.display());
    }

    #[test]
    fn the_corpus_of_parse_holds() {
        run("parse", super::parse);
    }

    #[test]
    fn the_corpus_of_pipeline_holds() {
        run("pipeline", super::pipeline);
    }
}
