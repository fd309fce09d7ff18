//! `vnet apply` and `vnet export`.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use super::context::{Context, DryRun, note};
use crate::file::{self, Action, Change, Known, Model, Source};
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
}

impl Apply {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let unnamed = if self.prune { Unnamed::Goes } else { Unnamed::Stays };
        let sources = sources(&self.files)?;
        let known = if self.prune { Known::default() } else { known(context)? };
        let file = file::read(sources, &known)?;
        let piped = self.files.iter().any(|file| file == Path::new("-"));
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
        note(&notes);
        let mut changes = file::diff(before.as_ref(), &after);
        if !self.prune {
            changes.extend(file::kept(&file.description, &after));
        }
        print(context, mode, &changes, &ops)
    }
}

/// What is printed for programs.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    changes: &'a [Change],
    ops: Vec<String>,
}

fn print(context: &Context, mode: Mode, changes: &[Change], ops: &[Op]) -> anyhow::Result<()> {
    if context.format == Format::Json {
        let ops = ops.iter().map(ToString::to_string).collect();
        let report = Report { version: output::VERSION, changes, ops };
        return Ok(output::print_json(&mut context.out(), &report)?);
    }
    let mut out = io::BufWriter::new(context.out());
    let count = |action| changes.iter().filter(|change| change.action == action).count();
    let [added, changed, removed, kept] =
        [Action::Add, Action::Change, Action::Remove, Action::Keep].map(count);
    if mode == Mode::DryRun {
        changes.iter().try_for_each(|change| writeln!(out, "{change}"))?;
    }
    let repairs: Vec<&Op> = ops.iter().filter(|op| !op.is_by_the_way()).collect();
    if added + changed + removed > 0 {
        match mode {
            Mode::DryRun => writeln!(out, "{added} to add, {changed} to change, {removed} to remove")?,
            Mode::Apply => writeln!(out, "{added} added, {changed} changed, {removed} removed")?,
        }
    } else if repairs.is_empty() {
        writeln!(out, "nothing to change: everything is as described")?;
    } else {
        // The record says so already, and the kernel did not.
        if mode == Mode::DryRun {
            repairs.iter().try_for_each(|op| writeln!(out, "~ {op}"))?;
        } else {
            writeln!(out, "nothing to change; {} steps brought back what had gone", repairs.len())?;
        }
    }
    if kept > 0 && mode == Mode::Apply {
        writeln!(out, "{kept} not described and kept: --prune removes them, --dry-run names them")?;
    }
    Ok(out.flush()?)
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
