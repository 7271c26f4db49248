//! The command line.

use std::path::PathBuf;

use bench::measure::Clock;

pub(crate) const USAGE: &str = "\
usage: bench accept [OPTIONS]   loads, reads, reopens; each figure beside its target
       bench churn [OPTIONS]    overwrites, and watches space and stalls
       bench profile [OPTIONS]  one operation over and over, for a profiler
       bench scale [OPTIONS]    costs by keys, threads and shards
       bench cold [OPTIONS]     first makes a store; then, with less memory, reads and overwrites it
       bench compare [OPTIONS]  the store beside its peers (compare --help)

  --keys N      keys to load (accept: 2000000, churn: 1000000)
  --ops N       operations (churn and profile: 40000000; cold: overwrites, as many as there are keys)
  --reps N      repetitions of each measurement (accept: 5)
  --clock CLOCK accept: wall, or processor: the threads' own time, for a busy machine
  --only PARTS  accept: load, get, memory, reopen or durable alone, or several with commas between;
                scale: keys, threads or shards in the same way;
                profile: get_into, get, absent, get_many, get_many_with, load, put, batch,
                durable, open or recover
  --dir DIR     where the stores go (default: the temporary directory)
  --json FILE   where the figures go (default: bench-accept.json, bench-churn.json)

The exit status is 1 if a target is missed.";

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    Accept,
    Churn,
    Profile,
    Scale,
    Cold,
    /// A step that needs a process of its own; started by this program itself.
    Child(String),
}

/// The options.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) command: Command,
    pub(crate) keys: u64,
    /// As many as are usual, if none.
    pub(crate) ops: Option<u64>,
    pub(crate) reps: usize,
    pub(crate) clock: Clock,
    pub(crate) only: Option<String>,
    pub(crate) dir: PathBuf,
    pub(crate) json: PathBuf,
}

impl Args {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let command = match args.next().as_deref() {
            Some("accept") => Command::Accept,
            Some("churn") => Command::Churn,
            Some("profile") => Command::Profile,
            Some("scale") => Command::Scale,
            Some("cold") => Command::Cold,
            Some("child") => Command::Child(args.next().ok_or("child: what?")?),
            Some(other) => return Err(format!("unknown command {other:?}")),
            None => return Err("no command".to_owned()),
        };
        let is_churn = matches!(command, Command::Churn);
        let name = if is_churn { "bench-churn.json" } else { "bench-accept.json" };
        let mut parsed = Self {
            command,
            keys: if is_churn { 1_000_000 } else { 2_000_000 },
            ops: None,
            reps: 5,
            clock: Clock::Wall,
            only: None,
            dir: std::env::temp_dir(),
            json: name.into(),
        };
        while let Some(option) = args.next() {
            let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{option}: not a number"));
            match option.as_str() {
                "--keys" => parsed.keys = number()?.max(1000),
                "--ops" => parsed.ops = Some(number()?.max(1000)),
                "--reps" => parsed.reps = number()?.max(1) as usize,
                "--clock" => {
                    parsed.clock = match value.as_str() {
                        "wall" => Clock::Wall,
                        "processor" => Clock::Processor,
                        _ => return Err("--clock: wall or processor".to_owned()),
                    };
                }
                "--only" => parsed.only = Some(value),
                "--dir" => parsed.dir = value.into(),
                "--json" => parsed.json = value.into(),
                _ => return Err(format!("unknown option {option}")),
            }
        }
        Ok(parsed)
    }

    /// Operations of a churn or a profile.
    pub(crate) fn ops(&self) -> u64 {
        self.ops.unwrap_or(40_000_000)
    }

    /// Whether this part of the measurements is wanted.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only.split(',').any(|it| it == part))
    }
}
