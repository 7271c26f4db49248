//! `export`: everything in a store, for other programs.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::{dump, open_to_read, scan};
use crate::args::{DumpFormat, ExportArgs};
use crate::escape::Form;
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::Progress;

/// Records between two looks at Ctrl-C.
const STRIDE: u64 = 1024;
/// LMDB's longest key, unless it was built with another limit. It has no empty ones.
const LMDB_KEY_MAX: usize = 511;

/// Writes all keys and values.
pub(crate) fn export(args: &ExportArgs) -> Outcome {
    export_all(args).map_err(|fault| match (fault, &args.file) {
        // What fails to be written without a name was meant for stdout.
        (Fault::Stdout(source), Some(path)) => Fault::system("write", path, source),
        (fault, _) => fault,
    })
}

fn export_all(args: &ExportArgs) -> Outcome {
    if args.output == Form::Raw {
        return Err(Fault::Usage("a dump holds text only: use --out escaped or hex".to_owned()));
    }
    let prefix = scan::prefix(args.input, args.prefix.as_deref())?;
    let db = open_to_read(&args.store)?;
    let mut out: Box<dyn Write> = match &args.file {
        Some(path) => {
            let file =
                File::create(path).map_err(|source| Fault::system("create", path, source))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    let is_lmdb = args.format == DumpFormat::Lmdb;
    if is_lmdb {
        dump::write_lmdb_head(&mut out, db.len(), db.stats().total.live_bytes)?;
    }
    let entries = db.iter()?;
    let total = entries.keys_total();
    let progress = Progress::new("exporting: keys");
    let (mut expiring, mut refused) = (0_u64, 0_u64);
    for (done, entry) in (0..).zip(entries) {
        if done % STRIDE == 0 {
            interrupt::check()?;
            progress.set(done, total);
        }
        let entry = entry?;
        if !entry.key.starts_with(&prefix) {
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
        eprintln!("caskade: the format has no expiry; {expiring} keys lose theirs");
    }
    if refused > 0 {
        eprintln!(
            "caskade: {refused} keys are empty or longer than {LMDB_KEY_MAX} bytes; LMDB refuses them"
        );
    }
    Ok(())
}
