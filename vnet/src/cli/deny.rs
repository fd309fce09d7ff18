//! `vnet deny`.

use clap::Subcommand;

use super::context::{Context, DryRun};
use crate::output;
use crate::spec::Cidr;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Drop everything that uplinks with XDP receive from these sources, for the host itself too, and the answers to
    /// what it asks of them.
    #[command(after_help = "\
Examples:
  vnet up --xdp native
  vnet deny add 198.51.100.0/24 2001:db8:bad::/48
  vnet drops                                            how many, by interface and reason (denied)
  xargs -a blocklist vnet deny add                      thousands at once")]
    Add {
        /// The sources: all of them, or none.
        #[arg(value_name = "CIDR", required = true)]
        sources: Vec<Cidr>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the sources.
    Ls,
    /// Take sources off the list, as they were put on it. Those that are not on it are off already.
    Rm {
        /// The sources.
        #[arg(value_name = "CIDR", required = true)]
        sources: Vec<Cidr>,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add { sources, dry_run } => {
                let mode = dry_run.mode();
                let done = context.manager(mode).await?.deny(&sources).await?;
                let made = || done.value.iter().map(output::Denied::from).collect();
                context.print_all_made(mode, &done, made, &format!("denied {}", list(&done.value)))
            }
            Self::Ls => {
                let denied = context.record()?.transaction.denied()?;
                context.print_list(&denied.iter().map(output::Denied::from).collect::<Vec<_>>())
            }
            Self::Rm { sources, dry_run } => {
                let done = context.manager(dry_run.mode()).await?.allow(&sources).await?;
                let line = match &done.value[..] {
                    [] => format!("{} not denied: nothing to remove", list(&sources)),
                    removed => format!("{} denied no more", list(removed)),
                };
                context.print_removed(dry_run.mode(), &done, &line)
            }
        }
    }
}

/// Prefixes in one line: of many, how many.
fn list(sources: &[Cidr]) -> String {
    const FEW: usize = 8;
    match sources {
        few if few.len() <= FEW => few.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        many => format!("{} prefixes", many.len()),
    }
}
