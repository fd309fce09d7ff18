//! `vnet drops`.

use clap::Args;

use super::context::{Context, follow, interface_names};
use crate::output::{Drop, DropEvent};

/// Show how many packets were dropped where and why, or each as it happens.
#[derive(Debug, Args)]
pub(super) struct Drops {
    /// Print drops as they happen, until interrupted.
    #[arg(short, long)]
    follow: bool,
}

impl Drops {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let networks = context.record()?.network_names()?;
        let kernel = context.kernel().await?;
        let interfaces = interface_names(&kernel).await?;
        if self.follow {
            return follow(context, &kernel, |event| {
                let Some(drop) = DropEvent::new(event, &interfaces, &networks) else { return Ok(()) };
                context.print_event(&drop)
            })
            .await;
        }
        let mut drops: Vec<Drop> =
            kernel.drops()?.iter().map(|(key, packets)| Drop::new(key, *packets, &interfaces)).collect();
        drops.sort_by(|a, b| (&a.interface, a.hook, a.reason).cmp(&(&b.interface, b.hook, b.reason)));
        context.print_list(&drops)
    }
}
