//! `scan` and `count`.

use std::io::{self, BufWriter, IsTerminal, Write};

use caskade::{Entry, ScanCursor};
use serde_json::json;

use super::damaged::Damaged;
use super::dump::{set_bytes, write_json};
use crate::args::{CountArgs, ScanArgs};
use crate::escape::Form;
use crate::fault::Outcome;
use crate::interrupt;
use crate::term::Progress;

/// Records read at a time.
const PAGE: u64 = 1024;

/// Prints keys and values.
pub(crate) fn scan(args: &ScanArgs) -> Outcome {
    if args.json {
        args.output.for_json()?;
    }
    let prefix = prefix(args.input, args.prefix.as_deref())?;
    let (db, mut damaged) = Damaged::open(&args.store, args.skip_damaged)?;
    let mut out = BufWriter::new(io::stdout().lock());
    // Where the keys themselves run over the terminal, a bar would only be in the way.
    let progress = (!io::stdout().is_terminal()).then(|| Progress::new("scanning: keys"));
    let total = if args.cursor.is_some() { 0 } else { db.len() };
    let mut seen = 0;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut cursor = Some(args.cursor.unwrap_or_else(ScanCursor::start));
    while let Some(at) = cursor
        && left > 0
    {
        interrupt::check()?;
        // No more than is asked for, since a page cannot be left in its middle.
        let (count, mut passed) = (left.min(PAGE) as usize, Vec::new());
        let page = db.scan_past_damage(at, count, |error| passed.push(error))?;
        passed.into_iter().try_for_each(|error| damaged.pass(error))?;
        for entry in page.entries.iter().filter(|entry| entry.key.starts_with(&prefix)) {
            print(&mut out, args, entry)?;
            left = left.saturating_sub(1);
        }
        cursor = page.next;
        seen += page.entries.len() as u64;
        if let Some(progress) = &progress {
            progress.set(seen, total);
        }
    }
    drop(progress);
    if let Some(next) = cursor {
        if args.json {
            writeln!(out, "{}", json!({ "next_cursor": next.to_string() }))?;
        }
        out.flush()?;
        note!("there may be more; go on with --cursor {next}");
    }
    out.flush()?;
    damaged.finish()
}

fn print(out: &mut impl Write, args: &ScanArgs, entry: &Entry) -> Outcome {
    if args.json && !args.keys_only {
        return write_json(out, entry, args.output);
    }
    if args.json {
        let mut object = json!({});
        set_bytes(&mut object, "key", &entry.key, args.output);
        writeln!(out, "{object}")?;
        return Ok(());
    }
    out.write_all(&args.output.show(&entry.key))?;
    if !args.keys_only {
        out.write_all(b"\t")?;
        out.write_all(&args.output.show(&entry.value))?;
    }
    out.write_all(b"\n")?;
    Ok(())
}

/// The bytes that keys begin with; none if nothing was asked for.
pub(super) fn prefix(form: Form, prefix: Option<&std::ffi::OsStr>) -> Outcome<Vec<u8>> {
    prefix.map_or(Ok(Vec::new()), |prefix| form.parse(prefix))
}

/// Prints the number of keys.
pub(crate) fn count(args: &CountArgs) -> Outcome {
    let prefix = prefix(args.input, args.prefix.as_deref())?;
    let (db, mut damaged) = Damaged::open(&args.store, args.skip_damaged)?;
    let mut count = db.len();
    if args.exact || args.skip_damaged || !prefix.is_empty() {
        let keys = db.keys()?;
        let total = count;
        let progress = Progress::new("keys");
        count = 0;
        for (done, key) in (0..).zip(keys) {
            progress.step(done, total)?;
            match key {
                Ok(key) => count += u64::from(key.starts_with(&prefix)),
                Err(error) => damaged.pass(error)?,
            }
        }
    }
    writeln!(io::stdout(), "{count}")?;
    damaged.finish()
}
