//! `repair`: what is lost of a damaged store, and saving the rest.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use caskade::{Damage, Db, Error, Loss, LossKind, RecoveryMode};
use caskade_codec::ShardId;
use caskade_codec::names::{self, StoreName};
use serde_json::{Value, json};

use super::beside::{self, Draft};
use super::upkeep::{check_every_record, list, places_are};
use super::{manifest, open_quietly, restore, tell_of_files};
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
    /// Shards whose manifest is lost.
    manifests: Vec<ShardId>,
    losses: Vec<Loss>,
    damage: Vec<Damage>,
}

impl Found {
    /// What opening a store and checking it said. They see the same damage, and some of it twice: a
    /// place that lies in a greater one is left out.
    fn new(keys: u64, db: &Db, damage: Vec<Damage>, rebuilt: Vec<Rebuilt>) -> Self {
        let mut manifests: Vec<_> = rebuilt.iter().map(|rebuilt| rebuilt.shard).collect();
        manifests.sort_unstable();
        let mut all: Vec<Loss> = db.open_report().losses().cloned().collect();
        all.extend(rebuilt.into_iter().flat_map(|rebuilt| rebuilt.losses));
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
        Self { keys, manifests, losses, damage }
    }
}

/// Whether a place lies in what was lost.
fn holds(loss: &Loss, shard: u16, segment: u64, offset: u64) -> bool {
    (loss.shard, loss.segment) == (shard, segment)
        && (loss.offset..loss.offset + loss.bytes).contains(&offset)
}

/// Lists what is damaged, and writes nothing.
fn look(args: &RepairArgs) -> Outcome {
    let db = open_to_salvage(&args.store, true).map_err(|fault| match fault {
        Fault::Store(error @ Error::MissingSegment { .. }) => Fault::Damaged(format!(
            "{error}; the records in it are lost. --into saves the rest in a new store, --in-place in \
             this one"
        )),
        Fault::Store(Error::Damaged { path, reason }) if shard_of_manifest(&path).is_some() => {
            Fault::Damaged(format!(
                "{} is damaged: {reason}; without it nobody knows which segments count. --into saves \
                 what those that are there hold in a new store, --in-place in this one",
                path.display()
            ))
        }
        fault => hopeless(fault),
    })?;
    tell_of_files(db.open_report());
    let report = check_every_record(&db)?;
    // A damaged record counts as a key until somebody reads it.
    let mut keys = 0;
    for key in db.keys()? {
        keys += u64::from(key.is_ok());
    }
    Found::new(keys, &db, report.damage, Vec::new()).print(args, "can be read")
}

/// What opening for writing does is enough after a crash; damage needs a new store.
fn in_place(args: &RepairArgs) -> Outcome {
    match open_quietly(Db::builder(&args.store).create(false)) {
        Ok(db) => {
            tell_of_files(db.open_report());
            let report = check_every_record(&db)?;
            let is_clean = report.is_clean();
            let found = Found::new(db.len(), &db, report.damage, Vec::new());
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
    let (from, rebuilt) = open_what_is_there(store, &copy.path, is_held)?;
    let shards = from.stats().shards.len() as u16;
    let to = Db::builder(&draft.path).shards(shards).open()?;
    let copied = beside::copy_records(&from, &to, "saving: keys", |error| match error {
        Error::Corrupt { .. } => Ok(()),
        error => Err(error.into()),
    })?;
    to.close()?;
    let damage = check_every_record(&from)?.damage;
    let found = Found::new(copied.keys, &from, damage, rebuilt);
    from.close()?;
    Ok(found)
}

/// Opens a damaged store to read it; where that needs writing, a copy of its files. Answers too what
/// had to be made anew for that.
fn open_what_is_there(store: &Path, copy: &Path, is_held: bool) -> Outcome<(Db, Vec<Rebuilt>)> {
    let make_copy = || {
        if copy.exists() {
            return Ok(0);
        }
        let _held = if is_held { None } else { restore::keep_writers_away(store)? };
        restore::copy_files(store, copy)
    };
    let mut rebuilt: Vec<Rebuilt> = Vec::new();
    let mut read_only = true;
    loop {
        let source = if copy.exists() { copy } else { store };
        match open_to_salvage(source, read_only) {
            // An empty file counts as one of which all is lost.
            Err(Fault::Store(Error::MissingSegment { shard, segment, .. })) => {
                make_copy()?;
                let path = copy.join(names::shard(shard)).join(names::segment(segment));
                note!("segment {segment} of shard {shard} is missing; the records in it are lost");
                File::create_new(&path).map_err(|fault| Fault::system("create", &path, fault))?;
            }
            // The journal holds more than the segments.
            Err(Fault::Store(Error::NeedsRecovery { .. })) if read_only => {
                make_copy()?;
                read_only = false;
            }
            Err(Fault::Store(Error::Damaged { path, .. }))
                if let Some(shard) = shard_of_manifest(&path)
                    && rebuilt.iter().all(|rebuilt| rebuilt.shard != shard) =>
            {
                make_copy()?;
                let losses = manifest::rebuild(copy, shard)?;
                rebuilt.push(Rebuilt { shard, losses });
            }
            Err(fault) => return Err(hopeless(fault)),
            Ok(db) => return Ok((db, rebuilt)),
        }
    }
}

/// A shard whose manifest was made from its segment files.
#[derive(Debug)]
struct Rebuilt {
    shard: ShardId,
    losses: Vec<Loss>,
}

/// The shard whose manifest this is, if it is one.
fn shard_of_manifest(path: &Path) -> Option<ShardId> {
    match StoreName::parse(path.parent()?.file_name()?) {
        StoreName::Shard(shard) if path.ends_with(names::MANIFEST) => Some(shard),
        _ => None,
    }
}

fn open_to_salvage(store: &Path, read_only: bool) -> Outcome<Db> {
    let builder = Db::builder(store).create(false).read_only(read_only);
    open_quietly(builder.recovery_mode(RecoveryMode::Salvage))
}

/// Says so where nothing can be done.
fn hopeless(fault: Fault) -> Fault {
    match fault {
        Fault::Store(error @ Error::Damaged { .. }) => Fault::Damaged(format!(
            "{error}; without it nothing can be saved. Go back to a backup with `caskade restore`"
        )),
        fault => fault,
    }
}

impl Found {
    /// Prints what was found. Lost data that had been durable makes it a failure.
    fn print(&self, args: &RepairArgs, what: &str) -> Outcome {
        let mut out = io::stdout().lock();
        if args.json {
            writeln!(out, "{:#}", self.to_json()?)?;
        } else {
            for shard in &self.manifests {
                writeln!(
                    out,
                    "shard {shard}: the MANIFEST is lost, and every segment file that is there was \
                     taken: deleted keys, older values and parts of batches may be back, and nobody \
                     knows which files are missing"
                )?;
            }
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
        let places = self.manifests.len() + lost + self.damage.len();
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
        let manifests: Vec<_> = self.manifests.iter().map(|shard| shard.0).collect();
        Ok(json!({
            "keys": self.keys, "manifests_lost": manifests, "losses": losses, "damage": damage,
        }))
    }
}
