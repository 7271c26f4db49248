//! What may stand on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An embedded key-value store: look into one, change it, check it, back it up.
#[derive(Debug, Parser)]
#[command(name = "caskade", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 fine, 1 the key is missing, 2 wrong usage, 3 damaged data, 4 the store is in use,
5 the system refused a file operation, 130 interrupted. Data goes to stdout, notes to stderr.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show on a temporary store what Caskade does, and measure it
    Demo(DemoArgs),
    /// The demo's child, which is killed while it writes
    #[command(hide = true)]
    DemoWriter(DemoWriterArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many records to load
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    pub(crate) records: u32,
    /// How many threads load and read [default: one a core, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) threads: Option<u8>,
    /// Where to make the store [default: a new folder for temporary files]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// Leave the store there at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print the measurements as JSON instead of tables and charts
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoWriterArgs {
    pub(crate) store: PathBuf,
}
