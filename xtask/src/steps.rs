//! What is said while working: one line when a step begins, one when it ends with the time it took, and the list of
//! all steps for `ci`. It goes to standard error; standard output belongs to what is run.

use anyhow::Result;
use std::time::{Duration, Instant};

#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Does one step worth a line. A step that fails is not in the list: its error is the last thing said.
    pub(crate) fn step<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {what}");
        let start = Instant::now();
        let value = work()?;
        let took = start.elapsed();
        eprintln!("    done in {}", seconds(took));
        self.done.push((what.to_owned(), took));
        Ok(value)
    }

    /// All the steps done and what each took.
    pub(crate) fn print(&self) {
        for (what, took) in &self.done {
            eprintln!("{:>9}  {what}", seconds(*took));
        }
        let total = self.done.iter().map(|(_, took)| *took).sum();
        eprintln!("{:>9}  in all", seconds(total));
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
