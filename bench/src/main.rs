//! `bench`: measures the store against its targets.

mod accept;
mod args;
mod child;
mod churn;
mod profile;
mod report;

use std::process::ExitCode;

use args::{Args, Command};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(reason) => {
            eprintln!("{reason}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    let outcome = match &args.command {
        Command::Accept => accept::run(&args).and_then(|report| report.finish(&args)),
        Command::Churn => churn::run(&args).and_then(|report| report.finish(&args)),
        Command::Profile => profile::run(&args).map(|()| true),
        Command::Child(what) => child::run(what, &args).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}
