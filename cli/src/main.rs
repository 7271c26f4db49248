//! The command line of Caskade.
//!
//! What a command answers goes to stdout, notes and progress go to stderr. `fault` has the exit codes.
#![forbid(unsafe_code)]

#[macro_use]
mod term;

mod args;
mod commands;
mod demo;
mod escape;
mod fault;
mod interrupt;
mod load;
mod units;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};
use crate::commands::{
    bench, export, import, inspect, repair, reshard, restore, scan, stats, upkeep, values,
};
use crate::fault::Outcome;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => ExitCode::from(fault.tell()),
    }
}

fn run(cli: Cli) -> Outcome {
    interrupt::listen()?;
    match cli.command {
        Command::Get(args) => values::get(&args),
        Command::Put(args) => values::put(&args),
        Command::Del(args) => values::del(&args),
        Command::Scan(args) => scan::scan(&args),
        Command::Count(args) => scan::count(&args),
        Command::Stats(args) => stats::stats(&args),
        Command::Verify(args) => upkeep::verify(&args),
        Command::Compact(args) => upkeep::compact(&args),
        Command::Backup(args) => upkeep::backup(&args),
        Command::Restore(args) => restore::restore(&args),
        Command::Repair(args) => repair::repair(&args),
        Command::Reshard(args) => reshard::reshard(&args),
        Command::Export(args) => export::export(&args),
        Command::Import(args) => import::import(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions { shell } => {
            // It panics where writing fails, which memory does not.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "caskade", &mut text);
            Ok(io::stdout().write_all(&text)?)
        }
        Command::DemoWriter(args) => demo::writer::run(&args),
    }
}
