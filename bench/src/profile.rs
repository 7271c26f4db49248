//! One operation over and over, for `perf record` and for instruction counts:
//! `valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*measured*' bench profile ...`

use std::hint::black_box;

use bench::workload::{Uniform, Values, absent_key, key};
use caskade::{Db, Durability, WriteOptions};

use crate::Outcome;
use crate::args::Args;

pub(crate) fn run(args: &Args) -> Outcome<()> {
    let dir = tempfile::Builder::new().prefix("caskade-profile").tempdir_in(&args.dir)?;
    let db = Db::open(dir.path().join("store"))?;
    let values = Values::new();
    for i in 0..args.keys {
        db.put(&key(i), values.get(i, 0))?;
    }
    crate::child::wait_for_rest(&db);
    let begun = std::time::Instant::now();
    let what = args.only.as_deref().unwrap_or("get_into");
    measured(&db, &values, what, args)?;
    let each = bench::measure::nanos_each(begun.elapsed(), args.ops);
    println!("{what}: {each:.1} ns each");
    Ok(())
}

#[inline(never)]
fn measured(db: &Db, values: &Values, what: &str, args: &Args) -> Outcome<()> {
    let (mut order, mut out) = (Uniform::new(9, args.keys), Vec::new());
    match what {
        "get_into" => {
            for _ in 0..args.ops {
                black_box(db.get_into(&key(order.draw()), &mut out)?);
            }
        }
        "get" => {
            for _ in 0..args.ops {
                black_box(db.get(&key(order.draw()))?);
            }
        }
        "absent" => {
            for _ in 0..args.ops {
                black_box(db.get_into(&absent_key(order.draw()), &mut out)?);
            }
        }
        "get_many" => {
            for _ in 0..args.ops / 64 {
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
            for version in 0..args.ops {
                let i = order.draw();
                db.put_with(&key(i), values.get(i, version), options)?;
            }
        }
        "load" => {
            for i in args.keys..args.keys + args.ops {
                db.put(&key(i), values.get(i, 0))?;
            }
        }
        "put" => {
            for version in 0..args.ops {
                let i = order.draw();
                db.put(&key(i), values.get(i, version))?;
            }
        }
        _ => return Err(format!("cannot profile {what:?}").into()),
    }
    Ok(())
}
