//! Every storage call of some thirty scripts fails, once and for good, with several errors.
//!
//! Whatever fails: no panic, no hang, and no lie. While the store is open, a key reads as one of the
//! values that its last writes may have left. Once the disk is well again the store opens, and every
//! acknowledged write is there.
//!
//! The errors are `EIO`, `ENOSPC` and `EMFILE`; a failing write leaves any prefix. `EINTR` and short
//! counts end below the `Storage` boundary: `faults::interrupts` and `storage::real` try those.
//!
//! Where a script makes more than [`CALLS_MAX`] calls, an even share of them is tried, so that the
//! whole stays quick; `CASKADE_ALL_CALLS=1` tries all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use caskade::{Batch, Builder, Db, Durability, Error, Result, WriteOptions};
use caskade_shard::storage::sim::{Repeat, SimDisk};

use crate::rig::{HOME, strip_indexes, tiny};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EMFILE: i32 = 24;
/// Calls of one script that are made to fail, unless all are asked for.
const CALLS_MAX: u64 = 24;

/// What a key may hold, after writes of which some failed.
type Possible = BTreeMap<Vec<u8>, BTreeSet<Option<Vec<u8>>>>;

/// One run of a script.
struct Run {
    disk: SimDisk,
    builder: Builder,
    db: Option<Db>,
    possible: Possible,
    /// Errors that the script met.
    errors: Vec<Error>,
    /// Errors of background work.
    unheard: Arc<AtomicU32>,
}

impl Run {
    fn start(builder: Builder) -> Self {
        let disk = SimDisk::new(3);
        disk.set_map_reserve(64 << 10);
        let unheard = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&unheard);
        let builder = builder.on_background_error(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        Self { disk, builder, db: None, possible: Possible::new(), errors: Vec::new(), unheard }
    }

    fn open(&mut self) {
        let options = self.builder.clone().storage(self.disk.storage());
        self.db = self.hear(options.open());
    }

    /// Takes note of an error.
    fn hear<T>(&mut self, outcome: Result<T>) -> Option<T> {
        outcome.map_err(|error| self.errors.push(error)).ok()
    }

    /// A write of some keys, all or none of them: what each holds afterwards.
    fn write(&mut self, after: &[(&[u8], Option<&[u8]>)], write: impl FnOnce(&Db) -> Result<()>) {
        let Some(db) = self.db.clone() else { return };
        let outcome = write(&db);
        let is_certain = outcome.is_ok();
        // A full disk, a closed or poisoned store: nothing was written.
        let is_refused = matches!(
            outcome,
            Err(Error::NoSpace { .. } | Error::Poisoned { .. } | Error::Closed | Error::Io { .. })
        );
        self.hear(outcome);
        for (key, value) in after {
            let value = value.map(<[u8]>::to_vec);
            let values = self.possible.entry(key.to_vec()).or_insert_with(|| [None].into());
            if is_certain {
                *values = [value].into();
            } else if !is_refused {
                values.insert(value);
            }
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.write(&[(key, Some(value))], |db| db.put(key, value).map(drop));
    }

    fn put_durably(&mut self, key: &[u8], value: &[u8]) {
        let options = WriteOptions::new().durability(Durability::Sync);
        self.write(&[(key, Some(value))], |db| db.put_with(key, value, options).map(drop));
    }

    fn delete(&mut self, key: &[u8]) {
        self.write(&[(key, None)], |db| db.delete(key).map(drop));
    }

    fn batch(&mut self, keys: std::ops::Range<u8>, value: &[u8], durability: Durability) {
        let names: Vec<[u8; 1]> = keys.map(|key| [key]).collect();
        let mut batch = Batch::new();
        for name in &names {
            batch.put(name, value);
        }
        let after: Vec<_> = names.iter().map(|name| (&name[..], Some(value))).collect();
        let options = WriteOptions::new().durability(durability);
        self.write(&after, |db| db.write_with(&batch, options).map(drop));
    }

    fn with(&mut self, action: impl FnOnce(&Db) -> Result<()>) {
        if let Some(db) = self.db.clone() {
            let outcome = action(&db);
            self.hear(outcome);
        }
    }

    fn compact(&mut self) {
        self.with(|db| db.compact().map(drop));
    }

    fn background(&mut self) {
        self.with(|db| {
            // Bounded: work that keeps failing is asked for again and again.
            for _ in 0..200 {
                if !db.run_background() {
                    break;
                }
            }
            Ok(())
        });
    }

    fn close(&mut self) {
        if let Some(db) = self.db.take() {
            let outcome = db.close();
            self.hear(outcome);
        }
    }

    fn restart(&mut self) {
        self.disk.kill();
        self.db = None;
        self.open();
    }

    /// A key reads as something that it may hold.
    fn look(&self, when: &dyn Fn() -> String) {
        let Some(db) = &self.db else { return };
        for (key, values) in &self.possible {
            let found = db.get(key).unwrap_or_else(|error| panic!("{}: {error}", when()));
            let found = found.map(Vec::from);
            assert!(
                values.contains(&found),
                "{}: {} is {:?} instead of {:?}",
                when(),
                key.escape_ascii(),
                found.as_ref().map(|value| (value.len(), value.first())),
                values.iter().map(|v| v.as_ref().map(|v| (v.len(), v.first()))).collect::<Vec<_>>()
            );
        }
    }

    /// The disk is well again; the store opens and has what it must have.
    fn recover(&mut self, when: &dyn Fn() -> String) {
        self.disk.faults().clear();
        self.disk.kill();
        self.db = None;
        for strip in [false, true] {
            if strip {
                strip_indexes(&self.disk, HOME);
            }
            let options = self.builder.clone().storage(self.disk.storage());
            let db = options.open().unwrap_or_else(|error| panic!("{}: {error}", when()));
            self.db = Some(db);
            self.look(when);
            let db = self.db.take().expect("just opened");
            db.put(b"afterwards", b"works").unwrap_or_else(|error| panic!("{}: {error}", when()));
            db.close().unwrap_or_else(|error| panic!("{}: {error}", when()));
        }
    }
}

/// Runs `script` once for each call that fails. The first part prepares; only the calls of the
/// second part fail.
#[expect(clippy::needless_pass_by_value, reason = "each caller makes one for this call")]
fn try_all(builder: Builder, prepare: impl Fn(&mut Run), script: impl Fn(&mut Run)) {
    let rehearse = || {
        let mut run = Run::start(builder.clone());
        run.open();
        prepare(&mut run);
        assert!(run.errors.is_empty(), "{:?}", run.errors);
        run.disk.faults().clear();
        run
    };
    let calls = {
        let mut run = rehearse();
        script(&mut run);
        assert!(run.errors.is_empty(), "{:?}", run.errors);
        let calls = run.disk.faults().calls();
        run.look(&|| "unharmed".to_owned());
        run.recover(&|| "unharmed".to_owned());
        calls
    };
    assert!(calls > 0, "a script that makes no call proves nothing");
    let is_thorough = std::env::var_os("CASKADE_ALL_CALLS").is_some_and(|all| all == "1");
    let stride = if is_thorough { 1 } else { calls.div_ceil(CALLS_MAX) };
    let mut harmed = 0_u32;
    for (errno, offset) in [(EIO, 0), (ENOSPC, 1), (EMFILE, 2)] {
        for repeat in [Repeat::Once, Repeat::ForGood] {
            for call in (1 + offset % stride..=calls).step_by(stride as usize) {
                let when = || format!("call {call} of {calls}, {repeat:?}, errno {errno}");
                let mut run = rehearse();
                run.disk.faults().fail_call(call, repeat, errno);
                script(&mut run);
                run.look(&when);
                harmed += run.errors.len() as u32 + run.unheard.load(Ordering::Relaxed);
                run.recover(&when);
            }
        }
    }
    assert!(harmed > 0, "no failure was ever felt");
}

fn value(seed: u8, len: usize) -> Vec<u8> {
    vec![seed; len]
}

/// Some keys, spread over sealed segments.
fn some_keys(run: &mut Run) {
    for key in 0..8 {
        run.put(&[key], &value(key, 100));
    }
    run.background();
}

#[test]
fn creating() {
    // Creation itself is the script: nothing is prepared.
    let calls = {
        let disk = SimDisk::new(1);
        tiny(2).storage(disk.storage()).open().unwrap();
        disk.faults().calls()
    };
    for errno in [EIO, ENOSPC, EMFILE] {
        for repeat in [Repeat::Once, Repeat::ForGood] {
            for call in 1..=calls {
                let disk = SimDisk::new(1);
                disk.faults().fail_call(call, repeat, errno);
                let first = tiny(2).storage(disk.storage()).open();
                drop(first);
                disk.faults().clear();
                let db = tiny(2).storage(disk.storage()).open();
                let db = db.unwrap_or_else(|error| panic!("call {call}, errno {errno}: {error}"));
                db.put(b"k", b"v").unwrap();
                db.close().unwrap();
            }
        }
    }
}

#[test]
fn put_that_rotates() {
    try_all(tiny(1), some_keys, |run| {
        for key in 10..16 {
            run.put(&[key], &value(key, 300));
        }
    });
}

#[test]
fn overwrite_over_segments() {
    try_all(tiny(1), some_keys, |run| {
        for key in 0..8 {
            run.put(&[key], &value(key + 50, 200));
        }
    });
}

#[test]
fn delete_over_segments() {
    try_all(tiny(1), some_keys, |run| {
        for key in 0..8 {
            run.delete(&[key]);
        }
        run.background();
    });
}

#[test]
fn large_value() {
    try_all(tiny(1), some_keys, |run| run.put(b"large", &value(1, 200_000)));
}

#[test]
fn batch_in_one_shard() {
    try_all(tiny(1), some_keys, |run| {
        run.batch(0..6, &value(9, 150), Durability::Buffered);
        run.batch(4..12, &value(8, 150), Durability::Buffered);
    });
}

#[test]
fn batch_over_shards() {
    try_all(tiny(4), some_keys, |run| {
        run.batch(0..12, &value(9, 150), Durability::Buffered);
        run.batch(4..16, &value(8, 150), Durability::Buffered);
    });
}

#[test]
fn durable_batch_over_shards() {
    try_all(tiny(4), some_keys, |run| {
        run.batch(0..12, &value(9, 150), Durability::Sync);
        run.put(&[3], b"later");
        run.batch(4..16, &value(8, 20), Durability::Sync);
    });
}

#[test]
fn large_batch_over_shards() {
    try_all(tiny(2), some_keys, |run| {
        run.batch(0..40, &value(9, 1000), Durability::Buffered);
    });
}

#[test]
fn sync_put_through_the_journal() {
    try_all(tiny(2), some_keys, |run| {
        for key in 0..4 {
            run.put_durably(&[key], &value(key + 70, 40));
        }
    });
}

#[test]
fn sync_puts_that_turn_the_journal() {
    try_all(
        tiny(1),
        |run| run.put_durably(b"first", b"one"),
        |run| {
            for key in 0..12 {
                run.put_durably(&[key % 3], &value(key, 500));
            }
            run.background();
        },
    );
}

#[test]
fn sync_put_too_large_for_the_journal() {
    try_all(tiny(1), some_keys, |run| {
        run.put_durably(b"large", &value(1, 20_000));
        run.put(b"next", b"small");
    });
}

#[test]
fn sync_of_everything() {
    try_all(tiny(4), some_keys, |run| {
        run.with(Db::sync);
        run.put(b"k", b"v");
        run.with(Db::sync);
    });
}

#[test]
fn waiting_for_a_version() {
    try_all(tiny(2), some_keys, |run| {
        run.with(|db| {
            let version = db.put(b"unseen", b"v")?;
            db.wait_durable(version)
        });
    });
}

#[test]
fn sealing_in_the_background() {
    try_all(
        tiny(1),
        |run| {
            for key in 0..12 {
                run.put(&[key], &value(key, 300));
            }
        },
        |run| {
            run.background();
            run.put(b"k", b"v");
        },
    );
}

#[test]
fn merging_in_the_background() {
    try_all(
        tiny(1),
        |run| {
            for round in 0..8 {
                for key in 0..8 {
                    run.put(&[key], &value(key + round, 2000));
                }
            }
        },
        |run| {
            run.background();
            run.put(&[1], b"after");
            run.background();
        },
    );
}

#[test]
fn compacting() {
    try_all(
        tiny(2),
        |run| {
            some_keys(run);
            run.delete(&[1]);
            run.put(&[2], b"other");
        },
        |run| {
            run.compact();
            run.put(&[3], b"after");
        },
    );
}

#[test]
fn compacting_twice_with_writes_between() {
    try_all(tiny(1), some_keys, |run| {
        run.compact();
        run.delete(&[0]);
        run.put(&[1], b"between");
        run.compact();
    });
}

#[test]
fn compacting_everything_away() {
    try_all(
        tiny(1),
        |run| {
            some_keys(run);
            (0..8).for_each(|key| run.delete(&[key]));
        },
        Run::compact,
    );
}

#[test]
fn dropping_dead_segments() {
    try_all(
        tiny(1),
        |run| {
            for round in 0..4 {
                run.put(b"k", &value(round, 380));
            }
            run.put(b"l", &value(9, 380));
        },
        |run| {
            run.background();
            run.delete(b"l");
            run.background();
        },
    );
}

#[test]
fn closing_with_a_snapshot() {
    try_all(tiny(2), some_keys, |run| {
        run.put(b"last", b"one");
        run.close();
        run.open();
    });
}

#[test]
fn closing_without_a_snapshot() {
    try_all(tiny(2).snapshot_on_close(false), some_keys, |run| {
        run.put(b"last", b"one");
        run.close();
        run.open();
    });
}

#[test]
fn reopening_from_a_snapshot() {
    try_all(
        tiny(2),
        |run| {
            some_keys(run);
            run.close();
            run.open();
        },
        |run| {
            run.close();
            run.open();
            run.put(b"k", b"v");
        },
    );
}

#[test]
fn reopening_after_a_kill() {
    try_all(tiny(2), some_keys, |run| {
        run.put(b"k", b"v");
        run.restart();
        run.put(b"l", b"w");
    });
}

#[test]
fn reopening_after_a_kill_with_a_journal() {
    try_all(tiny(2), some_keys, |run| {
        run.put_durably(b"k", b"v");
        run.batch(0..8, b"batch", Durability::Sync);
        run.restart();
        run.put_durably(b"l", b"w");
    });
}

#[test]
fn reopening_a_torn_log() {
    try_all(
        tiny(1),
        |run| {
            some_keys(run);
            run.put(b"k", b"v");
            run.disk.kill();
            run.db = None;
            let dir = crate::rig::Rig::shard_dir(0);
            let path = crate::rig::files(&run.disk, &dir, ".seg").pop().unwrap();
            let mut bytes = run.disk.read_file(&path).unwrap();
            bytes.extend_from_slice(b"torn");
            run.disk.write_file(&path, &bytes).unwrap();
        },
        |run| {
            run.open();
            run.put(b"l", b"w");
        },
    );
}

#[test]
fn checkpointing() {
    try_all(tiny(2), some_keys, |run| {
        run.put(b"k", b"v");
        run.with(|db| db.checkpoint("/copy").map(drop));
        run.put(b"l", b"w");
    });
}

#[test]
fn checkpointing_twice() {
    try_all(
        tiny(2),
        |run| {
            some_keys(run);
            run.with(|db| db.checkpoint("/copy").map(drop));
        },
        |run| {
            run.put(b"k", b"v");
            run.compact();
            run.with(|db| db.checkpoint("/copy").map(drop));
        },
    );
}

#[test]
fn expiring() {
    try_all(
        tiny(1),
        |run| {
            some_keys(run);
            run.with(|db| {
                let options = WriteOptions::new().ttl(Duration::from_millis(10));
                for key in 100..110_u8 {
                    db.put_with(&[key], &[key; 100], options)?;
                }
                Ok(())
            });
            for key in 100..110_u8 {
                run.possible.insert(vec![key], [None].into());
            }
            run.disk.advance(20);
        },
        |run| {
            run.background();
            run.compact();
        },
    );
}

#[test]
fn conditional_writes() {
    try_all(tiny(1), some_keys, |run| {
        for round in 0..4_u8 {
            let (old, new) = (value(round, 300), value(round + 1, 300));
            let old = (round > 0).then_some(&old[..]);
            // Where an earlier swap failed, the next one finds another value and does nothing.
            run.write(&[(b"cas", Some(&new))], |db| {
                if db.compare_and_swap(b"cas", old, Some(&new))? {
                    Ok(())
                } else {
                    Err(Error::Closed)
                }
            });
        }
    });
}

#[test]
fn reading() {
    try_all(
        tiny(2),
        |run| {
            some_keys(run);
            run.close();
        },
        |run| {
            run.open();
            run.with(|db| db.iter()?.try_for_each(|entry| entry.map(drop)));
            run.with(|db| db.verify(|_| true).map(drop));
        },
    );
}

#[test]
fn opening_read_only() {
    try_all(
        tiny(2),
        |run| {
            some_keys(run);
            run.close();
        },
        |run| {
            let writable = run.builder.clone();
            run.builder = writable.clone().read_only(true);
            run.open();
            run.with(|db| db.refresh().map(drop));
            run.close();
            run.builder = writable;
        },
    );
}

#[test]
fn opening_a_store_with_leftovers() {
    try_all(
        tiny(1),
        |run| {
            some_keys(run);
            run.close();
            for name in ["0000009999.seg", "0000009999.hint", "MANIFEST.tmp"] {
                run.disk.write_file(format!("{HOME}/shard-000/{name}"), b"leftover").unwrap();
            }
        },
        Run::open,
    );
}
