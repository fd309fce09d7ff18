//! `vnet doctor`.

use clap::Args;

use super::context::Context;
use super::hints;
use crate::manage::{self, Diagnosis, Mode};
use crate::output::{Finding, Format};
use crate::store::Store;

/// Look for what is not as you would expect, and say what to do about it. Nothing is changed.
///
/// Findings are no failure: the exit status is 1 only when a check could not be run.
#[derive(Debug, Args)]
pub(super) struct Doctor {}

impl Doctor {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Diagnosis { findings, failed } = if Store::exists(&context.instance)? {
            context.manager(Mode::DryRun).await?.diagnose().await?
        } else {
            not_up(context)
        };
        let findings: Vec<Finding> = findings
            .into_iter()
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

fn not_up(context: &Context) -> Diagnosis {
    let finding = manage::Finding {
        check: "instance",
        problem: format!("instance {} is not up", context.instance.name()),
        fix: "`vnet up`".to_owned(),
    };
    Diagnosis { findings: vec![finding], failed: Vec::new() }
}
