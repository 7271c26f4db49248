//! The commands, and how they open stores.

pub(crate) mod bench;
mod beside;
mod damaged;
mod dump;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod inspect;
mod manifest;
mod pieces;
mod plot;
pub(crate) mod repair;
pub(crate) mod reshard;
pub(crate) mod restore;
pub(crate) mod scan;
pub(crate) mod stats;
pub(crate) mod upkeep;
pub(crate) mod values;

use std::path::Path;

use caskade::{Builder, Db, Loss, OpenReport};

use crate::fault::Outcome;
use crate::interrupt;
use crate::term::Progress;
use crate::units;

/// Opens a store without a lock. Nothing is written to it.
fn open_to_read(path: &Path) -> Outcome<Db> {
    open(Db::builder(path).read_only(true))
}

/// Opens a store that exists, for writing.
fn open_to_write(path: &Path) -> Outcome<Db> {
    open(Db::builder(path).create(false))
}

/// Opens a store with a progress bar, and tells of what recovery could not keep.
fn open(builder: Builder) -> Outcome<Db> {
    let db = open_quietly(builder)?;
    tell_of_losses(&db);
    Ok(db)
}

/// Opens a store with a progress bar.
fn open_quietly(builder: Builder) -> Outcome<Db> {
    let progress = Progress::new("opening: segments");
    let builder = builder.on_open_progress(move |now| {
        progress.set(now.segments_done, now.segments_total);
        if now.segments_done == now.segments_total {
            progress.clear();
        }
        !interrupt::is_asked()
    });
    Ok(builder.open()?)
}

/// Notes on stderr what opening the store found amiss.
fn tell_of_losses(db: &Db) {
    let report = db.open_report();
    tell_of_files(report);
    report.losses().for_each(tell_of_loss);
}

fn tell_of_loss(loss: &Loss) {
    note!(
        "{} dropped from shard {}, segment {}, offset {}: {}",
        units::bytes(loss.bytes),
        loss.shard,
        loss.segment,
        loss.offset,
        loss.reason
    );
}

/// Notes on stderr which files were damaged without a loss.
fn tell_of_files(report: &OpenReport) {
    let shards = report.shards.iter();
    let files = shards.flat_map(|shard| shard.ignored.iter().chain(&shard.mended));
    for file in report.mended.iter().chain(files) {
        note!("{file}; nothing is lost, and opening the store for writing mends it");
    }
}
