//! `vnet drops`.

use std::collections::BTreeMap;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use vnet_common::{DropReason, Hook};

use super::context::{Context, follow, interface_names};
use crate::output::{Drop, DropEvent, Format};

/// Show how many packets were dropped where and why, and what to do about it; or each as it happens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet drops                                        counted since `vnet up`
  vnet drops --reason direct-access,not-allowed
  vnet drops -f --hook from_endpoint                what endpoints send and may not, as it happens
  vnet trace tcp 203.0.113.2:5555 203.0.113.1:8088  why would this one be dropped?

Of the drops of one reason, `-f` shows on each CPU one in 1,024 where the program is xdp_uplink: a flood is not told of
packet by packet. All are counted.")]
pub(super) struct Drops {
    /// Print drops as they happen, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only those for this reason, or one of several with commas between.
    #[arg(long = "reason", value_name = "REASON", value_delimiter = ',', value_parser = reason_parser())]
    reasons: Vec<DropReason>,
    /// Only those of this program, or one of several with commas between.
    #[arg(long = "hook", value_name = "HOOK", value_delimiter = ',', value_parser = hook_parser())]
    hooks: Vec<Hook>,
}

fn reason_parser() -> impl clap::builder::TypedValueParser<Value = DropReason> {
    let named = |name: String| DropReason::ALL.iter().copied().find(|reason| reason.name() == name);
    PossibleValuesParser::new(DropReason::ALL.iter().map(|reason| reason.name()))
        .try_map(move |name| named(name).ok_or("it is none of the reasons"))
}

fn hook_parser() -> impl clap::builder::TypedValueParser<Value = Hook> {
    let named = |name: String| Hook::ALL.into_iter().find(|hook| hook.name() == name);
    PossibleValuesParser::new(Hook::ALL.map(Hook::name))
        .try_map(move |name| named(name).ok_or("it is none of the programs"))
}

impl Drops {
    /// Whether drops for a reason by a hook are asked for, each as a byte of a map.
    fn selects(&self, reason: u8, hook: u8) -> bool {
        let reason = self.reasons.is_empty() || self.reasons.iter().any(|wanted| *wanted as u8 == reason);
        reason && (self.hooks.is_empty() || self.hooks.iter().any(|wanted| *wanted as u8 == hook))
    }

    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let networks = context.record()?.network_names()?;
        let kernel = context.kernel().await?;
        let interfaces = interface_names(&kernel).await?;
        if self.follow {
            return follow(context, &kernel, |event| {
                let Some(drop) = DropEvent::new(event, &interfaces, &networks) else { return Ok(()) };
                if self.selects(event.reason, event.hook) { context.print_event(&drop) } else { Ok(()) }
            })
            .await;
        }
        let mut counters = kernel.drops()?;
        counters.retain(|(key, _)| self.selects(key.reason, key.hook));
        let mut drops: Vec<Drop> =
            counters.iter().map(|(key, packets)| Drop::new(key, *packets, &interfaces)).collect();
        drops.sort_by(|a, b| (&a.interface, a.hook, a.reason).cmp(&(&b.interface, b.hook, b.reason)));
        context.print_list(&drops)?;
        // For programs, each has its own.
        if context.format == Format::Table {
            let remedies: BTreeMap<_, _> = drops.iter().map(|drop| (drop.reason, drop.remedy)).collect();
            for (number, (reason, remedy)) in remedies.iter().enumerate() {
                let space = if number == 0 { "\n" } else { "" };
                context.print_line(&format!("{space}{reason}: {remedy}"))?;
            }
        }
        Ok(())
    }
}
