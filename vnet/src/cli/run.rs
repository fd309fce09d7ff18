//! `vnet run`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use tokio::time::sleep;

use super::apply::Files;
use super::context::{Context, note};
use super::hints;
use super::usage;
use vnet_common::LogLevel;

use crate::manage::{self, Mode};
use crate::output::{self, Format, Level, News, RunEvent};
use crate::run::{self, Apply, Listen, Options, Told};
use crate::store;

/// How long files wait for a command that has the instance.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Stay and look after the instance: what happens around it is heard, and what it changed is brought back.
///
/// It follows the host's addresses, the default route and the MTU of the uplinks where nobody has said otherwise, and
/// brings back hooks, bridges, links, namespaces, limits and entries that somebody removed or changed, within a second.
/// Optional: the data path and every command work without it and beside it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet run                                          what it does is told on standard output
  vnet run -f /etc/vnet                             and is described there: applied first, and again on SIGHUP
  vnet run --json --drops                           with every packet that is dropped, as JSON
  vnet run --program-log debug                      with each flow that begins or ends, and each drop, as the programs
                                                    in the kernel log it
  vnet run --metrics 127.0.0.1:9464                 and metrics for Prometheus at /metrics
  vnet run --metrics unix:/run/vnet/metrics.sock    the same on a socket that only root may use

SIGHUP: apply the files again, and look at everything at once. SIGTERM and SIGINT: end, and leave everything as it is.")]
pub(super) struct Run {
    /// Apply a file, or every *.toml of a directory, before anything else and on SIGHUP, as `vnet apply` does; may be given
    /// several times.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Remove what is there and not described.
    #[arg(long, requires = "files")]
    prune: bool,
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
    /// How much the programs in the kernel log, as long as this runs: what should not happen (error, warn), also drops and
    /// flows that begin, are confirmed or end (debug), also every packet (trace). It costs time for each record.
    #[arg(long, value_name = "LEVEL", default_value = "off", value_parser = program_level_parser())]
    program_log: LogLevel,
    /// Answer names of endpoints by DNS at the gateways of the networks, for their endpoints alone; what is no name of the
    /// instance's is asked of the host's resolvers.
    #[arg(long)]
    resolver: bool,
    /// The domain of these names.
    #[arg(long, value_name = "DOMAIN", default_value = "internal", requires = "resolver", value_parser = domain)]
    resolver_domain: String,
}

/// A domain, without a dot at its end.
fn domain(text: &str) -> Result<String, String> {
    let plain = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&label.len()) && label.chars().all(inside)
    };
    // What stands in front of it has to fit as well: 253 characters in all (RFC 1035 section 2.3.4).
    if plain.len() > 120 || !plain.split('.').all(fits) {
        return Err("it is no domain: letters, digits and hyphens, with dots between, such as internal or lab.example".to_owned());
    }
    Ok(plain.to_ascii_lowercase())
}

fn program_level_parser() -> impl clap::builder::TypedValueParser<Value = LogLevel> {
    let named = |name: String| LogLevel::ALL.into_iter().find(|level| level.name() == name);
    PossibleValuesParser::new(LogLevel::ALL.map(LogLevel::name))
        .try_map(move |name| named(name).ok_or("it is none of the levels"))
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
        if self.files.iter().any(|file| file == Path::new("-")) {
            return Err(usage("standard input cannot be read again on SIGHUP: name a file"));
        }
        let options = Options {
            check: Duration::from_secs(self.check.into()),
            hooks: Duration::from_secs(self.hook_check.into()),
            metrics: self.metrics,
            drops: self.drops,
            level: self.log_level,
            program_log: self.program_log,
            resolver: self.resolver.then_some(self.resolver_domain),
        };
        let (format, level) = (context.format, self.log_level);
        let tell = move |told: Told| {
            // It goes on when nobody reads any more.
            let _ = match told {
                Told::News(event) => {
                    let text = hints::complete(&event.text).into_owned();
                    print(format, &RunEvent { text, ..event })
                }
                Told::Drop(event) => print(format, &event),
                Told::Log(event) => print(format, &event),
            };
        };
        let mut apply: Option<Apply> = None;
        if !self.files.is_empty() {
            run::check_only(&context.instance)?;
            let files = Files { paths: self.files, prune: self.prune };
            first(&files, context, |line| {
                let event = RunEvent::new(News::Applied, line);
                if event.level <= level {
                    tell(Told::News(event));
                }
            })
            .await?;
            let context = context.clone();
            apply = Some(Box::new(move || Box::pin(again(files.clone(), context.clone()))));
        }
        Ok(run::run(&context.instance, options, apply, tell).await?)
    }
}

/// Applies files for the first time: what is wrong with them is `vnet apply`'s to say.
async fn first(files: &Files, context: &Context, say: impl Fn(String)) -> anyhow::Result<()> {
    let outcome = files.apply(context, Mode::Apply).await?;
    note(&outcome.notes);
    outcome.summary(Mode::Apply).into_iter().for_each(say);
    Ok(())
}

/// Applies them again. While a command has the instance this waits, but for no longer than [`PATIENCE`], and lets the
/// process hear of other things.
async fn again(files: Files, context: Context) -> Result<Vec<String>, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let instance = context.instance.waiting(Some(Duration::ZERO));
    let context = Context { instance, now, ..context };
    let end = Instant::now() + PATIENCE;
    loop {
        match files.apply(&context, Mode::Apply).await {
            Ok(outcome) => {
                let mut lines = outcome.summary(Mode::Apply);
                lines.extend(outcome.notes);
                return Ok(lines);
            }
            Err(error) if is_busy(&error) && Instant::now() < end => sleep(PAUSE).await,
            Err(error) => return Err(on_one_line(&format!("{error:#}"))),
        }
    }
}

/// A text of several lines, of which the first may announce the others.
fn on_one_line(text: &str) -> String {
    text.trim().replace(":\n", ": ").replace('\n', "; ")
}

fn is_busy(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(store::Error::Busy { .. }))
        || matches!(error.downcast_ref(), Some(manage::Error::Store(store::Error::Busy { .. })))
}

fn print(format: Format, event: &(impl serde::Serialize + std::fmt::Display)) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => output::print_json(&mut out, event)?,
        Format::Table => writeln!(out, "{event}")?,
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_files_is_told_on_one_line() {
        let text = "nothing was changed, because of 2 problems:\na.toml:1:1: this\na.toml:2:1: that\n";
        let expected = "nothing was changed, because of 2 problems: a.toml:1:1: this; a.toml:2:1: that";
        assert_eq!(on_one_line(text), expected);
    }
}
