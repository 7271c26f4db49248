//! `export`: everything in a store, for other programs.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};

use caskade::Db;

use super::damaged::Damaged;
use super::{beside, dump, scan};
use crate::args::{DumpFormat, ExportArgs};
use crate::escape::Form;
use crate::fault::{Fault, Outcome};
use crate::term::Progress;

/// LMDB's longest key, unless it was built with another limit. It has no empty ones.
const LMDB_KEY_MAX: usize = 511;

/// Writes all keys and values.
pub(crate) fn export(args: &ExportArgs) -> Outcome {
    if args.output == Form::Raw {
        return Err(Fault::Usage("a dump holds text only: use --out escaped or hex".to_owned()));
    }
    let prefix = scan::prefix(args.input, args.prefix.as_deref())?;
    let (db, mut damaged) = Damaged::open(&args.store, args.skip_damaged)?;
    let mut write = |out: &mut dyn Write| write_all(args, &db, &mut damaged, &prefix, out);
    let Some(path) = &args.file else {
        write(&mut io::stdout().lock())?;
        return damaged.finish();
    };
    let is_device = path.metadata().is_ok_and(|meta| !meta.is_file());
    // Half a dump could be taken for a whole one: the file gets its name at the end.
    let partial = if is_device { path.clone() } else { beside::sibling(path, ".partial") };
    let mut file =
        File::create(&partial).map_err(|source| Fault::system("create", &partial, source))?;
    let written = write(&mut file).map_err(|fault| match fault {
        // What is written without saying where goes to stdout as a rule.
        Fault::Stdout(source) => Fault::system("write", &partial, source),
        fault => fault,
    });
    if is_device {
        return written.and_then(|()| damaged.finish());
    }
    let named = written.and_then(|()| {
        file.sync_all().map_err(|source| Fault::system("sync", &partial, source))?;
        fs::rename(&partial, path).map_err(|source| Fault::system("rename to", path, source))?;
        beside::sync_parent(path)
    });
    if named.is_err() {
        let _ = fs::remove_file(&partial);
    }
    named.and_then(|()| damaged.finish())
}

/// How long all keys and values are together. Where values are compressed that is more than what they
/// take in the store.
fn logical_bytes(db: &Db, prefix: &[u8]) -> Outcome<u64> {
    let entries = db.iter()?;
    let total = entries.keys_total();
    let progress = Progress::new("measuring: keys");
    let mut bytes = 0;
    for (done, entry) in (0..).zip(entries) {
        progress.step(done, total)?;
        // What is damaged is heard of when it is to be written.
        if let Ok(entry) = entry
            && entry.key.starts_with(prefix)
        {
            bytes += (entry.key.len() + entry.value.len()) as u64;
        }
    }
    Ok(bytes)
}

fn write_all(
    args: &ExportArgs,
    db: &Db,
    damaged: &mut Damaged,
    prefix: &[u8],
    out: &mut dyn Write,
) -> Outcome {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let is_lmdb = args.format == DumpFormat::Lmdb;
    if is_lmdb {
        dump::write_lmdb_head(&mut out, db.len(), logical_bytes(db, prefix)?)?;
    }
    let entries = db.iter()?;
    let total = entries.keys_total();
    let progress = Progress::new("exporting: keys");
    let (mut expiring, mut refused) = (0_u64, 0_u64);
    for (done, entry) in (0..).zip(entries) {
        progress.step(done, total)?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                damaged.pass(error)?;
                continue;
            }
        };
        if !entry.key.starts_with(prefix) {
            continue;
        }
        if is_lmdb {
            expiring += u64::from(entry.value.expires_at_unix_ms().is_some());
            refused += u64::from(entry.key.is_empty() || entry.key.len() > LMDB_KEY_MAX);
            dump::write_lmdb(&mut out, &entry)?;
        } else {
            dump::write_json(&mut out, &entry, args.output)?;
        }
    }
    if is_lmdb {
        dump::write_lmdb_end(&mut out)?;
    }
    out.flush()?;
    drop(progress);
    if expiring > 0 {
        note!("the format has no expiry; {expiring} keys lose theirs");
    }
    if refused > 0 {
        note!("{refused} keys are empty or longer than {LMDB_KEY_MAX} bytes; LMDB refuses them");
    }
    Ok(())
}
