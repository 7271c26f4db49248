//! What may stand on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::escape::Form;
use crate::units;

/// An embedded key-value store: look into one, change it, check it, back it up.
#[derive(Debug, Parser)]
#[command(name = "caskade", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 fine, 1 the key is missing (or there, for put --if-absent), 2 wrong usage or
no store there, 3 damaged data, 4 the store is in use, 5 the system refused a file operation
or the store must be opened for writing first, 130 interrupted.
Data goes to stdout, notes to stderr.
get, scan, count, stats, verify, export and repair (without --in-place) open the store read-only,
also while another process writes.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value of a key
    Get(GetArgs),
    /// Store a value: from the command line, a file or stdin
    Put(PutArgs),
    /// Delete keys
    Del(DelArgs),
    /// Print keys and values, in no order
    Scan(ScanArgs),
    /// Print how many keys there are
    Count(CountArgs),
    /// Print the figures of a store
    Stats(StatsArgs),
    /// Read every record and check it
    Verify(VerifyArgs),
    /// Merge everything: give back the space of old records
    Compact(CompactArgs),
    /// Copy a store with hard links; again into the same folder copies what is new
    ///
    /// While a program has the store open, only it can do that: with `Db::checkpoint`, which makes the
    /// same copy. A copy has the damage that the store has: `restore` and `verify` find it.
    Backup(BackupArgs),
    /// Make a new store from a backup
    Restore(RestoreArgs),
    /// Save what can be read of a damaged store, and list what is lost
    ///
    /// Without --into and --in-place it only looks, and writes nothing. Exit code 3 says that something
    /// is lost, also when the rest was saved. If a shard's MANIFEST is lost, every segment file that is
    /// there counts, and what was deleted may be back.
    Repair(RepairArgs),
    /// Write a store anew with another number of shards, while nobody uses it
    ///
    /// The old store stays until the new one is whole, so that both need space for a while. Values that
    /// the library compressed are written plain.
    Reshard(ReshardArgs),
    /// Print all keys and values, as JSON lines or as a dump of LMDB
    Export(ExportArgs),
    /// Store what `export` or LMDB's `mdb_dump` wrote
    Import(ImportArgs),
    /// Show what one file of a store holds
    Inspect(InspectArgs),
    /// Measure a store with the mixes of the YCSB benchmark
    Bench(BenchArgs),
    /// Show on a temporary store what Caskade does, and measure it
    Demo(DemoArgs),
    /// Print completions for a shell
    Completions {
        /// Which one
        shell: clap_complete::Shell,
    },
    /// The demo's child, which is killed while it writes
    #[command(hide = true)]
    DemoWriter(DemoWriterArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// The key
    pub(crate) key: OsString,
    /// How the key is written
    #[arg(long = "in", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) input: Form,
    /// How the value is printed [default: escaped on a terminal, else raw]
    #[arg(long = "out", value_name = "FORM", value_enum)]
    pub(crate) output: Option<Form>,
    /// Print key, value, version and expiry as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// The key
    pub(crate) key: OsString,
    /// The value; from stdin if neither it nor a file is named
    pub(crate) value: Option<OsString>,
    /// Store what is in this file
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
    /// Let the key expire after this time: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = units::parse_time)]
    pub(crate) ttl: Option<Duration>,
    /// Leave a value that is there; exit code 1 if there is one
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// Make the store if there is none
    #[arg(long)]
    pub(crate) create: bool,
    /// How many shards a store that is made gets
    #[arg(long, value_name = "N", requires = "create", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,
    /// How key and value are written
    #[arg(long = "in", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) input: Form,
}

#[derive(Debug, Args)]
pub(crate) struct DelArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// The keys
    #[arg(required = true)]
    pub(crate) keys: Vec<OsString>,
    /// How the keys are written
    #[arg(long = "in", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) input: Form,
}

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// Only keys that begin so (all keys are looked at all the same)
    #[arg(long, value_name = "BYTES")]
    pub(crate) prefix: Option<OsString>,
    /// Go on behind damaged records; say at the end where they are, with exit code 3
    #[arg(long)]
    pub(crate) skip_damaged: bool,
    /// Stop after about so many keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Print keys without values
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Go on where an earlier scan stopped
    #[arg(long, value_name = "CURSOR", value_parser = parse_cursor)]
    pub(crate) cursor: Option<caskade::ScanCursor>,
    /// How the prefix is written
    #[arg(long = "in", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) input: Form,
    /// How keys and values are printed
    #[arg(long = "out", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) output: Form,
    /// Print a JSON object a line; the last one has the cursor if there is more
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_cursor(text: &str) -> Result<caskade::ScanCursor, &'static str> {
    text.parse().map_err(|_| "it is the number that an earlier scan ended with")
}

#[derive(Debug, Args)]
pub(crate) struct CountArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// Only keys that begin so
    #[arg(long, value_name = "BYTES")]
    pub(crate) prefix: Option<OsString>,
    /// Look at every key, to leave out those that have expired and were not cleaned up
    #[arg(long)]
    pub(crate) exact: bool,
    /// Look at every key, and do not count damaged ones; say at the end where they are, with exit
    /// code 3
    #[arg(long)]
    pub(crate) skip_damaged: bool,
    /// How the prefix is written
    #[arg(long = "in", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) input: Form,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// A line for each shard
    #[arg(long)]
    pub(crate) shards: bool,
    /// A line for each segment
    #[arg(long)]
    pub(crate) segments: bool,
    /// Again and again, every two seconds or as often as said (500ms, 5s, 1m), until Ctrl-C
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", value_parser = units::parse_time, conflicts_with = "plot")]
    pub(crate) watch: Option<Duration>,
    /// Draw live and dead bytes by shard and by segment into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// Where the copy goes: a new folder, or an earlier backup of this store, on the same file system
    pub(crate) target: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup's folder. It is left as it is
    pub(crate) backup: PathBuf,
    /// Where the new store goes: a folder that does not exist yet, on any file system
    pub(crate) target: PathBuf,
    /// Do not read the new store again to check every record
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// Write what can be read into a new store in this folder; the original is left as it is
    #[arg(long, value_name = "FOLDER", conflicts_with = "in_place")]
    pub(crate) into: Option<PathBuf>,
    /// Do what opening for writing does after a crash; if there is damage beyond that, put a repaired
    /// store in the original's place and keep the original beside it, as STORE.damaged
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReshardArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// How many shards it shall have
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: u16,
    /// Keep the old store beside the new one, in this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep_old: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum DumpFormat {
    /// A JSON object a line: key, value, and expiry if there is one
    #[default]
    Json,
    /// What `mdb_load` reads; it has no expiry
    Lmdb,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: DumpFormat,
    /// Only keys that begin so
    #[arg(long, value_name = "BYTES")]
    pub(crate) prefix: Option<OsString>,
    /// Go on behind damaged records; say at the end where they are, with exit code 3
    #[arg(long)]
    pub(crate) skip_damaged: bool,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How the prefix is written
    #[arg(long = "in", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) input: Form,
    /// How keys and values stand in JSON: escaped or hex
    #[arg(long = "out", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) output: Form,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The store's folder
    pub(crate) store: PathBuf,
    /// The file to read; stdin if none is named. What it is shows in its first bytes
    pub(crate) file: Option<PathBuf>,
    /// Leave values that are there
    #[arg(long)]
    pub(crate) no_overwrite: bool,
    /// Make the store if there is none
    #[arg(long)]
    pub(crate) create: bool,
    /// How many shards a store that is made gets
    #[arg(long, value_name = "N", requires = "create", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A mix of operations as the YCSB benchmark names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mix {
    /// Half reads, half updates
    A,
    /// 95% reads, 5% updates
    B,
    /// Reads only
    C,
    /// 95% reads of what is new, 5% inserts
    D,
    /// Half reads, half read-modify-writes
    F,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct BenchArgs {
    /// The store's folder: made for the benchmark and removed after it, or an existing one with
    /// --existing. A benchmark that is killed (SIGKILL) leaves it there
    pub(crate) store: PathBuf,
    /// Use a store that exists. Its own keys are left alone; those of the benchmark begin with
    /// `caskade-bench:` and are deleted at the end
    #[arg(long, conflicts_with = "shards")]
    pub(crate) existing: bool,
    /// Which mixes, in this order
    #[arg(
        long,
        value_name = "MIXES",
        value_enum,
        value_delimiter = ',',
        ignore_case = true,
        default_value = "a,b,c,d,f"
    )]
    pub(crate) mixes: Vec<Mix>,
    /// How many records are loaded first
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    pub(crate) records: u32,
    /// How long each mix runs
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::parse_time)]
    pub(crate) time: Duration,
    /// How many threads [default: one a core, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) threads: Option<u8>,
    /// Length of the values
    #[arg(long, value_name = "BYTES", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    pub(crate) value_bytes: u32,
    /// How many shards the store gets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,
    /// Make every write of the mixes durable before it is answered
    #[arg(long)]
    pub(crate) durable: bool,
    /// Leave the store, or the keys in it, at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A segment, a hint, MANIFEST, STORE, KEYDIR or a journal
    pub(crate) file: PathBuf,
    /// Begin at this offset of the segment, where a record begins
    #[arg(long, value_name = "BYTES")]
    pub(crate) offset: Option<u64>,
    /// Show so many records, entries, segments or groups
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    /// How keys and values are printed
    #[arg(long = "out", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) output: Form,
    /// Print keys and values whole, not only their beginnings
    #[arg(long)]
    pub(crate) whole: bool,
    /// Print a JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many records to load
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    pub(crate) records: u32,
    /// How many threads load and read [default: one a core, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) threads: Option<u8>,
    /// Where to make the store. A demo that is killed (SIGKILL) leaves it there [default:
    /// caskade-demo-PID in the folder for temporary files]
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
