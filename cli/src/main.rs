//! The command line of Caskade.
//!
//! What a command answers goes to stdout, notes and progress go to stderr. Exit codes: 0 fine, 1 the
//! key is missing, 2 wrong usage, 3 damaged data, 4 the store is in use, 5 the system refused.
#![forbid(unsafe_code)]

mod args;
mod demo;
mod fault;
mod interrupt;
mod term;
mod units;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::fault::Outcome;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fault.report(),
    }
}

fn run(cli: Cli) -> Outcome {
    interrupt::listen()?;
    match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::DemoWriter(args) => demo::writer::run(&args),
    }
}
