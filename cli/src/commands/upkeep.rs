//! `verify`, `compact`, `backup`.

use std::io::{self, Write};
use std::path::Path;

use caskade::{Damage, Db, VerifyReport};
use serde_json::json;

use super::{beside, open_to_read, open_to_write};
use crate::args::{BackupArgs, CompactArgs, VerifyArgs};
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::Progress;
use crate::units;

/// Reads everything, and lists what is damaged.
pub(crate) fn verify(args: &VerifyArgs) -> Outcome {
    let db = open_to_read(&args.store)?;
    let report = check_every_record(&db)?;
    let mut out = io::stdout().lock();
    if args.json {
        let value = serde_json::to_value(&report).map_err(io::Error::from)?;
        writeln!(out, "{value:#}")?;
    } else {
        list(&mut out, &report.damage)?;
        writeln!(
            out,
            "{} in {}, {}: {}",
            units::number_of(report.records, "record"),
            units::number_of(report.segments, "segment"),
            units::bytes(report.bytes),
            if report.is_clean() { "all are as they were written" } else { "see above" },
        )?;
    }
    if report.is_clean() {
        return Ok(());
    }
    let places = places_are(report.damage.len());
    Err(Fault::Damaged(format!(
        "{places} damaged in {}; the keys there are lost, unless a backup has them",
        args.store.display()
    )))
}

/// `1 place is`, `2 places are`.
pub(super) fn places_are(n: usize) -> String {
    if n == 1 { "1 place is".to_owned() } else { format!("{n} places are") }
}

/// A line for each damaged place.
pub(super) fn list(out: &mut impl Write, damage: &[Damage]) -> io::Result<()> {
    damage.iter().try_for_each(|Damage { shard, segment, offset, reason, .. }| {
        writeln!(out, "shard {shard} segment {segment} offset {offset}: {reason}")
    })
}

/// Reads everything, with a progress bar.
pub(super) fn check_every_record(db: &Db) -> Outcome<VerifyReport> {
    let progress = Progress::of_bytes("verifying");
    let report = db.verify(|now| {
        progress.set(now.bytes_done, now.bytes_total);
        !interrupt::is_asked()
    });
    Ok(report?)
}

/// Merges everything.
pub(crate) fn compact(args: &CompactArgs) -> Outcome {
    let db = open_to_write(&args.store)?;
    let before = db.stats().total;
    let progress = Progress::of_bytes("compacting");
    let report = db.compact_with(|now| {
        progress.set(now.bytes_done, now.bytes_total);
        !interrupt::is_asked()
    });
    drop(progress);
    let report = report?;
    let after = db.stats().total;
    db.close()?;
    let mut out = io::stdout().lock();
    if args.json {
        let report = serde_json::to_value(report).map_err(io::Error::from)?;
        let value = json!({
            "report": report,
            "total_bytes_before": before.total_bytes,
            "total_bytes_after": after.total_bytes,
        });
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{} became {}: {} segments went, {} came, {} copied",
        units::bytes(before.total_bytes),
        units::bytes(after.total_bytes),
        report.segments_removed,
        report.segments_written,
        units::bytes(report.bytes_copied),
    )?;
    Ok(())
}

/// Copies the store.
pub(crate) fn backup(args: &BackupArgs) -> Outcome {
    beside::refuse_inside(&args.store, &args.target)?;
    let db = open_to_write(&args.store)?;
    let progress = Progress::new("linking: shards");
    let report = db.checkpoint_with(&args.target, |now| {
        progress.set(now.shards_done, now.shards_total);
        !interrupt::is_asked()
    });
    drop(progress);
    let report = report.map_err(|error| explain(error, &args.target))?;
    db.close()?;
    let mut out = io::stdout().lock();
    if args.json {
        let value = serde_json::to_value(report).map_err(io::Error::from)?;
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{} in {}: {} segments new, {} were there",
        units::bytes(report.bytes),
        args.target.display(),
        report.segments_linked,
        report.segments_kept,
    )?;
    Ok(())
}

/// Hard links cannot lead to another file system, and the system's message does not say so.
fn explain(error: caskade::Error, target: &Path) -> Fault {
    match &error {
        caskade::Error::Io { source, .. } if source.kind() == io::ErrorKind::CrossesDevices => {
            Fault::Usage(format!(
                "{} lies on another file system than the store, and a backup is made of hard links; \
                 make it beside the store, then `caskade restore BACKUP {}` copies it there",
                target.display(),
                target.display()
            ))
        }
        caskade::Error::Io { path, source, .. }
            if source.kind() == io::ErrorKind::NotADirectory && path == target =>
        {
            Fault::Usage(format!("{} is a file; a backup is a folder", target.display()))
        }
        // Here the path is right, and what is there is in the way.
        caskade::Error::NotAStore { path, reason } if path == target => {
            Fault::Usage(format!("{}: {reason}", path.display()))
        }
        _ => error.into(),
    }
}
