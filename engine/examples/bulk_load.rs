//! Loading much at once: several threads, buffered writes, and one sync at the end.
//!
//! `cargo run --release -p caskade --example bulk_load -- [RECORDS]`

use std::time::Instant;

use caskade::{Db, Result};

fn main() -> Result<()> {
    let records: u64 =
        std::env::args().nth(1).map_or(500_000, |text| text.parse().expect("a number of records"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let db = Db::open(folder.path().join("loaded"))?;

    let begun = Instant::now();
    // Each thread takes its own records: they go to all shards, and writers of different shards do
    // not wait for one another. Batches are for writes that belong together; they load no faster.
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let db = &db;
                scope.spawn(move || {
                    let mut value = [0; 100];
                    for record in (thread..records).step_by(threads as usize) {
                        value[..8].copy_from_slice(&record.to_le_bytes());
                        db.put(format!("record:{record:012}").as_bytes(), &value)?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let loaded = begun.elapsed();
    // If the machine goes down before this returns, load again: puts may be repeated.
    db.sync()?;
    println!(
        "{records} records by {threads} threads in {loaded:.0?}; durable after {:.0?}",
        begun.elapsed()
    );

    assert_eq!(db.len(), records);
    let stats = db.stats().total;
    println!(
        "{} segments, {} MiB",
        stats.segments_sealed + stats.segments_open,
        stats.total_bytes >> 20
    );
    db.close()
}
