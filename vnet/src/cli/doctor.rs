//! `vnet doctor`.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::hints;
use crate::manage::{self, Diagnosis, Mode};
use crate::output::{Finding, Format};
use crate::run;
use crate::store::{self, Store};

/// Look for what is not as you would expect, and say what to do about it. Nothing is changed.
///
/// Findings are no failure: the exit status is 1 only when a check could not be run.
#[derive(Debug, Args)]
pub(super) struct Doctor {}

impl Doctor {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Diagnosis { findings, failed } = if Store::exists(&context.instance)? {
            match context.manager(Mode::DryRun).await?.diagnose().await {
                Err(error @ manage::Error::HomeGone { .. }) => home_gone(&error),
                diagnosis => diagnosis?,
            }
        } else {
            not_up(context)
        };
        let stale = run::stale_resolver_files(&context.instance).into_iter().map(unanswered);
        let findings: Vec<Finding> = findings
            .into_iter()
            .chain(stale)
            .map(|manage::Finding { check, problem, fix }| {
                let [problem, fix] = [problem, fix].map(|text| hints::complete(&text).into_owned());
                Finding { check, problem, fix }
            })
            .collect();
        match context.format {
            Format::Json => context.print_list(&findings)?,
            Format::Table if findings.is_empty() => {
                let checks: Vec<&str> = manage::checks().collect();
                context.print_line(&format!("nothing found; looked at: {}", checks.join(", ")))?;
            }
            Format::Table => {
                findings.iter().try_for_each(|finding| context.print_line(&finding.text()))?;
            }
        }
        anyhow::ensure!(failed.is_empty(), "not all could be looked at: {}", failed.join("; "));
        Ok(())
    }
}

/// What `vnet run --resolver` has left.
fn unanswered(file: PathBuf) -> manage::Finding {
    manage::Finding {
        check: manage::RESOLVER_CHECK,
        problem: format!(
            "{} has processes ask for names where nobody answers: `vnet run --resolver`, which wrote it, was killed",
            file.display()
        ),
        fix: "`vnet up` takes it away; or start `vnet run --resolver` again".to_owned(),
    }
}

fn home_gone(error: &manage::Error) -> Diagnosis {
    let finding = manage::Finding {
        check: "instance",
        problem: error.to_string(),
        fix: "`vnet up`, or have `vnet run` running, which keeps the namespace".to_owned(),
    };
    Diagnosis { findings: vec![finding], failed: Vec::new() }
}

fn not_up(context: &Context) -> Diagnosis {
    let finding = manage::Finding {
        check: "instance",
        problem: format!("instance {} is not up", context.instance.name()),
        fix: store::Error::others_up(&context.instance)
            .map_or_else(|| "`vnet up`".to_owned(), |others| format!("`vnet up`; {others}")),
    };
    Diagnosis { findings: vec![finding], failed: Vec::new() }
}
