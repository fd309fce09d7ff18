//! What every command has at hand.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, StdoutLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use vnet_common::{Addr, Event, Zone};

use super::hints;
use crate::events;
use crate::instance::{BadInstanceName, Instance};
use crate::kernel::Kernel;
use crate::manage::{Done, Manager, Mode};
use crate::output::{self, Format, Listed, Names, Networks};
use crate::plan::Op;
use crate::spec::{Endpoint, Link, Settings};
use crate::store::{self, Store, Transaction};

/// The instance of commands that name none.
pub(super) const DEFAULT_INSTANCE: &str = "default";

/// What help calls the options that every command has.
const COMMON: &str = "Options of every command";

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// The instance: one for each network namespace that plays a host.
    #[arg(long, global = true, help_heading = COMMON, env = "VNET_INSTANCE", value_name = "NAME",
        default_value = DEFAULT_INSTANCE, value_parser = instance)]
    instance: Instance,
    /// Wait for other commands of the instance so many seconds and no longer, 0 for not at all [default: as long as
    /// they take].
    #[arg(long, global = true, help_heading = COMMON, env = "VNET_WAIT", value_name = "SECONDS")]
    wait: Option<u32>,
    /// Print one JSON object instead of a table.
    #[arg(long, global = true, help_heading = COMMON)]
    json: bool,
}

fn instance(name: &str) -> Result<Instance, BadInstanceName> {
    Instance::new(name)
}

/// Option of every command that changes something.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct DryRun {
    /// Print the steps and do none of them.
    #[arg(long)]
    dry_run: bool,
}

impl DryRun {
    pub(super) fn mode(self) -> Mode {
        if self.dry_run { Mode::DryRun } else { Mode::Apply }
    }
}

/// The instance a command is about, and for whom it prints.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) instance: Instance,
    pub(super) format: Format,
    /// Seconds since 1970 at which the command began.
    pub(super) now: u64,
    /// Of a router, that its namespace is not there.
    pub(super) lost_home: Option<LostHome>,
}

/// That the namespace of a router is not there, which whoever reads the record is told once.
#[derive(Clone, Debug)]
pub(super) struct LostHome {
    pub(super) text: String,
    is_told: Arc<AtomicBool>,
}

impl LostHome {
    pub(super) fn new(text: String) -> Self {
        Self { text, is_told: Arc::default() }
    }
}

impl Context {
    pub(super) fn new(global: Global) -> Self {
        let format = if global.json { Format::Json } else { Format::Table };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let wait = global.wait.map(|seconds| Duration::from_secs(seconds.into()));
        Self { instance: global.instance.waiting(wait), format, now, lost_home: None }
    }

    /// Where the answer goes.
    pub(super) fn out(&self) -> StdoutLock<'static> {
        io::stdout().lock()
    }

    /// The kernel; needs privileges.
    pub(super) async fn kernel(&self) -> anyhow::Result<Kernel> {
        Ok(Kernel::open(&self.instance).await?)
    }

    /// The kernel, for reading maps: of another version they would be taken for empty.
    ///
    /// # Errors
    /// When they are of another version.
    pub(super) async fn kernel_to_read(&self) -> anyhow::Result<Kernel> {
        let kernel = self.kernel().await?;
        kernel.check_version()?;
        Ok(kernel)
    }

    /// The instance, which is up.
    pub(super) async fn manager(&self, mode: Mode) -> anyhow::Result<Manager<Kernel>> {
        // Whether it is up needs no privileges, so that is said first.
        if !Store::exists(&self.instance)? {
            return Err(store::Error::not_up(&self.instance).into());
        }
        Ok(Manager::open(&self.instance, self.kernel().await?, mode, self.now)?)
    }

    /// What is recorded, of an instance that is up.
    pub(super) fn record(&self) -> anyhow::Result<Record> {
        let store = Store::open(&self.instance)?;
        let transaction = store.begin()?;
        let settings = transaction.settings()?.ok_or_else(|| store::Error::not_up(&self.instance))?;
        if let Some(LostHome { text, is_told }) = &self.lost_home
            && !is_told.swap(true, Ordering::Relaxed)
        {
            note(std::slice::from_ref(text));
        }
        Ok(Record { transaction, settings, _store: store })
    }

    /// Prints what a verb made: the steps of a dry run, or the thing itself.
    pub(super) fn print_made<T, L: Listed>(
        &self,
        mode: Mode,
        done: &Done<T>,
        made: L,
        line: &str,
    ) -> anyhow::Result<()> {
        self.print_all_made(mode, done, || vec![made], line)
    }

    /// Prints what a verb made of many requests: the steps of a dry run, the things themselves, or a sentence for
    /// people. Of fifty thousand things only a program wants to know each.
    pub(super) fn print_all_made<T, L: Listed>(
        &self,
        mode: Mode,
        done: &Done<T>,
        made: impl FnOnce() -> Vec<L>,
        line: &str,
    ) -> anyhow::Result<()> {
        note(&done.notes);
        match (mode, self.format) {
            (Mode::DryRun, _) => self.print_ops(&done.ops)?,
            (Mode::Apply, Format::Json) => self.print_list(&made())?,
            (Mode::Apply, Format::Table) => self.print_line(&format!("{line}{}", already(&done.ops)))?,
        }
        Ok(())
    }

    /// Prints what a verb removed: the steps, or a sentence for people.
    pub(super) fn print_removed<T>(&self, mode: Mode, done: &Done<T>, line: &str) -> anyhow::Result<()> {
        note(&done.notes);
        match (mode, self.format) {
            (Mode::Apply, Format::Table) => self.print_line(line),
            _ => self.print_ops(&done.ops),
        }
    }

    pub(super) fn print_ops(&self, ops: &[Op]) -> anyhow::Result<()> {
        self.print_steps(&ops.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    /// Prints steps, in words.
    pub(super) fn print_steps(&self, steps: &[String]) -> anyhow::Result<()> {
        Ok(output::print_ops(&mut self.out(), self.format, steps)?)
    }

    pub(super) fn print_line(&self, line: &str) -> anyhow::Result<()> {
        use std::io::Write as _;
        Ok(writeln!(self.out(), "{line}")?)
    }

    /// Prints a text for people that names commands.
    pub(super) fn print_text(&self, text: &str) -> anyhow::Result<()> {
        use std::io::Write as _;
        Ok(self.out().write_all(hints::complete(text).as_bytes())?)
    }

    /// Prints something that has just happened, on one line.
    pub(super) fn print_event(
        &self,
        event: &(impl serde::Serialize + std::fmt::Display),
    ) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut out = self.out();
        match self.format {
            Format::Json => output::print_json(&mut out, event)?,
            Format::Table => writeln!(out, "{event}")?,
        }
        Ok(out.flush()?)
    }

    pub(super) fn print_list<T: Listed>(&self, items: &[T]) -> anyhow::Result<()> {
        use std::io::Write as _;
        // Standard output writes line by line, which a hundred thousand lines are too many for.
        let mut out = BufWriter::new(self.out());
        let notices = self.lost_home.iter().map(|lost| lost.text.as_str()).collect::<Vec<_>>();
        output::print_list_with(&mut out, self.format, items, &notices)?;
        Ok(out.flush()?)
    }
}

/// What is recorded of an instance; locked while it is there.
pub(super) struct Record {
    pub(super) transaction: Transaction,
    pub(super) settings: Settings,
    _store: Store,
}

impl Record {
    /// The names of the networks, by number.
    pub(super) fn network_names(&self) -> Result<Networks, store::Error> {
        let networks = self.transaction.networks()?;
        Ok(Networks(networks.into_iter().map(|network| (network.number, network.name.to_string())).collect()))
    }

    /// The names of the networks and of the endpoints.
    pub(super) fn names(&self) -> Result<Names, store::Error> {
        let mut endpoints = HashMap::new();
        for endpoint in self.transaction.endpoints()? {
            endpoints.extend(places(&endpoint).map(|place| (place, endpoint.name.to_string())));
        }
        Ok(Names { networks: self.network_names()?, endpoints })
    }
}

/// How tuples name an endpoint: each of its networks, and its addresses there.
pub(super) fn places(endpoint: &Endpoint) -> impl Iterator<Item = (Zone, Addr)> {
    let of_link = |link: &Link| -> Vec<(Zone, Addr)> {
        link.addrs().map(|addr| (link.zone(), Addr::from(addr))).collect()
    };
    endpoint.links.iter().flat_map(of_link)
}

/// The names of the host's interfaces, by index.
pub(super) async fn interface_names(kernel: &Kernel) -> anyhow::Result<BTreeMap<u32, String>> {
    let interfaces = kernel.interfaces().await.context("list the host's interfaces")?;
    Ok(interfaces.into_iter().map(|interface| (interface.index, interface.name)).collect())
}

/// Prints what is worth knowing beside the answer.
pub(super) fn note(notes: &[String]) {
    for note in notes {
        eprintln!("vnet: {}", hints::complete(note));
    }
}

/// What is said when nothing was left to do of what was asked for.
pub(super) fn already(ops: &[Op]) -> &'static str {
    if ops.iter().all(Op::is_by_the_way) { " (already)" } else { "" }
}

/// Hands each event to `each` as it comes, until that fails, has had enough, or nobody wants any more.
pub(super) async fn follow(
    context: &Context,
    kernel: &Kernel,
    mut each: impl FnMut(&Event) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut result = Ok(true);
    let mut take = |event: &Event| {
        result = each(event);
        matches!(result, Ok(true))
    };
    tokio::select! {
        ended = events::follow(&context.instance, kernel, &mut take) => ended?,
        interrupted = interrupted(true) => interrupted?,
    }
    result.map(drop)
}

/// Waits for Ctrl-C, for SIGTERM, or, of what `prints`, until whoever read standard output has had enough.
pub(super) async fn interrupted(prints: bool) -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
        () = Kernel::output_closed(), if prints => Ok(()),
    }
}
