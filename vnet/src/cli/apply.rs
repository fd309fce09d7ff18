//! `vnet apply` and `vnet export`.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use super::context::{Context, DryRun, note};
use crate::file::{self, Action, Change, Known, Model, Source};
use crate::kernel::Kernel;
use crate::manage::{self, Applied, Description, Done, Manager, Mode, Unnamed};
use crate::output::{self, Format};
use crate::plan::Op;
use crate::store::{self, Store};

/// Make the instance what files describe, all of it or nothing, whether it is up or not.
///
/// What is described is made, and changed in place where that can be done; anything that stands in the way is reported
/// with its line, and nothing is touched then. What is there and not described stays, unless --prune is given. Choices of
/// the instance, of networks and of endpoints that are not named stay as they are, with --prune they are as documented. A
/// mapping is what is said of it: without allow-from it is open to everybody.
///
/// Several files are one description: later ones add to earlier ones.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet apply -f vnet.toml --dry-run        what would be different
  vnet apply -f vnet.toml
  vnet apply -f /etc/vnet --prune          every *.toml in there, and nothing else
  vnet export | vnet --instance b apply -f -

The format is described in docs/apply.md, and as a JSON schema in docs/vnet.schema.json.")]
pub(super) struct Apply {
    /// A file, a directory (every *.toml in it, by name), or standard input (-); may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Remove what is there and not described.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    dry_run: DryRun,
    /// What they say.
    #[arg(skip)]
    sources: Vec<Source>,
}

impl Apply {
    /// Reads the files.
    pub(super) fn read(&mut self) -> anyhow::Result<()> {
        self.sources = sources(&self.files)?;
        Ok(())
    }

    /// Whether they describe a router.
    pub(super) fn makes_router(&self) -> bool {
        file::describes_router(&self.sources)
    }

    /// What is to be known of a router's bridge before the router is entered, and its instance locked.
    pub(super) fn check(&self, context: &Context) -> anyhow::Result<()> {
        // That something is wrong with the files is said later, and in full.
        let file = file::read(self.sources.clone(), &Known::default()).ok();
        if let Some(router) = file.and_then(|file| file.description.router) {
            manage::check_bridge(&context.instance, &router.bridge, Kernel::here()?)?;
        }
        Ok(())
    }

    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { files, prune, dry_run, sources } = self;
        let mode = dry_run.mode();
        let outcome = Files { paths: files, prune }.apply_read(sources, context, mode).await?;
        note(&outcome.notes);
        outcome.print(context, mode)
    }
}

/// Files that describe an instance.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// Files, directories, or standard input.
    pub(super) paths: Vec<PathBuf>,
    /// Whether what is not described goes.
    pub(super) prune: bool,
}

/// What files have changed, or would.
pub(super) struct Outcome {
    changes: Vec<Change>,
    ops: Vec<Op>,
    /// Things worth knowing.
    pub(super) notes: Vec<String>,
}

impl Files {
    /// Makes the instance what they describe at the moment.
    pub(super) async fn apply(&self, context: &Context, mode: Mode) -> anyhow::Result<Outcome> {
        self.apply_read(sources(&self.paths)?, context, mode).await
    }

    /// Makes the instance what was read of them.
    async fn apply_read(
        &self,
        sources: Vec<Source>,
        context: &Context,
        mode: Mode,
    ) -> anyhow::Result<Outcome> {
        let unnamed = if self.prune { Unnamed::Goes } else { Unnamed::Stays };
        let known = if self.prune { Known::default() } else { known(context)? };
        let file = file::read(sources, &known)?;
        let piped = self.paths.iter().any(|file| file == Path::new("-"));
        if self.prune && piped && file.description == Description::default() {
            // As when the program that was to write the description has failed.
            bail!("nothing is described, and --prune would remove everything: `vnet down` does that");
        }
        let file = file.with_cgroups(|cgroup| Kernel::cgroup(cgroup.clone()))?;
        let kernel = context.kernel().await?;
        let manager = Manager::create(&context.instance, kernel, mode, context.now)?;
        let done = match manager.apply(&file.description, unnamed).await {
            Err(manage::Error::RefusedParts(refused)) => return Err(file.refused(refused).into()),
            done => done?,
        };
        let Done { value: Applied { before, after }, ops, notes } = done;
        let mut changes = file::diff(before.as_ref(), &after);
        if !self.prune {
            changes.extend(file::kept(&file.description, &after));
        }
        Ok(Outcome { changes, ops, notes })
    }
}

/// What is printed for programs.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    changes: &'a [Change],
    ops: Vec<String>,
}

impl Outcome {
    fn print(&self, context: &Context, mode: Mode) -> anyhow::Result<()> {
        if context.format == Format::Json {
            let ops = self.ops.iter().map(ToString::to_string).collect();
            let report = Report { version: output::VERSION, changes: &self.changes, ops };
            return Ok(output::print_json(&mut context.out(), &report)?);
        }
        let mut out = io::BufWriter::new(context.out());
        if mode == Mode::DryRun {
            self.changes.iter().try_for_each(|change| writeln!(out, "{change}"))?;
            if !self.changes_something() {
                // The record says so already, and the kernel did not.
                self.repairs().try_for_each(|op| writeln!(out, "~ {op}"))?;
            }
        }
        self.summary(mode).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        Ok(out.flush()?)
    }

    fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }

    fn changes_something(&self) -> bool {
        [Action::Add, Action::Change, Action::Remove].into_iter().any(|action| self.count(action) > 0)
    }

    /// Steps that bring back what is recorded already.
    fn repairs(&self) -> impl Iterator<Item = &Op> {
        self.ops.iter().filter(|op| !op.is_by_the_way())
    }

    /// What it amounts to, in lines for people.
    pub(super) fn summary(&self, mode: Mode) -> Vec<String> {
        let [added, changed, removed, kept] =
            [Action::Add, Action::Change, Action::Remove, Action::Keep].map(|action| self.count(action));
        let repairs = self.repairs().count();
        let mut lines = Vec::new();
        match mode {
            Mode::DryRun if self.changes_something() => {
                lines.push(format!("{added} to add, {changed} to change, {removed} to remove"));
            }
            Mode::Apply if self.changes_something() => {
                lines.push(format!("{added} added, {changed} changed, {removed} removed"));
            }
            _ if repairs == 0 => lines.push("nothing to change: everything is as described".to_owned()),
            Mode::Apply => {
                lines.push(format!("nothing to change; {repairs} steps brought back what had gone"));
            }
            Mode::DryRun => {}
        }
        if kept > 0 && mode == Mode::Apply {
            lines.push(format!("{kept} not described and kept: --prune removes them, --dry-run names them"));
        }
        lines
    }
}

/// What there is already, if the instance is up.
fn known(context: &Context) -> anyhow::Result<Known> {
    if !Store::exists(&context.instance)? {
        return Ok(Known::default());
    }
    let record = match context.record() {
        Ok(record) => record,
        // It may not have come up yet.
        Err(error) if matches!(error.downcast_ref(), Some(store::Error::NotUp { .. })) => {
            return Ok(Known::default());
        }
        Err(error) => return Err(error),
    };
    let networks = record.transaction.networks()?.into_iter().map(|network| network.name);
    let endpoints = record.transaction.endpoints()?.into_iter().map(|endpoint| endpoint.name);
    Ok(Known { networks: networks.collect(), endpoints: endpoints.collect() })
}

/// Reads files, the files of directories, and standard input.
fn sources(paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("read standard input")?;
            sources.push(Source { name: "standard input".to_owned(), text });
        } else if path.is_dir() {
            let files = files_of(path)?;
            if files.is_empty() {
                bail!(
                    "there is no *.toml in {}: describe an instance there, see docs/apply.md",
                    path.display()
                );
            }
            for file in files {
                sources.push(read(&file)?);
            }
        } else {
            sources.push(read(path)?);
        }
    }
    Ok(sources)
}

fn read(path: &Path) -> anyhow::Result<Source> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
    Ok(Source { name, text })
}

/// The descriptions in a directory, by name.
fn files_of(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = || format!("list {}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(listed)? {
        let path = entry.with_context(listed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Print the instance as a file that `vnet apply` takes back.
///
/// Addresses are named as they were given; what follows from names, and what is as documented, is left out.
#[derive(Debug, Args)]
pub(super) struct Export {}

impl Export {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let record = context.record()?;
        let description = Description::of(context.instance.name(), &record.transaction)?;
        let text = Model::from(&description).to_text()?;
        Ok(context.out().write_all(text.as_bytes())?)
    }
}
