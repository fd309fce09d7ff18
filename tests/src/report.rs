//! What a test has measured, said even when it passes.

use std::fmt::Display;
use std::io::Write;

/// Prints a line. The test harness keeps back what the print macros write, not what is written to the stream.
pub fn report(line: impl Display) {
    // A closed stream is nothing that a test is about.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
