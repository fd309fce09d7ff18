//! `cargo xtask ci`: the gate. Says at the end what each step took.

use crate::guard;
use crate::lint;
use crate::steps::Steps;
use crate::test;
use anyhow::Result;

pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    let outcome = lint::workspace(&mut steps)
        .and_then(|()| test::workspace(&test::Args::default(), &mut steps))
        .and_then(|()| guard::workspace(&guard::Args::default(), &mut steps));
    steps.print();
    outcome
}
