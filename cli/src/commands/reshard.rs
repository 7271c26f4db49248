//! `reshard`: a store with another number of shards.

use std::fs;
use std::io::{self, Write};

use caskade::Db;
use serde_json::json;

use super::beside::{self, Draft};
use super::{open_to_read, open_to_write};
use crate::args::ReshardArgs;
use crate::fault::{Fault, Outcome};
use crate::units;

/// Writes the store anew beside itself, and exchanges the two.
pub(crate) fn reshard(args: &ReshardArgs) -> Outcome {
    // What the last life left to recover is recovered first, so that it can be read without a lock.
    open_to_write(&args.store)?.close()?;
    let store = beside::real_path(&args.store)?;
    let held = beside::lock(&store)?;
    if let Some(old) = &args.keep_old {
        beside::refuse_existing(old)?;
        beside::refuse_inside(&store, old)?;
    } else {
        beside::refuse_foreign_files(&store)?;
    }
    let from = open_to_read(&store)?;
    let shards = from.stats().shards.len();
    let draft = beside::sibling(&store, ".reshard");
    // The store opened, so that it is whole, and what a killed run left is not needed.
    beside::remove_leftover(&draft)?;
    if shards == usize::from(args.shards) {
        note!("{} has {shards} shards already", args.store.display());
        return answer(args, from.len(), shards);
    }
    let draft = Draft::new(draft)?;
    let to = Db::builder(&draft.path).shards(args.shards).open()?;
    let copied = beside::copy_records(&from, &to, "resharding: keys", |error| Err(error.into()))?;
    let written = to.len();
    // Closing makes it durable.
    to.close()?;
    // What expired meanwhile may be gone.
    if !(copied.keys - copied.expiring..=copied.keys).contains(&written) {
        return Err(Fault::Damaged(format!(
            "{} keys were copied, {written} are there: this is a bug, please report it; the \
             store is as it was",
            copied.keys
        )));
    }
    from.close()?;
    if let Some(keep) = &args.keep_old {
        // Under the name that the old store gets: so what is called a draft never is the old store.
        draft.rename(keep)?;
        Draft::existing(keep.clone()).exchange(&store)?;
    } else {
        let old = draft.exchange(&store)?;
        fs::remove_dir_all(&old).map_err(|source| Fault::system("remove", &old, source))?;
    }
    drop(held);
    answer(args, copied.keys, shards)
}

fn answer(args: &ReshardArgs, keys: u64, shards_before: usize) -> Outcome {
    let mut out = io::stdout().lock();
    if args.json {
        let answer = json!({ "keys": keys, "shards": args.shards, "shards_before": shards_before });
        writeln!(out, "{answer}")?;
    } else if shards_before != usize::from(args.shards) {
        let keys = units::number_of(keys, "key");
        writeln!(out, "{keys}, {shards_before} shards became {}", args.shards)?;
    }
    Ok(())
}
