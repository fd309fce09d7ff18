//! What the doctor found, as it is printed.

use serde::Serialize;

use super::Listed;

/// Something that is not as somebody would expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check that found it.
    pub check: &'static str,
    /// What it is.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl Finding {
    /// For people: sentences are too long for columns.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}: {}\n  fix: {}", self.check, self.problem, self.fix)
    }
}

impl Listed for Finding {
    const NOUN: &'static str = "findings";
    const HEADER: &'static [&'static str] = &["CHECK", "PROBLEM", "FIX"];

    fn row(&self) -> Vec<String> {
        vec![self.check.to_owned(), self.problem.clone(), self.fix.clone()]
    }
}
