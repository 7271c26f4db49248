//! `bench compare`: this store beside those that its users would pick instead.
//!
//! The parent (`runner`) starts every step of a store (`plan`, `steps`) as a process of its own, so that
//! allocators, maps and caches do not disturb one another, and collects what they say (`results`).
//! `lines` knows what each figure means and what it has to be, `verdict` whether it is so; `markdown`,
//! `json` and `svg` show it.

mod args;
mod ceilings;
mod drive;
mod json;
mod lines;
mod machine;
mod markdown;
mod peers;
mod plan;
mod results;
mod runner;
mod steps;
mod store;
mod svg;
mod verdict;

use std::process::ExitCode;

use crate::Outcome;
use args::Args;
pub(crate) use args::USAGE;

/// Runs the comparison, or (`compare-step`) one step of it. The exit status is 1 if a target is missed.
pub(crate) fn main(command: &str, words: Vec<String>) -> ExitCode {
    let outcome = match command {
        "compare-step" => steps::run(&words).map(|()| true),
        _ => match Args::parse(words) {
            Ok(args) => compare(&args),
            Err(reason) => {
                eprintln!("{reason}\n\n{USAGE}");
                return ExitCode::from(2);
            }
        },
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

fn compare(args: &Args) -> Outcome<bool> {
    if cfg!(not(feature = "peers")) {
        eprintln!(
            "built without --features peers: there is nobody to compare with but the ceilings"
        );
    }
    let results = runner::run(args)?;
    println!("{}", verdict::table(&results));
    let out = &args.out;
    std::fs::create_dir_all(out)?;
    let json = serde_json::to_string_pretty(&json::document(&results))?;
    std::fs::write(out.join("compare.json"), json + "\n")?;
    std::fs::write(out.join("compare.md"), markdown::document(&results))?;
    std::fs::write(out.join("targets.md"), markdown::targets(&results))?;
    for (name, plot) in svg::plots(&results) {
        std::fs::write(out.join(format!("{name}.svg")), plot)?;
    }
    println!(
        "written to {}: compare.json, compare.md, targets.md, and a plot for each family",
        out.display()
    );
    Ok(!verdict::verdicts(&results).iter().any(verdict::Verdict::is_missed))
}
