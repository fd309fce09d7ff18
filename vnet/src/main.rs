//! The `vnet` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    vnet::cli::main()
}
