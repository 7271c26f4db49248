//! One operation over and over, for `perf record` and for instruction counts
//! (`scripts/instructions`), which are those of functions named `measured`.

use std::hint::black_box;

use bench::workload::{Uniform, Values, absent_key, key};
use caskade::{Batch, Db, Durability, WriteOptions};
use caskade_codec::hash::SECRET_LEN;
use caskade_codec::meta::StoreMeta;
use caskade_codec::names;

use crate::Outcome;
use crate::args::Args;

pub(crate) fn run(args: &Args) -> Outcome<()> {
    let dir = tempfile::Builder::new().prefix("caskade-profile").tempdir_in(&args.dir)?;
    let store = dir.path().join("store");
    Db::open(&store)?.close()?;
    forget_chance(&store)?;
    // A store that ends without a snapshot is recovered as if its process had been killed.
    let db = Db::builder(&store).snapshot_on_close(false).open()?;
    let values = Values::new();
    for i in 0..args.keys {
        db.put(&key(i), values.get(i, 0))?;
    }
    crate::child::wait_for_rest(&db);
    let what = args.only.as_deref().unwrap_or("get_into");
    let begun;
    if what == "recover" || what == "open" {
        db.close()?;
        drop(db);
        // On this thread, so that all of it is counted.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build()?;
        begun = std::time::Instant::now();
        pool.install(|| match what {
            "open" => open_closed(&store, args),
            _ => measured_recovery(&store, args),
        })?;
    } else {
        begun = std::time::Instant::now();
        measured(&db, &values, what, args)?;
    }
    let each = bench::measure::nanos_each(begun.elapsed(), args.ops());
    println!("{what}: {each:.1} ns each");
    Ok(())
}

/// Gives an empty store a secret that is always the same: where its keys come to lie decides how many
/// buckets a lookup passes, so that absent keys cost 275 to 289 instructions as chance has it.
fn forget_chance(store: &std::path::Path) -> Outcome<()> {
    let file = store.join(names::STORE);
    let (found, _) = StoreMeta::decode(&std::fs::read(&file)?)?;
    let meta = StoreMeta { secret: [7; SECRET_LEN], ..found };
    std::fs::write(&file, meta.encode())?;
    Ok(())
}

#[inline(never)]
fn measured(db: &Db, values: &Values, what: &str, args: &Args) -> Outcome<()> {
    let (mut order, mut out) = (Uniform::new(9, args.keys), Vec::new());
    match what {
        "get_into" => {
            for _ in 0..args.ops() {
                black_box(db.get_into(&key(order.draw()), &mut out)?);
            }
        }
        "get" => {
            for _ in 0..args.ops() {
                black_box(db.get(&key(order.draw()))?);
            }
        }
        "absent" => {
            for _ in 0..args.ops() {
                black_box(db.get_into(&absent_key(order.draw()), &mut out)?);
            }
        }
        "get_many" => {
            for _ in 0..args.ops() / 64 {
                let keys: [_; 64] = std::array::from_fn(|_| key(order.draw()));
                black_box(db.get_many(&keys)?);
            }
        }
        "get_many_with" => {
            for _ in 0..args.ops() / 64 {
                let keys: [_; 64] = std::array::from_fn(|_| key(order.draw()));
                db.get_many_with(&keys, |_, value| {
                    out.clear();
                    out.extend_from_slice(value.unwrap_or_default());
                    black_box(&out);
                })?;
            }
        }
        "durable" => {
            let options = WriteOptions::new().durability(Durability::Sync);
            for version in 0..args.ops() {
                let i = order.draw();
                db.put_with(&key(i), values.get(i, version), options)?;
            }
        }
        "load" => {
            for i in args.keys..args.keys + args.ops() {
                db.put(&key(i), values.get(i, 0))?;
            }
        }
        "put" => {
            for version in 0..args.ops() {
                let i = order.draw();
                db.put(&key(i), values.get(i, version))?;
            }
        }
        "batch" => {
            let mut batch = Batch::new();
            for version in 0..args.ops() / 100 {
                batch.clear();
                for _ in 0..100 {
                    let i = order.draw();
                    batch.put(&key(i), values.get(i, version));
                }
                db.write(&batch)?;
            }
        }
        _ => return Err(format!("cannot profile {what:?}").into()),
    }
    Ok(())
}

/// Opens the store as often as it takes to find so many keys.
#[inline(never)]
fn measured_recovery(store: &std::path::Path, args: &Args) -> Outcome<()> {
    for _ in 0..args.ops() / args.keys {
        let db = Db::builder(store).snapshot_on_close(false).open().map_err(|e| e.to_string())?;
        if db.len() != args.keys {
            return Err("keys are missing".into());
        }
        drop(db);
    }
    Ok(())
}

/// Opens the store as often, after a close each time.
fn open_closed(store: &std::path::Path, args: &Args) -> Outcome<()> {
    Db::open(store).map_err(|e| e.to_string())?.close()?;
    for _ in 0..args.ops() / args.keys {
        let db = measured_open(store, &key(args.keys / 2))?;
        if db.len() != args.keys {
            return Err("keys are missing".into());
        }
        db.close()?;
    }
    Ok(())
}

/// An open and the first get.
#[inline(never)]
fn measured_open(store: &std::path::Path, key: &[u8]) -> Outcome<Db> {
    let db = Db::open(store).map_err(|e| e.to_string())?;
    if db.get(key)?.is_none() {
        return Err("a key is missing".into());
    }
    Ok(db)
}
