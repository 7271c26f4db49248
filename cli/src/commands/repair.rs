//! `repair`: what is lost of a damaged store, and saving the rest.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use caskade::{Damage, Db, Error, Loss, LossKind, RecoveryMode};
use caskade_codec::names;
use serde_json::{Value, json};

use super::beside::{self, Draft};
use super::upkeep::{check_every_record, list, places_are};
use super::{open_quietly, restore, tell_of_files};
use crate::args::RepairArgs;
use crate::fault::{Fault, Outcome};
use crate::units;

/// Looks, or saves what can be read to somewhere else, or repairs in place.
pub(crate) fn repair(args: &RepairArgs) -> Outcome {
    if args.in_place {
        return in_place(args);
    }
    let Some(into) = &args.into else { return look(args) };
    beside::refuse_existing(into)?;
    beside::refuse_inside(&args.store, into)?;
    // Half a store could be taken for a whole one: it gets its name at the end.
    let draft = beside::sibling(into, ".saving");
    beside::remove_leftover(&draft)?;
    let draft = Draft::new(draft)?;
    let found = salvage(&args.store, &draft, false)?;
    draft.rename(into)?;
    found.print(args, &format!("saved in {}", into.display()))
}

/// What was found.
#[derive(Debug)]
struct Found {
    /// Keys that can be read.
    keys: u64,
    losses: Vec<Loss>,
    damage: Vec<Damage>,
}

impl Found {
    /// What opening a store and checking it said. They see the same damage, and some of it twice: a
    /// place that lies in a greater one is left out.
    fn new(keys: u64, db: &Db, damage: Vec<Damage>) -> Self {
        let mut all: Vec<Loss> = db.open_report().losses().cloned().collect();
        // Beginnings first, and the longest of those that begin alike.
        all.sort_by_key(|loss| (loss.shard, loss.segment, loss.offset, Reverse(loss.bytes)));
        let mut losses: Vec<Loss> = Vec::new();
        for loss in all {
            if !losses.iter().any(|other| holds(other, loss.shard, loss.segment, loss.offset)) {
                losses.push(loss);
            }
        }
        let is_new = |place: &Damage| {
            !losses.iter().any(|loss| holds(loss, place.shard, place.segment, place.offset))
        };
        let damage = damage.into_iter().filter(is_new).collect();
        Self { keys, losses, damage }
    }
}

/// Whether a place lies in what was lost.
fn holds(loss: &Loss, shard: u16, segment: u64, offset: u64) -> bool {
    (loss.shard, loss.segment) == (shard, segment)
        && (loss.offset..loss.offset + loss.bytes).contains(&offset)
}

/// Lists what is damaged, and writes nothing.
fn look(args: &RepairArgs) -> Outcome {
    let db = open_to_salvage(&args.store).map_err(|fault| match fault {
        Fault::Store(error @ Error::MissingSegment { .. }) => Fault::Damaged(format!(
            "{error}; the records in it are lost. --into saves the rest in a new store, --in-place in \
             this one"
        )),
        fault => fault,
    })?;
    tell_of_files(db.open_report());
    let report = check_every_record(&db)?;
    // A damaged record counts as a key until somebody reads it.
    let mut keys = 0;
    for key in db.keys()? {
        keys += u64::from(key.is_ok());
    }
    Found::new(keys, &db, report.damage).print(args, "can be read")
}

/// What opening for writing does is enough after a crash; damage needs a new store.
fn in_place(args: &RepairArgs) -> Outcome {
    match open_quietly(Db::builder(&args.store).create(false)) {
        Ok(db) => {
            tell_of_files(db.open_report());
            let report = check_every_record(&db)?;
            let is_clean = report.is_clean();
            let found = Found::new(db.len(), &db, report.damage);
            db.close()?;
            if is_clean {
                return found.print(args, "are there");
            }
        }
        Err(Fault::Store(
            Error::Corrupt { .. } | Error::Damaged { .. } | Error::MissingSegment { .. },
        )) => {}
        Err(fault) => return Err(fault),
    }
    let store = beside::real_path(&args.store)?;
    let damaged = beside::sibling(&store, ".damaged");
    beside::refuse_existing(&damaged)?;
    let _held = beside::lock(&store)?;
    let draft = beside::sibling(&store, ".repairing");
    beside::remove_leftover(&draft)?;
    let draft = Draft::new(draft)?;
    let found = salvage(&store, &draft, true)?;
    // Under the name that the original gets: so what is called a draft never is the original.
    draft.rename(&damaged)?;
    Draft::existing(damaged.clone()).exchange(&store)?;
    found.print(args, &format!("saved; the damaged store is {} now", damaged.display()))
}

/// Writes everything that can be read into a new store. `is_held` says whether this process has the
/// store's lock.
fn salvage(store: &Path, draft: &Draft, is_held: bool) -> Outcome<Found> {
    let copy = beside::sibling(&draft.path, ".files");
    beside::remove_leftover(&copy)?;
    let copy = Draft::new(copy)?;
    let from = open_what_is_there(store, &copy.path, is_held)?;
    let shards = from.stats().shards.len() as u16;
    let to = Db::builder(&draft.path).shards(shards).open()?;
    let keys = beside::copy_records(&from, &to, "saving: keys", |error| match error {
        Error::Corrupt { .. } => Ok(()),
        error => Err(error.into()),
    })?;
    to.close()?;
    let damage = check_every_record(&from)?.damage;
    let found = Found::new(keys, &from, damage);
    from.close()?;
    Ok(found)
}

/// Opens a damaged store to read it; where that needs writing, a copy of its files.
fn open_what_is_there(store: &Path, copy: &Path, is_held: bool) -> Outcome<Db> {
    let make_copy = || {
        if copy.exists() {
            return Ok(0);
        }
        let _held = if is_held { None } else { restore::keep_writers_away(store)? };
        restore::copy_files(store, copy)
    };
    loop {
        let source = if copy.exists() { copy } else { store };
        match open_to_salvage(source) {
            // An empty file counts as one of which all is lost.
            Err(Fault::Store(Error::MissingSegment { shard, segment, .. })) => {
                make_copy()?;
                let path = copy.join(names::shard(shard)).join(names::segment(segment));
                note!("segment {segment} of shard {shard} is missing; the records in it are lost");
                File::create_new(&path).map_err(|fault| Fault::system("create", &path, fault))?;
            }
            // The journal holds more than the segments.
            Err(Fault::Store(Error::NeedsRecovery { .. })) => {
                make_copy()?;
                let builder = Db::builder(copy).create(false);
                return open_quietly(builder.recovery_mode(RecoveryMode::Salvage));
            }
            answer => return answer,
        }
    }
}

fn open_to_salvage(store: &Path) -> Outcome<Db> {
    let builder = Db::builder(store).read_only(true).recovery_mode(RecoveryMode::Salvage);
    open_quietly(builder).map_err(|fault| match fault {
        Fault::Store(error @ Error::Damaged { .. }) => Fault::Damaged(format!(
            "{error}; without it nothing can be saved. Go back to a backup with `caskade restore`"
        )),
        fault => fault,
    })
}

impl Found {
    /// Prints what was found. Lost data that had been durable makes it a failure.
    fn print(&self, args: &RepairArgs, what: &str) -> Outcome {
        let mut out = io::stdout().lock();
        if args.json {
            writeln!(out, "{:#}", self.to_json()?)?;
        } else {
            for loss in &self.losses {
                let kind = match loss.kind {
                    LossKind::Corruption => "damaged",
                    _ => "cut off by a crash",
                };
                writeln!(
                    out,
                    "shard {} segment {} offset {}: {} {kind}: {}",
                    loss.shard,
                    loss.segment,
                    loss.offset,
                    units::bytes(loss.bytes),
                    loss.reason
                )?;
            }
            list(&mut out, &self.damage)?;
            writeln!(out, "{} keys {what}", units::count(self.keys))?;
        }
        out.flush()?;
        let lost = self.losses.iter().filter(|loss| loss.kind == LossKind::Corruption).count();
        let places = lost + self.damage.len();
        if places == 0 {
            return Ok(());
        }
        let hint = if args.into.is_none() && !args.in_place {
            "; --into saves the rest in a new store, --in-place in this one"
        } else {
            ""
        };
        Err(Fault::Damaged(format!(
            "{} damaged: the records there are lost, and older values of their keys may \
             stand in for them{hint}",
            places_are(places)
        )))
    }

    fn to_json(&self) -> Outcome<Value> {
        let losses: Vec<_> = self
            .losses
            .iter()
            .map(|loss| {
                json!({
                    "shard": loss.shard, "segment": loss.segment, "offset": loss.offset,
                    "bytes": loss.bytes, "reason": loss.reason,
                    "kind": match loss.kind {
                        LossKind::Tail => "tail",
                        LossKind::Batch => "batch",
                        _ => "corruption",
                    },
                })
            })
            .collect();
        let damage = serde_json::to_value(&self.damage).map_err(io::Error::from)?;
        Ok(json!({ "keys": self.keys, "losses": losses, "damage": damage }))
    }
}
