//! Eight threads do everything there is to ten keys, while merges, expiries and crashes happen; in
//! the end each key's history must be linearizable.
//!
//! The store runs on the simulated disk, which can be killed at any moment. What was under way
//! then may have happened or not; what was answered before must have. Batches write a group of six
//! keys that nothing else writes, over all shards: the group as a whole is a register too, and every
//! iterator must see it whole.
//!
//! `CASKADE_HISTORY_OPS` says how many operations each thread does in each of the lives (400 if not
//! said), `CASKADE_HISTORY_SEED` where the dice begin.

mod checker;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caskade::{Background, Batch, Db, Durability, Error, Result, WriteOptions};
use caskade_shard::storage::Storage;
use caskade_shard::storage::sim::SimDisk;

use crate::rig::{Dice, tiny};
use checker::{Action, Held, Operation, check};

const THREADS: u64 = 8;
const KEYS: usize = 10;
const GROUP: usize = 6;
/// The group as a whole; its keys come behind it.
const WHOLE: usize = KEYS;
const REGISTERS: usize = KEYS + 1 + GROUP;
const LIVES: u64 = 6;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn name(register: usize) -> Vec<u8> {
    if register < WHOLE {
        format!("key {register}").into_bytes()
    } else {
        format!("group {register}").into_bytes()
    }
}

/// The value of a number. It tells its number, and varies in length.
fn value(id: u64) -> Vec<u8> {
    // About where a frame's length is no longer told exactly, and a value is no longer copied.
    const LONG: [usize; 6] = [1024, 1025, 1495, 1503, 1511, 5000];
    let is_long = id.is_multiple_of(16);
    let len = if is_long { LONG[(id / 16 % 6) as usize] } else { 8 + (id % 150) as usize };
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.resize(len, id as u8);
    bytes
}

fn id(bytes: &[u8]) -> u64 {
    let id = u64::from_le_bytes(bytes[..8].try_into().expect("a value begins with its number"));
    assert_eq!(bytes, value(id), "a value that nobody wrote");
    id
}

/// What all threads of a run share.
struct World {
    disk: SimDisk,
    storage: Arc<dyn Storage>,
    time: AtomicU64,
    ids: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

impl World {
    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    fn fresh(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

type Noted = (usize, Operation);

/// One thread's part of the history.
struct Worker<'w> {
    world: &'w World,
    db: &'w Db,
    dice: Dice,
    noted: Vec<Noted>,
    /// Errors, with when they came.
    errors: Vec<(u64, Error)>,
}

impl<'w> Worker<'w> {
    fn new(world: &'w World, db: &'w Db, seed: u64) -> Self {
        Self { world, db, dice: Dice::new(seed), noted: Vec::new(), errors: Vec::new() }
    }

    /// Does something, and notes what it was to which registers. `fallback` are the writes that may
    /// have happened when it fails.
    fn note(
        &mut self,
        fallback: &[(usize, Action)],
        act: impl FnOnce(&Db) -> Result<Vec<(usize, Action)>>,
    ) {
        let (call, before) = (self.world.tick(), self.world.storage.wall_ms());
        let answer = act(self.db);
        let (after, end) = (self.world.storage.wall_ms(), self.world.tick());
        let clock = (before, after);
        let (actions, is_certain) = match answer {
            Ok(actions) => (actions, true),
            Err(error) => {
                self.errors.push((end, error));
                (fallback.to_vec(), false)
            }
        };
        self.noted.extend(actions.into_iter().map(|(register, action)| {
            (register, Operation { call, end, clock, is_certain, action })
        }));
        self.world.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads one register, in one of the ways there are, and answers what was there.
    fn read(&mut self, register: usize) -> Option<u64> {
        let found = Cell::new(None);
        let read = |register, found: Option<u64>| (register, Action::Read(found));
        match self.dice.below(8) {
            0 => {
                // More than are looked up together, each at a moment of its own.
                let mut registers = [register; 18];
                registers[..17].fill_with(|| self.dice.below(KEYS as u64) as usize);
                self.note(&[], |db| {
                    let keys: Vec<_> = registers.iter().map(|register| name(*register)).collect();
                    let values = db.get_many(&keys)?.into_iter().map(|value| value.map(|v| id(&v)));
                    let reads: Vec<_> =
                        registers.iter().zip(values).map(|(r, id)| read(*r, id)).collect();
                    if let Some((_, Action::Read(last))) = reads.last() {
                        found.set(*last);
                    }
                    Ok(reads)
                });
            }
            1..4 => self.note(&[], |db| {
                let mut value = Vec::new();
                let is_there = db.get_into(&name(register), &mut value)?;
                found.set(is_there.then(|| id(&value)));
                Ok(vec![read(register, found.get())])
            }),
            _ => self.note(&[], |db| {
                found.set(db.get(&name(register))?.map(|value| id(&value)));
                Ok(vec![read(register, found.get())])
            }),
        }
        found.get()
    }

    /// Reads all keys at one moment.
    fn read_all(&mut self) {
        self.note(&[], |db| {
            let mut found = [None; REGISTERS];
            for entry in db.iter()? {
                let entry = entry?;
                let register = (0..REGISTERS).find(|r| name(*r) == *entry.key);
                found[register.expect("one of the keys")] = Some(id(&entry.value));
            }
            assert!(
                found[WHOLE + 1..].iter().all(|one| *one == found[WHOLE + 1]),
                "half a batch: {found:?}"
            );
            found[WHOLE] = found[WHOLE + 1];
            Ok(found.into_iter().enumerate().map(|(r, id)| (r, Action::Read(id))).collect())
        });
    }

    fn options(&mut self) -> WriteOptions {
        let is_sync = self.dice.below(20) == 0;
        let durability = if is_sync { Durability::Sync } else { Durability::Buffered };
        WriteOptions::new().durability(durability)
    }

    fn held(&self) -> Held {
        Held { id: self.world.fresh(), expiry: None }
    }

    fn step(&mut self) {
        let register = self.dice.below(KEYS as u64) as usize;
        let (key, held) = (name(register), self.held());
        let options = self.options();
        match self.dice.below(20) {
            0..6 => {
                self.read(register);
            }
            6..9 => {
                let done = [(register, Action::Put(held))];
                self.note(&done, |db| {
                    db.put_with(&key, &value(held.id), options).map(|_| done.to_vec())
                });
            }
            9 => {
                let at = self.world.storage.wall_ms() + self.dice.below(20);
                let done = [(register, Action::Put(Held { expiry: Some(at), ..held }))];
                self.note(&done, |db| {
                    let options = options.expires_at_unix_ms(at);
                    db.put_with(&key, &value(held.id), options).map(|_| done.to_vec())
                });
            }
            10..12 => {
                let may = [(register, Action::Delete { was_there: false })];
                self.note(&may, |db| {
                    let was_there = db.delete_with(&key, options)?;
                    Ok(vec![(register, Action::Delete { was_there })])
                });
            }
            12..15 => {
                let expected = self.read(register);
                let new = (self.dice.below(5) > 0).then_some(held);
                let act = |swapped| vec![(register, Action::Swap { expected, new, swapped })];
                self.note(&act(false), |db| {
                    let (old, new) = (expected.map(value), new.map(|held| value(held.id)));
                    db.compare_and_swap(&key, old.as_deref(), new.as_deref()).map(act)
                });
            }
            15 => {
                let new = Some(held);
                let act = |swapped| vec![(register, Action::Swap { expected: None, new, swapped })];
                self.note(&act(false), |db| {
                    db.put_if_absent(&key, &value(held.id)).map(|version| act(version.is_some()))
                });
            }
            16..18 => {
                let new = (self.dice.below(5) > 0).then_some(held);
                let act = |seen| vec![(register, Action::Update { seen, new })];
                self.note(&act(None), |db| {
                    let seen = Cell::new(None);
                    db.update(&key, |old| {
                        seen.set(old.map(id));
                        new.map(|held| value(held.id))
                    })?;
                    Ok(act(seen.get()))
                });
            }
            18 => self.batch(register, held, options),
            _ => self.read_all(),
        }
    }

    /// Writes the whole group and one more key.
    fn batch(&mut self, register: usize, held: Held, options: WriteOptions) {
        let mut batch = Batch::new();
        let mut done = vec![(register, Action::Put(held)), (WHOLE, Action::Put(held))];
        batch.put(&name(register), &value(held.id));
        for register in WHOLE + 1..REGISTERS {
            batch.put(&name(register), &value(held.id));
            done.push((register, Action::Put(held)));
        }
        let answer = done.clone();
        self.note(&done, |db| db.write_with(&batch, options).map(|_| answer));
    }
}

/// Moves the clock and merges, as long as the others work.
fn churn(world: &World, db: &Db, seed: u64) {
    let mut dice = Dice::new(seed);
    while world.goes_on() {
        world.disk.advance(1);
        let _ = match dice.below(8) {
            0 => db.compact(),
            _ => db.merge_chosen(|_, id| !(id + seed).is_multiple_of(3)),
        };
        std::thread::sleep(Duration::from_micros(dice.below(300)));
    }
}

/// One life of the store: what its threads noted, and when it ended, if that was by a kill.
fn live(world: &World, seed: u64, ops: u64, is_killed: bool) -> (Vec<Noted>, Option<u64>, u64) {
    let builder = tiny(3).background(Background::Thread).storage(world.disk.storage());
    let db = builder.open().expect("the store opens");
    world.stop.store(false, Ordering::Relaxed);
    world.done.store(0, Ordering::Relaxed);
    let mut first = Worker::new(world, &db, seed);
    first.read_all();
    for register in (0..REGISTERS).filter(|register| *register != WHOLE) {
        first.read(register);
    }
    let mut noted = first.noted;
    let mut errors = first.errors;
    let killed = std::thread::scope(|scope| {
        let work = |thread: u64| {
            let db = &db;
            scope.spawn(move || {
                let mut worker = Worker::new(world, db, seed << 8 | thread);
                // In the life that is killed they go on until it happens.
                for _ in 0..ops * if is_killed { 1000 } else { 1 } {
                    if !world.goes_on() {
                        break;
                    }
                    worker.step();
                }
                (worker.noted, worker.errors)
            })
        };
        let workers: Vec<_> = (1..=THREADS).map(work).collect();
        scope.spawn(|| churn(world, &db, seed));
        let killed = is_killed.then(|| {
            while world.done.load(Ordering::Relaxed) < ops * THREADS {
                std::thread::yield_now();
            }
            // Whatever is answered from now on may never have reached the kernel.
            let killed = world.tick();
            // Told first, so that each thread does little more than what it is about.
            world.stop.store(true, Ordering::Relaxed);
            world.disk.kill();
            killed
        });
        for worker in workers {
            let (more, failed) = worker.join().expect("no panic");
            noted.extend(more);
            errors.extend(failed);
        }
        world.stop.store(true, Ordering::Relaxed);
        killed
    });
    let merges = db.stats().total.merges;
    for (end, error) in errors {
        assert!(killed.is_some_and(|killed| end > killed), "{error}");
    }
    if killed.is_none() && seed.is_multiple_of(2) {
        db.close().expect("closes");
    }
    (noted, killed, merges)
}

/// What was under way at the kill may have happened until the next life began, and what was read
/// then tells nothing.
fn settle(noted: &mut Vec<Noted>, killed: u64, reborn: u64) -> usize {
    let is_read = |operation: &Operation| matches!(operation.action, Action::Read(_));
    noted.retain(|(_, operation)| operation.end < killed || !is_read(operation));
    let cut_off = noted.iter_mut().filter(|(_, operation)| operation.end > killed);
    cut_off
        .map(|(_, operation)| {
            operation.end = reborn;
            operation.is_certain = false;
        })
        .count()
}

#[test]
fn what_eight_threads_see_could_have_happened_in_a_row() {
    let ops = variable("CASKADE_HISTORY_OPS").unwrap_or(400);
    let seed = variable("CASKADE_HISTORY_SEED").unwrap_or(1);
    let disk = SimDisk::new(seed);
    disk.set_map_reserve(256 << 10);
    let world = World {
        storage: disk.storage(),
        disk,
        // Ends of operations that a kill cut off lie between two ticks.
        time: 1.into(),
        ids: 1.into(),
        done: 0.into(),
        stop: false.into(),
    };
    let begun = Instant::now();
    let mut histories: Vec<Vec<Operation>> = vec![Vec::new(); REGISTERS];
    let (mut merges, mut cut_off) = (0, 0);
    for life in 0..LIVES {
        let is_killed = life % 3 != 2;
        let (mut noted, killed, merged) = live(&world, seed * LIVES + life, ops, is_killed);
        merges += merged;
        if let Some(killed) = killed {
            cut_off += settle(&mut noted, killed, world.tick());
        }
        for (register, operation) in noted {
            histories[register].push(operation);
        }
    }
    let count: usize = histories.iter().map(Vec::len).sum();
    for (register, history) in histories.iter().enumerate() {
        if let Err(text) = check(None, history) {
            panic!("{} (seed {seed}): {text}", String::from_utf8_lossy(&name(register)));
        }
    }
    println!(
        "{count} operations on {REGISTERS} registers, {cut_off} cut off, {merges} merges, {:?}",
        begun.elapsed()
    );
    assert!(merges > 0 && cut_off > 0, "{merges} merges, {cut_off} cut off");
}
