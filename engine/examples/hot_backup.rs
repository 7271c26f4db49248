//! Backups while writers go on: each one is consistent, and costs only what changed since.
//!
//! `cargo run --release -p caskade --example hot_backup`

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caskade::{Batch, Db, Result};

/// Money moves between accounts all the time, and there is always as much of it.
const ACCOUNTS: u64 = 100;
const MONEY: i64 = 1_000;

fn account(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn balance(db: &Db, number: u64) -> Result<i64> {
    let value = db.get(&account(number))?.expect("every account exists");
    Ok(i64::from_le_bytes((*value).try_into().expect("a balance has eight bytes")))
}

/// Moves money until it is told to stop. One thread writes, so that it may read before it writes.
fn trade(db: &Db, stop: &AtomicBool) -> Result<u64> {
    let mut batch = Batch::new();
    let mut trades = 0;
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (trades * 31 % ACCOUNTS, (trades * 17 + 1) % ACCOUNTS);
        trades += 1;
        if from == to {
            continue;
        }
        let (less, more) = (balance(db, from)? - 1, balance(db, to)? + 1);
        batch.clear();
        batch.put(&account(from), &less.to_le_bytes()).put(&account(to), &more.to_le_bytes());
        db.write(&batch)?;
    }
    Ok(trades)
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let db = Db::open(folder.path().join("bank"))?;
    let mut batch = Batch::new();
    for number in 0..ACCOUNTS {
        batch.put(&account(number), &MONEY.to_le_bytes());
    }
    db.write(&batch)?;

    let backup = folder.path().join("backup");
    let stop = AtomicBool::new(false);
    let trades = std::thread::scope(|scope| {
        let trader = scope.spawn(|| trade(&db, &stop));
        for round in 1..=3 {
            std::thread::sleep(Duration::from_millis(100));
            // The same folder again: what did not change is kept.
            let report = db.checkpoint(&backup)?;
            println!(
                "backup {round}: {} segments new, {} kept, {} KiB",
                report.segments_linked,
                report.segments_kept,
                report.bytes >> 10
            );
            check(&backup)?;
        }
        stop.store(true, Ordering::Relaxed);
        trader.join().expect("the trader does not panic")
    })?;
    println!("{trades} trades went on meanwhile");
    db.close()
}

/// A backup is a store. Opened read-only it stays one that the next backup may add to.
fn check(backup: &std::path::Path) -> Result<()> {
    let db = Db::builder(backup).read_only(true).open()?;
    let total = (0..ACCOUNTS).map(|number| balance(&db, number)).sum::<Result<i64>>()?;
    assert_eq!(total, MONEY * ACCOUNTS.cast_signed(), "no trade is in the backup by half");
    db.close()
}
