//! `vnet flow`.

use clap::Subcommand;

use super::context::{Context, DryRun, follow};
use crate::kernel::Kernel;
use crate::manage::Mode;
use crate::output::{self, FlowEvent, Format};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the tracked flows: each as its opener sends it, and what it becomes.
    Ls,
    /// Print flows as they begin, until interrupted.
    Watch,
    /// Forget every flow. Those that are translated break; the others go on as new ones.
    Flush {
        #[command(flatten)]
        dry_run: DryRun,
    },
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Ls => list(context).await,
            Self::Watch => watch(context).await,
            Self::Flush { dry_run } => flush(context, dry_run.mode()).await,
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let networks = context.record()?.network_names()?;
    let entries = context.kernel().await?.flows()?;
    context.print_list(&output::flows(&entries, &networks, Kernel::now()))
}

async fn watch(context: &Context) -> anyhow::Result<()> {
    let networks = context.record()?.network_names()?;
    let kernel = context.kernel().await?;
    follow(context, &kernel, |event| {
        let Some(flow) = FlowEvent::new(event, &networks) else { return Ok(()) };
        context.print_event(&flow)
    })
    .await
}

async fn flush(context: &Context, mode: Mode) -> anyhow::Result<()> {
    if mode == Mode::DryRun {
        context.record()?;
        let count = context.kernel().await?.flows()?.len();
        let ops = [format!("forget {count} entries of the flow table")];
        return Ok(output::print_ops(&mut context.out(), context.format, &ops)?);
    }
    let count = context.manager(mode).await?.flush_flows()?;
    let line = format!("{count} entries of the flow table forgotten");
    match context.format {
        Format::Table => context.print_line(&line),
        Format::Json => Ok(output::print_ops(
            &mut context.out(),
            Format::Json,
            &[format!("forget {count} entries of the flow table")],
        )?),
    }
}
