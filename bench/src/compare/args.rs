//! The command line of the comparison.

use std::path::PathBuf;

use super::peers;
use super::plan::Family;
use super::verdict::OWN;

pub(crate) const USAGE: &str = "\
usage: bench compare [OPTIONS]   the store beside its peers, each line with its target

  --quick         a tenth of the keys, one repetition, short stretches: a few minutes
  --keys N        keys to load (2000000)
  --reps N        repetitions, of which the medians count (3)
  --only A,B      families of workloads: load, get, values, ycsb, durable, open, space, scan
  --stores A,B    stores beside this one (all that were built in); `ceilings` for the ceilings
  --dir DIR       where the stores go (the temporary directory); up to 10 GB
  --out DIR       where results go (bench-compare): compare.json, compare.md, targets.md and a plot for each family

Peers are built in with --features peers, and RocksDB too with --features peer-rocksdb.
The exit status is 1 if a target is missed.";

/// The name that stands for the ceilings among the stores.
pub(crate) const CEILINGS: &str = "ceilings";

/// The options.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) is_quick: bool,
    pub(crate) keys: u64,
    pub(crate) reps: usize,
    pub(crate) only: Vec<Family>,
    pub(crate) stores: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) out: PathBuf,
    words: Vec<String>,
}

impl Args {
    pub(crate) fn parse(words: Vec<String>) -> Result<Self, String> {
        let is_quick = words.iter().any(|word| word == "--quick");
        let mut stores: Vec<_> = peers::all().iter().map(|peer| peer.name.to_owned()).collect();
        stores.push(CEILINGS.to_owned());
        let known = stores.clone();
        let mut args = Self {
            is_quick,
            keys: if is_quick { 200_000 } else { 2_000_000 },
            reps: if is_quick { 1 } else { 3 },
            only: Family::ALL.to_vec(),
            stores,
            dir: std::env::temp_dir(),
            out: "bench-compare".into(),
            words: words.clone(),
        };
        let mut words = words.into_iter().filter(|word| word != "--quick");
        while let Some(option) = words.next() {
            let value = words.next().ok_or_else(|| format!("{option} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{option}: not a number"));
            let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
            match option.as_str() {
                "--keys" => args.keys = number()?.clamp(10_000, 1 << 32),
                "--reps" => args.reps = number()?.max(1) as usize,
                "--only" => {
                    let family = |name: String| {
                        Family::of_name(&name).ok_or(format!("there is no family {name:?}"))
                    };
                    args.only = list().into_iter().map(family).collect::<Result<_, _>>()?;
                }
                "--stores" => {
                    args.stores = list();
                    if let Some(name) = args.stores.iter().find(|name| !known.contains(name)) {
                        let known = known.join(", ");
                        return Err(format!("no store {name:?} was built in, only {known}"));
                    }
                    args.stores.retain(|name| name != OWN);
                    args.stores.insert(0, OWN.to_owned());
                }
                "--dir" => args.dir = value.into(),
                "--out" => args.out = value.into(),
                _ => return Err(format!("unknown option {option}")),
            }
        }
        Ok(args)
    }

    /// The command line, but where the files went.
    pub(crate) fn options(&self) -> String {
        let mut options = Vec::new();
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            if word == "--dir" || word == "--out" {
                words.next();
            } else {
                options.push(word.as_str());
            }
        }
        options.join(" ")
    }

    pub(crate) fn wants(&self, family: Family) -> bool {
        self.only.contains(&family)
    }
}
