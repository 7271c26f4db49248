//! `bench`: measures the store against its targets.

mod accept;
mod args;
mod child;
mod churn;
mod compare;
mod profile;
mod report;
mod scale;

use std::process::ExitCode;

use args::{Args, Command};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let mut words: Vec<_> = std::env::args().skip(1).skip_while(|word| word == "--").collect();
    let is_compare = words.first().is_some_and(|word| word.starts_with("compare"));
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{}", if is_compare { compare::USAGE } else { args::USAGE });
        return ExitCode::SUCCESS;
    }
    if is_compare {
        let command = words.remove(0);
        return compare::main(&command, words);
    }
    let args = match Args::parse(words.into_iter()) {
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
        Command::Scale => scale::run(&args).map(|()| true),
        Command::Cold => scale::cold(&args).map(|()| true),
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
