//! `vnet completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print a shell's completions for vnet.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        // Into memory first: the generator panics where a pipe breaks.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "vnet", &mut script);
        Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?)
    }
}
