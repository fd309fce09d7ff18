//! `vnet apply` and `vnet export`.

use std::cell::OnceCell;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::context::{Context, DryRun, note};
use crate::file::{self, Action, Change, Flawed, Known, Model, Problems, Source};
use crate::kernel::Kernel;
use crate::manage::{self, Applied, Description, Done, Manager, Mode, Part, RefusedPart, Unnamed};
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
  vnet export --json > vnet.json           what a program can read, and apply takes as well
  vnet export | vnet --instance b apply -f -

The format is described in docs/apply.md, and as a JSON schema in docs/vnet.schema.json.")]
pub(super) struct Apply {
    /// A file in TOML or JSON, a directory (every *.toml in it, by name), or standard input (-); may be given several times.
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
    /// Why a router's bridge is none that it can have.
    #[arg(skip)]
    bridge: OnceCell<manage::Error>,
}

impl Apply {
    /// Reads the files.
    pub(super) fn read(&mut self) -> anyhow::Result<()> {
        self.sources = sources(&self.files);
        Ok(())
    }

    /// Whether they describe a router.
    pub(super) fn makes_router(&self) -> bool {
        file::describes_router(&self.sources)
    }

    /// What is to be known of a router's bridge before the router is entered, and its instance locked.
    pub(super) fn check(&self, context: &Context) -> anyhow::Result<()> {
        let file = file::read(self.sources.clone(), &Known::default()).unwrap_or_else(|flawed| flawed.sound);
        if let Some(router) = file.description.router
            && let Err(error) = manage::check_outside_of(&context.instance, &router, Kernel::here()?)
        {
            // It is said later, with everything else that is wrong.
            self.bridge.get_or_init(|| error);
        }
        Ok(())
    }

    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { files, prune, dry_run, sources, bridge } = self;
        let mode = dry_run.mode();
        let outcome =
            Files { paths: files, prune }.apply_read((sources, bridge.into_inner()), context, mode).await?;
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
        self.apply_read((sources(&self.paths), None), context, mode).await
    }

    /// Makes the instance what was read of them, unless its bridge was refused.
    async fn apply_read(
        &self,
        (sources, bridge): (Vec<Source>, Option<manage::Error>),
        context: &Context,
        mode: Mode,
    ) -> anyhow::Result<Outcome> {
        let unnamed = if self.prune { Unnamed::Goes } else { Unnamed::Stays };
        let known = if self.prune { Known::default() } else { known(context)? };
        let flawed = file::read(sources, &known).map_or_else(|flawed| *flawed, Flawed::from);
        let flawed = flawed.with_cgroups(|cgroup| Kernel::cgroup(cgroup.clone()));
        let mut refused: Vec<RefusedPart> =
            bridge.into_iter().map(|error| RefusedPart { part: Part::Router, error }).collect();
        for (nth, floating) in flawed.sound.description.floating.iter().enumerate() {
            if let Err(error) = manage::check_external_of(&context.instance, floating.external) {
                refused.push(RefusedPart { part: Part::Floating(nth), error });
            }
        }
        let file = match flawed.whole() {
            Ok(file) if refused.is_empty() => file,
            Ok(file) => return Err(everything(file.into(), (refused, unnamed), context).await.into()),
            Err(flawed) => return Err(everything(*flawed, (refused, unnamed), context).await.into()),
        };
        let piped = self.paths.iter().any(|file| file == Path::new("-"));
        if self.prune && piped && file.description == Description::default() {
            // As when the program that was to write the description has failed.
            bail!("nothing is described, and --prune would remove everything: `vnet down` does that");
        }
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

/// Everything that is wrong: with files in themselves, and with what makes sense of them on this host.
async fn everything(
    mut flawed: Flawed,
    (mut refused, unnamed): (Vec<RefusedPart>, Unnamed),
    context: &Context,
) -> Problems {
    flawed.doubt.router |= refused.iter().any(|refused| refused.part == Part::Router);
    let compared = refusals(&flawed, unnamed, context).await;
    let not_compared = match compared {
        Ok(others) => {
            refused.extend(others);
            None
        }
        Err(error) => Some(format!("{error:#}")),
    };
    let mut problems = flawed.problems(refused);
    problems.not_compared = not_compared;
    problems
}

/// What speaks against those parts of files that make sense. Nothing is changed, and nothing noted.
async fn refusals(flawed: &Flawed, unnamed: Unnamed, context: &Context) -> anyhow::Result<Vec<RefusedPart>> {
    let manager = Manager::create(&context.instance, context.kernel().await?, Mode::DryRun, context.now)?;
    Ok(manager.refusals(&flawed.sound.description, unnamed, &flawed.doubt).await?)
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
fn sources(paths: &[PathBuf]) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            let text = io::stdin().read_to_string(&mut text).map(|_| text).map_err(unread);
            sources.push(Source { name: "standard input".to_owned(), text });
        } else if path.is_dir() {
            match files_of(path) {
                Ok(files) => sources.extend(files.iter().map(|file| read(file))),
                Err(reason) => sources.push(Source { name: path.display().to_string(), text: Err(reason) }),
            }
        } else {
            sources.push(read(path));
        }
    }
    sources
}

fn read(path: &Path) -> Source {
    Source { name: path.display().to_string(), text: std::fs::read_to_string(path).map_err(unread) }
}

fn unread(error: io::Error) -> String {
    format!("this cannot be read: {error}")
}

/// The descriptions in a directory, by name; there is at least one.
fn files_of(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err("there is no *.toml in it: describe an instance there, see docs/apply.md".to_owned());
    }
    files.sort();
    Ok(files)
}

/// Print the instance as a file that `vnet apply` takes back: in TOML, with --json in JSON.
///
/// Addresses are named as they were given; what follows from names, and what is as documented, is left out.
#[derive(Debug, Args)]
pub(super) struct Export {}

impl Export {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let record = context.record()?;
        let description = Description::of(context.instance.name(), &record.transaction)?;
        let model = Model::from(&description);
        if context.format == Format::Json {
            return Ok(output::print_json(&mut context.out(), &model)?);
        }
        Ok(context.out().write_all(model.to_text()?.as_bytes())?)
    }
}
