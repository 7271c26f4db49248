//! The demo's child: writes and deletes as fast as it can, and says which operations were
//! acknowledged, until it is killed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use caskade::Db;

use crate::args::DemoWriterArgs;
use crate::fault::{Fault, Outcome};
use crate::load::data::{self, KEY_LEN};

/// Threads of the child.
pub(crate) const THREADS: u64 = 2;
/// Keys of each thread; operation `n` is about key `n % KEYS`.
pub(crate) const KEYS: u64 = 20_000;
/// Every so many operations, one deletes. No divisor of `KEYS`, so that each key has its turn.
const DELETE_EVERY: u64 = 7;
/// The bits of an acknowledgement that count operations; the thread stands above.
const COUNT_BITS: u32 = 48;

/// What operation `n` of a thread leaves under its key.
pub(crate) fn left_by(thread: u64, n: u64) -> Option<[u8; data::VALUE_LEN]> {
    (n > 0 && !n.is_multiple_of(DELETE_EVERY)).then(|| data::value(thread, n))
}

/// A key of a thread.
pub(crate) fn key(thread: u64, slot: u64) -> [u8; KEY_LEN] {
    data::key(*b"crash::", thread * KEYS + slot)
}

/// Thread and operation, as they go through the pipe: written at once or not at all.
fn acknowledgement(thread: u64, n: u64) -> [u8; 8] {
    (thread << COUNT_BITS | n).to_le_bytes()
}

/// Back from [`acknowledgement`].
pub(crate) fn parse_acknowledgement(bytes: [u8; 8]) -> (u64, u64) {
    let raw = u64::from_le_bytes(bytes);
    (raw >> COUNT_BITS, raw & ((1 << COUNT_BITS) - 1))
}

/// Writes until it is killed, or until nobody listens.
pub(crate) fn run(args: &DemoWriterArgs) -> Outcome {
    let db = Db::builder(&args.store).create(false).open()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let db = &db;
                scope.spawn(move || write(db, thread))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a writer does not panic"))
    })
}

fn write(db: &Db, thread: u64) -> Outcome {
    // Not through a buffer: an acknowledgement must be out before the next write begins.
    let mut pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    for n in 1.. {
        let key = key(thread, n % KEYS);
        match left_by(thread, n) {
            Some(value) => drop(db.put(&key, &value)?),
            None => drop(db.delete(&key)?),
        }
        pipe.write_all(&acknowledgement(thread, n)).map_err(Fault::from)?;
    }
    Ok(())
}
