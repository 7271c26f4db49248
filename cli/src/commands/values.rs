//! `get`, `put`, `del`.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};

use caskade::{Db, WriteOptions};
use serde_json::json;

use super::dump::set_bytes;
use super::{open, open_to_read, open_to_write};
use crate::args::{DelArgs, GetArgs, PutArgs};
use crate::escape::{Form, escape};
use crate::fault::{Fault, Outcome};
use crate::interrupt;

/// Prints the value of a key.
pub(crate) fn get(args: &GetArgs) -> Outcome {
    if let (true, Some(form)) = (args.json, args.output) {
        form.for_json()?;
    }
    let key = args.input.parse(&args.key)?;
    let db = open_to_read(&args.store)?;
    let Some(value) = db.get(&key)? else {
        note!("there is no key '{}'", escape(&key));
        return Err(Fault::KeyMissing);
    };
    let mut out = io::stdout().lock();
    let form = args.output.unwrap_or(if out.is_terminal() || args.json {
        Form::Escaped
    } else {
        Form::Raw
    });
    if args.json {
        let mut entry = json!({
            "version": value.version().to_string(),
            "expires_at_unix_ms": value.expires_at_unix_ms(),
        });
        set_bytes(&mut entry, "key", &key, form);
        set_bytes(&mut entry, "value", &value, form);
        writeln!(out, "{entry}")?;
    } else {
        out.write_all(&form.show(&value))?;
        if form != Form::Raw {
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Stores a value.
pub(crate) fn put(args: &PutArgs) -> Outcome {
    let key = args.input.parse(&args.key)?;
    let value = value_of(args)?;
    interrupt::check()?;
    let mut builder = Db::builder(&args.store).create(args.create);
    if let Some(shards) = args.shards {
        builder = builder.shards(shards);
    }
    let db = open(builder)?;
    let options = args.ttl.map_or_else(WriteOptions::new, |ttl| WriteOptions::new().ttl(ttl));
    let is_stored = if args.if_absent {
        db.put_if_absent_with(&key, &value, options)?.is_some()
    } else {
        db.put_with(&key, &value, options)?;
        true
    };
    // Closing makes it durable.
    db.close()?;
    if is_stored {
        return Ok(());
    }
    note!("the key '{}' is there; it was left as it was", escape(&key));
    Err(Fault::KeyMissing)
}

fn value_of(args: &PutArgs) -> Outcome<Vec<u8>> {
    if let Some(value) = &args.value {
        return args.input.parse(value);
    }
    if let Some(path) = &args.file {
        return fs::read(path).map_err(|source| Fault::system("read", path, source));
    }
    if io::stdin().is_terminal() {
        note!("type the value; Ctrl-D ends it");
    }
    let mut value = Vec::new();
    interrupt::Stdin.read_to_end(&mut value).map_err(|source| Fault::System {
        action: "read the value from stdin".to_owned(),
        source,
    })?;
    Ok(value)
}

/// Deletes keys.
pub(crate) fn del(args: &DelArgs) -> Outcome {
    let keys = args.keys.iter().map(|key| args.input.parse(key)).collect::<Outcome<Vec<_>>>()?;
    let db = open_to_write(&args.store)?;
    let mut is_one_missing = false;
    for key in &keys {
        if !db.delete(key)? {
            note!("there is no key '{}'", escape(key));
            is_one_missing = true;
        }
    }
    db.close()?;
    if is_one_missing { Err(Fault::KeyMissing) } else { Ok(()) }
}
