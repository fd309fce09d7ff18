//! `vnet run`.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::context::Context;
use super::usage;
use crate::output::{self, Format, Level};
use crate::run::{self, Listen, Options, Told};

/// Stay and look after the instance: what happens around it is heard, and what it changed is brought back.
///
/// It follows the host's addresses, the default route and the MTU of the uplinks where nobody has said otherwise, and
/// brings back hooks, bridges, links, namespaces, limits and entries that somebody removed or changed, within a second.
/// Optional: the data path and every command work without it and beside it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet run                                          what it does is told on standard output
  vnet run --json --drops                           with every packet that is dropped, as JSON
  vnet run --metrics 127.0.0.1:9464                 and metrics for Prometheus at /metrics
  vnet run --metrics unix:/run/vnet/metrics.sock    the same on a socket that only root may use

SIGHUP: look at everything at once. SIGTERM and SIGINT: end, and leave everything as it is.")]
pub(super) struct Run {
    /// Serve metrics over HTTP at ADDRESS:PORT, or on a socket at unix:PATH; without it nothing listens.
    #[arg(long, value_name = "WHERE")]
    metrics: Option<Listen>,
    /// Serve them on an address that others may reach as well: whoever does reads the names of endpoints and what is
    /// published.
    #[arg(long, requires = "metrics")]
    metrics_remote: bool,
    /// Seconds between two looks at everything, for what the kernel tells nothing of.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    check: u32,
    /// Seconds between two looks at what is attached to interfaces, which the kernel does not tell of; 0 for none but
    /// those of --check.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    hook_check: u32,
    /// Tell of every packet that is dropped as well.
    #[arg(long)]
    drops: bool,
    /// How much to tell: what cannot be repaired; also what was found; also what was done; also what was heard.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level_parser())]
    log_level: Level,
}

fn level_parser() -> impl clap::builder::TypedValueParser<Value = Level> {
    let named = |name: String| Level::ALL.into_iter().find(|level| level.name() == name);
    PossibleValuesParser::new(Level::ALL.map(Level::name))
        .try_map(move |name| named(name).ok_or("it is none of the levels"))
}

impl Run {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if let Some(listen) =
            self.metrics.as_ref().filter(|listen| !listen.is_local() && !self.metrics_remote)
        {
            return Err(usage(&format!(
                "others than this host may reach {listen}, and whoever does reads the names of endpoints and what is \
                 published: use 127.0.0.1, [::1] or unix:PATH, or say --metrics-remote if that is what you want"
            )));
        }
        let options = Options {
            check: Duration::from_secs(self.check.into()),
            hooks: Duration::from_secs(self.hook_check.into()),
            metrics: self.metrics,
            drops: self.drops,
            level: self.log_level,
        };
        let format = context.format;
        let tell = move |told: Told| {
            // It goes on when nobody reads any more.
            let _ = match told {
                Told::News(event) => print(format, &event),
                Told::Drop(event) => print(format, &event),
            };
        };
        Ok(run::run(&context.instance, options, tell).await?)
    }
}

fn print(format: Format, event: &(impl serde::Serialize + std::fmt::Display)) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => output::print_json(&mut out, event)?,
        Format::Table => writeln!(out, "{event}")?,
    }
    out.flush()
}
