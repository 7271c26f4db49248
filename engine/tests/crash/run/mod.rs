//! One seed: lives of a store that end in crashes, and what is checked in between.

mod checks;
mod crashes;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use caskade::{Batch, Db, Durability, Error, Iter, Value, Version, WriteOptions};
use caskade_shard::storage::sim::{CrashEffect, FailedSync, Repeat, Rng, SimDisk};

use self::checks::{collect, differences, observe, read};
use super::config::{Config, INTERVAL_MS, Op};
use super::model::{Blow, Key, Model, Put, show};

type Outcome<T = ()> = Result<T, String>;

const STORE: &str = "/db";
const COPY: &str = "/copy";

/// What a run did, so that a harness that does nothing is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) ops: u64,
    pub(crate) writes: u64,
    pub(crate) crashes: u64,
    pub(crate) crashes_in_calls: u64,
    pub(crate) crashes_in_recovery: u64,
    pub(crate) merged_segments: u64,
    pub(crate) losses: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.writes += other.writes;
        self.crashes += other.crashes;
        self.crashes_in_calls += other.crashes_in_calls;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.merged_segments += other.merged_segments;
        self.losses += other.losses;
    }
}

/// Values and iterators that outlive what they were read from.
#[derive(Default)]
struct Held {
    values: Vec<(Value, Vec<u8>)>,
    iterators: Vec<(Iter, BTreeMap<Key, Put>)>,
}

/// A write that the current life made: its version, and up to where it promises what.
struct Written {
    version: Version,
    shard: usize,
    mark: usize,
}

pub(crate) struct Run {
    rng: Rng,
    disk: SimDisk,
    config: Config,
    model: Model,
    db: Option<Db>,
    is_loud: bool,
    next_value: u64,
    written: Vec<Written>,
    /// Greatest sequence number seen in each shard.
    last_seqno: Vec<u64>,
    held: Held,
    /// What the checkpoint may hold, and whether it must be there.
    copies: Vec<BTreeMap<Key, Put>>,
    copy_is_certain: bool,
    /// Calls may fail without a crash.
    is_faulty: bool,
    sync_failed: bool,
    tally: Tally,
}

/// Runs what `rng` decides.
pub(crate) fn run(mut rng: Rng, is_loud: bool) -> Outcome<Tally> {
    let config = Config::random(&mut rng);
    let disk = SimDisk::new(rng.next_u64());
    disk.set_map_reserve(256 << 10);
    if is_loud {
        eprintln!("{config:?}");
    }
    let rounds = config.rounds;
    let mut run = Run::new(rng, disk, config, is_loud)?;
    for _ in 0..rounds {
        run.live()?;
        run.crash_and_recover()?;
        run.write_and_sync()?;
    }
    Ok(run.tally)
}

fn fault(what: &str) -> impl Fn(Error) -> String + '_ {
    move |error| format!("{what} failed: {error}")
}

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(text()) }
}

impl Run {
    /// Creates the store, which may crash any number of times, and learns where each key lives.
    fn new(mut rng: Rng, disk: SimDisk, config: Config, is_loud: bool) -> Outcome<Self> {
        disk.faults().set_allocate_unsupported(config.no_allocate);
        while rng.chance(1, 4) {
            disk.faults()
                .crash_at_call(disk.faults().calls() + 1 + rng.below(60), CrashEffect::Random);
            drop(config.builder(Path::new(STORE), disk.storage()).open());
            if rng.chance(1, 2) {
                disk.power_cut(&mut rng);
            } else {
                disk.kill();
            }
            disk.faults().clear();
            disk.faults().set_allocate_unsupported(config.no_allocate);
            let _ = disk.crashed();
        }
        let db =
            config.builder(Path::new(STORE), disk.storage()).open().map_err(fault("creating"))?;
        let twin = disk.fork();
        let other =
            config.builder(Path::new(STORE), twin.storage()).open().map_err(fault("opening"))?;
        let mut shard_of = BTreeMap::new();
        for index in 0..config.keys {
            let key = format!("{index}{}", "x".repeat((index * 7 % 23) as usize)).into_bytes();
            let version = other.put(&key, b"").map_err(fault("putting"))?;
            shard_of.insert(key, (version.to_u64() >> 56) as usize);
        }
        let shards = usize::from(config.shards);
        Ok(Self {
            model: Model::new(shards, shard_of),
            last_seqno: vec![0; shards],
            rng,
            disk,
            config,
            db: Some(db),
            is_loud,
            next_value: 0,
            written: Vec::new(),
            held: Held::default(),
            copies: Vec::new(),
            copy_is_certain: false,
            is_faulty: false,
            sync_failed: false,
            tally: Tally::default(),
        })
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.is_loud {
            if std::env::var_os("CASKADE_CALLS").is_some() {
                for call in self.disk.faults().take_trace() {
                    eprintln!("          {} {:?} {}", call.number, call.op, call.path.display());
                }
                self.disk.faults().start_trace();
            }
            eprintln!("[{:>5}] {}", self.disk.faults().calls(), text());
        }
    }

    fn db(&self) -> Db {
        self.db.clone().expect("a store is open")
    }

    fn now(&self) -> u64 {
        self.disk.storage().wall_ms()
    }

    fn open(&mut self, what: &str) -> Outcome {
        self.say(|| what.to_owned());
        self.disk.faults().set_allocate_unsupported(self.config.no_allocate);
        let db = self
            .config
            .builder(Path::new(STORE), self.disk.storage())
            .open()
            .map_err(fault(what))?;
        for loss in db.open_report().losses() {
            self.say(|| format!("{what}: dropped {loss:?}"));
            self.tally.losses += 1;
        }
        self.db = Some(db);
        Ok(())
    }

    // ---- One life ----

    fn live(&mut self) -> Outcome {
        let ops = 1 + self.rng.below(self.config.ops_max);
        if self.rng.chance(1, 2) {
            let number = self.disk.faults().calls() + 1 + self.rng.below(ops * 3);
            self.say(|| format!("the process will die in call {number}"));
            self.disk.faults().crash_at_call(number, CrashEffect::Random);
        }
        for _ in 0..ops {
            self.tally.ops += 1;
            let op = self.config.op(&mut self.rng);
            self.step(op).map_err(|text| format!("{op:?}: {text}"))?;
            if self.has_died() {
                self.say(|| format!("the process died in {op:?}"));
                self.tally.crashes_in_calls += 1;
                break;
            }
            if self.sync_failed {
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self, op: Op) -> Outcome {
        if op == Op::Reopen {
            return self.reopen();
        }
        let db = self.db();
        match op {
            Op::Put => {
                let (key, put) = (self.key(), self.put(None));
                self.write(&[(key, Some(put))], |db, changes, options| {
                    let (key, put) = (&changes[0].0, changes[0].1.as_ref().expect("a put"));
                    db.put_with(key, &put.value, options).map(Some)
                })
            }
            Op::PutTtl => {
                let ttl = 1 + self.rng.below(2000);
                let (key, put) = (self.key(), self.put(Some(ttl)));
                self.write(&[(key, Some(put))], move |db, changes, options| {
                    let (key, put) = (&changes[0].0, changes[0].1.as_ref().expect("a put"));
                    let options = options.ttl(Duration::from_millis(ttl));
                    db.put_with(key, &put.value, options).map(Some)
                })
            }
            Op::Delete => {
                let key = self.key();
                let was_there = self.model.visible(&key, self.now()).is_some();
                self.write(&[(key, None)], move |db, changes, options| {
                    let answer = db.delete_with(&changes[0].0, options)?;
                    assert_eq!(answer, was_there, "the answer of a delete");
                    Ok(None)
                })
            }
            Op::Batch => self.batch(),
            Op::PutIfAbsent
            | Op::Swap
            | Op::PutIfVersion
            | Op::Update
            | Op::Add
            | Op::Expire
            | Op::Persist => self.conditional(op),
            Op::Sync => {
                let mark = self.model.mark();
                match db.sync() {
                    Ok(()) => {
                        self.say(|| "sync".to_owned());
                        self.model.durable_to(&mark);
                        Ok(())
                    }
                    Err(error) => self.excuse(error),
                }
            }
            Op::WaitDurable => self.wait_durable(),
            Op::Background => {
                let done = db.run_background();
                self.say(|| format!("a background step: {done}"));
                self.look_at_poison();
                Ok(())
            }
            Op::BackgroundAll => {
                let mut steps = 0;
                while db.run_background() {
                    steps += 1;
                    ensure(steps < 5000, || "the background work never ends".to_owned())?;
                }
                self.say(|| format!("{steps} background steps"));
                self.look_at_poison();
                Ok(())
            }
            Op::Interval => {
                if !self.config.is_interval() {
                    return Ok(());
                }
                db.run_background();
                let mark = self.model.mark();
                self.disk.advance(INTERVAL_MS + 1);
                let done = db.run_background();
                self.say(|| format!("the interval passes: {done}"));
                self.look_at_poison();
                if !self.is_faulty && !self.has_died() {
                    self.model.durable_to(&mark);
                }
                Ok(())
            }
            Op::Advance => {
                let ms = *self.rng.pick(&[1, 30, 300, 3000]);
                self.disk.advance(ms);
                self.say(|| format!("{ms} ms pass"));
                Ok(())
            }
            Op::MergeSome => {
                let (salt, share) = (self.rng.next_u64(), 1 + self.rng.below(4));
                let outcome = db.merge_chosen(|shard, id| {
                    Rng::new(salt ^ u64::from(shard) << 32 ^ id).chance(share, 4)
                });
                self.say(|| format!("merge some: {outcome:?}"));
                self.take_report(outcome)
            }
            Op::Compact => {
                let outcome = db.compact();
                self.say(|| format!("compact: {outcome:?}"));
                self.take_report(outcome)
            }
            Op::Checkpoint => self.checkpoint(),
            Op::Reopen => unreachable!("done above, without a second handle"),
            Op::Check => self.check(),
            Op::Hold => self.hold(),
            Op::Space => {
                let free = self.rng.chance(2, 3).then(|| self.rng.below(12_000));
                self.say(|| format!("free space: {free:?}"));
                self.disk.faults().set_free_space(free);
                self.is_faulty |= free.is_some();
                Ok(())
            }
            Op::Fault => {
                let errno = *self.rng.pick(&[5, 28, 24]);
                let number = self.disk.faults().calls() + 1 + self.rng.below(20);
                let manner = *self.rng.pick(&[FailedSync::DropAll, FailedSync::DropSome]);
                self.say(|| format!("call {number} will fail with {errno}"));
                self.disk.faults().set_failed_sync(manner);
                self.disk.faults().fail_call(number, Repeat::Once, errno);
                self.is_faulty = true;
                Ok(())
            }
        }
    }

    fn take_report(&mut self, outcome: caskade::Result<caskade::CompactReport>) -> Outcome {
        match outcome {
            Ok(report) => {
                self.tally.merged_segments += report.segments_removed;
                Ok(())
            }
            Err(error) => self.excuse(error),
        }
    }

    /// Whether the planned crash has happened.
    fn has_died(&self) -> bool {
        self.disk.is_crashed()
    }

    /// Lets an error pass that a planned crash or fault explains.
    fn excuse(&mut self, error: Error) -> Outcome {
        self.say(|| format!("error: {error}"));
        self.look_at_poison();
        if self.is_faulty || self.has_died() {
            return Ok(());
        }
        Err(error.to_string())
    }

    fn look_at_poison(&mut self) {
        if let Some(cause) = self.db.as_ref().and_then(Db::poisoned) {
            self.note_poison(&cause);
        }
    }

    fn note_poison(&mut self, cause: &str) {
        if !self.sync_failed && !self.has_died() {
            self.say(|| format!("poisoned: {cause}"));
            // Only what was durable before is certain from here on.
            self.sync_failed = true;
            self.model.withdraw();
        }
    }

    // ---- Writes ----

    fn key(&mut self) -> Key {
        let index = self.rng.below(self.config.keys) as usize;
        self.model.keys().nth(index).expect("a key for every number").clone()
    }

    /// A value that no other put has.
    fn put(&mut self, ttl: Option<u64>) -> Put {
        self.next_value += 1;
        let len = self.rng.below(self.config.value_bytes_max);
        let mut value = vec![0; 8 + len as usize];
        Rng::new(self.next_value).fill(&mut value);
        Put { value, expiry: ttl.map(|ttl| self.now() + ttl) }
    }

    fn options(&mut self) -> (WriteOptions, bool) {
        if self.rng.chance(self.config.sync_share, 10) {
            (WriteOptions::new().durability(Durability::Sync), true)
        } else if self.rng.chance(1, 3) {
            (WriteOptions::new().durability(Durability::Buffered), false)
        } else {
            (WriteOptions::new(), self.config.is_sync())
        }
    }

    /// Makes a write in the store and in the model. `act` answers its version if it has one.
    fn write(
        &mut self,
        changes: &[(Key, Option<Put>)],
        act: impl FnOnce(&Db, &[(Key, Option<Put>)], WriteOptions) -> caskade::Result<Option<Version>>,
    ) -> Outcome {
        let (options, is_sync) = self.options();
        self.write_as(changes, is_sync, |db, changes| act(db, changes, options))
    }

    fn write_as(
        &mut self,
        changes: &[(Key, Option<Put>)],
        is_sync: bool,
        act: impl FnOnce(&Db, &[(Key, Option<Put>)]) -> caskade::Result<Option<Version>>,
    ) -> Outcome {
        let db = self.db();
        self.tally.writes += 1;
        let answer = act(&db, changes);
        self.say(|| {
            let list = changes.iter().map(|(key, put)| {
                let shard = self.model.shard_of[key];
                format!("{}@{shard} = {}", key.escape_ascii(), show(put.as_ref()))
            });
            let text = list.collect::<Vec<_>>().join(", ");
            format!("write sync={is_sync} {text}: {answer:?}")
        });
        match answer {
            Ok(version) => {
                let touched = self.model.write(changes.to_vec(), true);
                if is_sync {
                    for shard in touched {
                        self.model.shard_durable_to(shard, self.model.shard_mark(shard));
                    }
                }
                if let Some(version) = version {
                    self.note_version(version)?;
                }
                // A failure that nobody waits for shows in the poison only.
                self.look_at_poison();
                Ok(())
            }
            Err(_) if self.has_died() => {
                self.model.write(changes.to_vec(), false);
                Ok(())
            }
            Err(error) => self.failed_write(changes, &error),
        }
    }

    /// A write failed and the process lives: it was done, or it was not, but never by half.
    fn failed_write(&mut self, changes: &[(Key, Option<Put>)], error: &Error) -> Outcome {
        ensure(self.is_faulty, || format!("a write failed: {error}"))?;
        let db = self.db();
        let mut last: BTreeMap<&Key, Option<&Put>> = BTreeMap::new();
        for (key, put) in changes {
            last.insert(key, put.as_ref());
        }
        let (mut done, mut undone) = (0, 0);
        for (key, put) in last {
            let found = read(&db, key).map_err(fault("reading after a failed write"))?;
            let before = self.model.visible(key, self.now());
            if found.as_ref() == before && before != put {
                undone += 1;
            } else if found.as_ref() == put {
                done += u64::from(before != put);
            } else {
                return Err(format!("{}: neither old nor new", key.escape_ascii()));
            }
        }
        ensure(done == 0 || undone == 0, || format!("a write was done by half: {error}"))?;
        if done > 0 {
            ensure(!error.is_no_space(), || "a write without space was done".to_owned())?;
            self.model.write(changes.to_vec(), false);
        }
        self.look_at_poison();
        Ok(())
    }

    fn note_version(&mut self, version: Version) -> Outcome {
        let (shard, seqno) = ((version.to_u64() >> 56) as usize, version.to_u64() << 8 >> 8);
        let last = self.last_seqno[shard];
        ensure(seqno > last, || format!("{version} comes after number {last}"))?;
        self.last_seqno[shard] = seqno;
        self.written.push(Written { version, shard, mark: self.model.shard_mark(shard) });
        Ok(())
    }

    fn batch(&mut self) -> Outcome {
        let count = 1 + self.rng.below(8);
        let mut batch = Batch::new();
        let mut changes = Vec::new();
        for _ in 0..count {
            let key = self.key();
            match self.rng.below(5) {
                0 => {
                    batch.delete(&key);
                    changes.push((key, None));
                }
                1 => {
                    let ttl = 1 + self.rng.below(2000);
                    let put = self.put(Some(ttl));
                    batch.put_with_ttl(&key, &put.value, Duration::from_millis(ttl));
                    changes.push((key, Some(put)));
                }
                _ => {
                    let put = self.put(None);
                    batch.put(&key, &put.value);
                    changes.push((key, Some(put)));
                }
            }
        }
        self.write(&changes, |db, _, options| db.write_with(&batch, options))
    }

    fn conditional(&mut self, op: Op) -> Outcome {
        let (key, now) = (self.key(), self.now());
        let old = self.model.visible(&key, now).cloned();
        let is_sync = self.config.is_sync();
        let put = self.put(None);
        let unchanged: &[(Key, Option<Put>)] = &[];
        let change = vec![(key.clone(), Some(put.clone()))];
        match op {
            Op::PutIfAbsent => {
                let changes = if old.is_none() { &change[..] } else { unchanged };
                self.write_as(changes, is_sync, |db, _| {
                    let version = db.put_if_absent(&key, &put.value)?;
                    assert_eq!(version.is_some(), old.is_none(), "the answer of put_if_absent");
                    Ok(version)
                })
            }
            Op::Swap => {
                let is_right = self.rng.chance(2, 3);
                let expected =
                    if is_right { old.map(|old| old.value) } else { Some(b"no".to_vec()) };
                let change = if self.rng.chance(1, 4) { vec![(key.clone(), None)] } else { change };
                let new = change[0].1.as_ref().map(|put| put.value.clone());
                self.write_as(if is_right { &change } else { unchanged }, is_sync, |db, _| {
                    let swapped = db.compare_and_swap(&key, expected.as_deref(), new.as_deref())?;
                    assert_eq!(swapped, is_right, "the answer of compare_and_swap");
                    Ok(None)
                })
            }
            Op::PutIfVersion => {
                let Ok(Some(value)) = self.db().get(&key) else { return Ok(()) };
                let is_right = self.rng.chance(2, 3);
                let version = Version::from_u64(value.version().to_u64() + u64::from(!is_right));
                self.write_as(if is_right { &change } else { unchanged }, is_sync, |db, _| {
                    let answer = db.put_if_version(&key, &put.value, version)?;
                    assert_eq!(answer.is_some(), is_right, "the answer of put_if_version");
                    Ok(answer)
                })
            }
            Op::Update => {
                let new = self.rng.chance(3, 4).then(|| put.clone());
                self.write_as(&[(key.clone(), new.clone())], is_sync, |db, _| {
                    db.update(&key, |_| new.as_ref().map(|put| put.value.clone()))?;
                    Ok(None)
                })
            }
            Op::Add => self.add(key, old, is_sync),
            Op::Expire => {
                let Some(old) = old else { return Ok(()) };
                let ttl = 1 + self.rng.below(2000);
                let change = [(key.clone(), Some(Put { expiry: Some(now + ttl), ..old }))];
                self.write_as(&change, is_sync, |db, _| {
                    assert!(db.expire(&key, Duration::from_millis(ttl))?, "the key is there");
                    Ok(None)
                })
            }
            _ => {
                let Some(old) = old else { return Ok(()) };
                let change = [(key.clone(), Some(Put { expiry: None, ..old }))];
                self.write_as(&change, is_sync, |db, _| {
                    assert!(db.persist(&key)?, "the key is there");
                    Ok(None)
                })
            }
        }
    }

    fn add(&mut self, key: Key, old: Option<Put>, is_sync: bool) -> Outcome {
        let delta = self.rng.next_u64().cast_signed();
        let count = match &old {
            None => 0,
            Some(old) => match <[u8; 8]>::try_from(&old.value[..]) {
                Ok(bytes) => i64::from_le_bytes(bytes),
                Err(_) => {
                    let answer = self.db().fetch_add(&key, delta);
                    let is_refused = matches!(answer, Err(Error::NotACounter { .. }));
                    return match answer {
                        Err(_) if is_refused => Ok(()),
                        Err(error) => self.excuse(error),
                        Ok(_) => Err("added to a value that is no counter".to_owned()),
                    };
                }
            },
        };
        let sum = count.wrapping_add(delta);
        let put = Put { value: sum.to_le_bytes().to_vec(), expiry: old.and_then(|old| old.expiry) };
        self.write_as(&[(key.clone(), Some(put))], is_sync, |db, _| {
            assert_eq!(db.fetch_add(&key, delta)?, sum, "the answer of fetch_add");
            Ok(None)
        })
    }

    fn wait_durable(&mut self) -> Outcome {
        if self.written.is_empty() {
            return Ok(());
        }
        let index = self.rng.below(self.written.len() as u64) as usize;
        let Written { version, shard, mark } = self.written[index];
        match self.db().wait_durable(version) {
            Ok(()) => {
                self.say(|| format!("{version} is durable"));
                self.model.shard_durable_to(shard, mark);
                Ok(())
            }
            Err(error) => self.excuse(error),
        }
    }

    // ---- Structure ----

    fn checkpoint(&mut self) -> Outcome {
        let db = self.db();
        self.copy_is_certain = false;
        let state: BTreeMap<Key, Put> = self.model.state(0);
        self.copies.push(state.clone());
        let outcome = db.checkpoint(COPY);
        self.say(|| format!("checkpoint: {outcome:?}"));
        match outcome {
            Ok(_) => {
                self.copies = vec![state];
                self.copy_is_certain = true;
                if self.is_faulty || self.has_died() { Ok(()) } else { self.check_copy() }
            }
            Err(error) => self.excuse(error),
        }
    }

    fn check_copy(&mut self) -> Outcome {
        if self.copies.is_empty() {
            return Ok(());
        }
        if !self.disk.exists(Path::new(COPY).join("STORE")) {
            return ensure(!self.copy_is_certain, || "the checkpoint is gone".to_owned());
        }
        let copy = self.config.builder(Path::new(COPY), self.disk.storage()).read_only(true).open();
        let copy = match copy {
            Err(_) if self.has_died() => return Ok(()),
            copy => copy.map_err(fault("opening the checkpoint"))?,
        };
        let now = self.now();
        let found = observe(&copy, &self.model)?.0;
        let fits = self.copies.iter().any(|state| visible(state, now) == found);
        ensure(fits, || {
            format!(
                "the checkpoint differs: {}",
                differences(&visible(&self.copies[0], now), &found)
            )
        })
    }

    fn reopen(&mut self) -> Outcome {
        let mark = self.model.mark();
        let db = self.db.take().expect("a store is open");
        self.written.clear();
        // What fails when a dropped handle closes nobody hears of.
        if self.rng.chance(4, 5) || self.is_faulty {
            match db.close() {
                Ok(()) => {
                    self.say(|| "closed".to_owned());
                    self.model.durable_to(&mark);
                }
                Err(error) => self.excuse(error)?,
            }
        }
        if let Some(cause) = db.poisoned() {
            self.note_poison(&cause);
        }
        drop(db);
        if self.has_died() || self.sync_failed {
            return Ok(());
        }
        self.tamper()?;
        match self.open("reopening") {
            Ok(()) => self.check(),
            Err(_) if self.has_died() => Ok(()),
            Err(text) if self.is_faulty => {
                self.say(|| text);
                self.disk.faults().clear();
                self.is_faulty = false;
                self.open("reopening without faults")?;
                self.check()
            }
            Err(text) => Err(text),
        }
    }

    fn hold(&mut self) -> Outcome {
        if self.rng.chance(1, 2) {
            return self.release();
        }
        let db = self.db();
        let key = self.key();
        if let Ok(Some(value)) = db.get(&key) {
            let bytes = value.to_vec();
            self.held.values.push((value, bytes));
        }
        match db.iter() {
            Ok(iter) => self.held.iterators.push((iter, self.model.state(self.now()))),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// Looks at what was held, however much happened since.
    fn release(&mut self) -> Outcome {
        for (value, bytes) in self.held.values.drain(..) {
            ensure(value == bytes, || "a value changed while it was held".to_owned())?;
        }
        for (iter, expected) in self.held.iterators.drain(..) {
            let found = collect(iter)?;
            ensure(found == expected, || {
                format!("an iterator changed: {}", differences(&expected, &found))
            })?;
        }
        Ok(())
    }
}

fn visible(state: &BTreeMap<Key, Put>, now: u64) -> BTreeMap<Key, Put> {
    state.iter().filter(|(_, p)| p.is_visible(now)).map(|(k, p)| (k.clone(), p.clone())).collect()
}
