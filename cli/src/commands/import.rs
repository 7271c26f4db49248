//! `import`: puts a dump into a store.

use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal, Read, Write};

use caskade::{Db, WriteOptions};
use serde_json::json;

use super::dump::Reader;
use super::open;
use crate::args::ImportArgs;
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::{Progress, STRIDE};
use crate::units;

/// How many pairs went where.
#[derive(Debug, Default)]
struct Counts {
    stored: u64,
    left: u64,
}

/// Stores what a dump holds.
pub(crate) fn import(args: &ImportArgs) -> Outcome {
    let (input, total): (Box<dyn Read>, u64) = if let Some(path) = &args.file {
        let file = File::open(path).map_err(|source| Fault::system("open", path, source))?;
        let meta = file.metadata().ok().filter(fs::Metadata::is_file);
        (Box::new(file), meta.map_or(0, |meta| meta.len()))
    } else {
        if io::stdin().is_terminal() {
            note!("reading a dump from the terminal; Ctrl-D ends it");
        }
        (Box::new(interrupt::Stdin), 0)
    };
    // Before the store is made: what is no dump makes none.
    let name = args.file.as_ref().map_or("stdin".to_owned(), |path| path.display().to_string());
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, input), name)?;
    let mut builder = Db::builder(&args.store).create(args.create);
    if let Some(shards) = args.shards {
        builder = builder.shards(shards);
    }
    let db = open(builder)?;
    let mut counts = Counts::default();
    let outcome = put_all(args, &db, &mut reader, total, &mut counts);
    // Also after a failure: what is stored is made durable, and counted.
    let closed = db.close();
    if outcome.is_err() && counts.stored > 0 {
        note!("{} stored, then:", units::number_of(counts.stored, "key"));
    }
    outcome?;
    closed?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({ "stored": counts.stored, "left_as_they_were": counts.left }))?;
    } else {
        let left = match counts.left {
            0 => String::new(),
            n => format!("; of {} the value was left as it was", units::number_of(n, "key")),
        };
        writeln!(out, "{} stored{left}", units::number_of(counts.stored, "key"))?;
    }
    Ok(())
}

fn put_all(
    args: &ImportArgs,
    db: &Db,
    reader: &mut Reader<impl io::BufRead>,
    total: u64,
    counts: &mut Counts,
) -> Outcome {
    let progress = Progress::of_bytes("importing");
    while let Some(pair) = reader.next_pair()? {
        if (counts.stored + counts.left).is_multiple_of(STRIDE) {
            interrupt::check()?;
            progress.set(reader.bytes(), total);
        }
        let options = match pair.expires_at_unix_ms {
            Some(at) => WriteOptions::new().expires_at_unix_ms(at),
            None => WriteOptions::new(),
        };
        let is_stored = if args.no_overwrite {
            db.put_if_absent_with(&pair.key, &pair.value, options)?.is_some()
        } else {
            db.put_with(&pair.key, &pair.value, options)?;
            true
        };
        if is_stored {
            counts.stored += 1;
        } else {
            counts.left += 1;
        }
    }
    Ok(())
}
