//! Counting events from many threads: `fetch_add` is one step, so no count is lost.
//!
//! `cargo run --release -p caskade --example counters`

use std::time::{Duration, Instant};

use caskade::{Db, Durability, Result};

const THREADS: u64 = 4;
const EVENTS: u64 = 200_000;
const PAGES: u64 = 1_000;

fn key(page: u64) -> String {
    format!("views:/page/{page}")
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    // A power cut may cost the last half second of counts; a killed process costs none.
    let db = Db::builder(folder.path().join("counters"))
        .durability(Durability::Interval(Duration::from_millis(500)))
        .open()?;

    let begun = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let db = &db;
                scope.spawn(move || {
                    (0..EVENTS / THREADS).try_for_each(|event| {
                        // Some pages are read much more than others.
                        let page = (event * 7_919 + thread).pow(2) % PAGES;
                        db.fetch_add(key(page).as_bytes(), 1).map(drop)
                    })
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    println!("{EVENTS} events counted by {THREADS} threads in {:.0?}", begun.elapsed());

    let mut total = 0;
    let mut counts = Vec::new();
    for entry in db.iter()? {
        let entry = entry?;
        let count =
            i64::from_le_bytes((*entry.value).try_into().expect("a counter has eight bytes"));
        total += count;
        counts.push((count, String::from_utf8_lossy(&entry.key).into_owned()));
    }
    assert_eq!(total.unsigned_abs(), EVENTS, "no event is lost");

    counts.sort_unstable_by(|a, b| b.cmp(a));
    for (count, key) in counts.iter().take(3) {
        println!("{count:>8} {key}");
    }
    db.close()
}
