//! A store on the simulated disk, and a model of it: any sequence of operations, clean ends and
//! crashes. The input says what is done, and what a power cut keeps.
//!
//! The model is that of the crash simulation in `engine/tests/crash`, where a seed decides. It holds
//! that after a crash each shard has a prefix of its writes, that the prefix has all that was
//! acknowledged (after a kill) or promised to be durable (after a power cut), and that a batch is
//! whole in all shards or in none.

#[expect(dead_code, reason = "the crash simulation does more with it")]
#[path = "../../engine/tests/crash/model.rs"]
mod model;

use crate::input::Input;
use crate::stores::{self, HOME, alone};
use caskade::{Batch, Db, Durability, Result, Version, WriteOptions};
use caskade_shard::storage::sim::{Chooser, CrashEffect, Pending, SECTOR_BYTES, SimDisk};
use model::{Blow, Key, Model, Put};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

const COPY: &str = "/copy";
const SHARDS_MAX: u16 = 3;
/// Bounds the time that an input takes.
const STEPS_MAX: usize = 250;

/// Does what the input says, and compares with the model all along.
pub fn operations(data: &[u8]) {
    alone(|| {
        let mut run = Run::new(Input::new(data));
        for _ in 0..STEPS_MAX {
            if run.input.is_empty() {
                break;
            }
            run.step();
        }
        run.strike(Blow::Kill);
        run.strike(Blow::PowerCut);
        run.reopen(true);
    });
}

type Changes = Vec<(Key, Option<Put>)>;

/// What the input decides once.
#[derive(Debug, Clone, Copy)]
struct Config {
    shards: u16,
    is_sync: bool,
    snapshot_on_close: bool,
    no_allocate: bool,
    segment_bytes_min: u64,
}

impl Config {
    fn read(input: &mut Input<'_>) -> Self {
        let choices = input.u8();
        Self {
            shards: 1 + u16::from(choices & 3) % SHARDS_MAX,
            is_sync: choices & 4 != 0,
            snapshot_on_close: choices & 8 != 0,
            no_allocate: choices & 16 != 0,
            segment_bytes_min: if choices & 32 == 0 { 400 } else { 2048 },
        }
    }
}

/// An empty store and where each key would go.
struct Fresh {
    disk: SimDisk,
    shard_of: BTreeMap<Key, usize>,
}

impl Fresh {
    /// The store with so many shards, which is made once.
    fn of(shards: u16) -> &'static Self {
        static ALL: [OnceLock<Fresh>; SHARDS_MAX as usize] = [const { OnceLock::new() }; 3];
        ALL[usize::from(shards) - 1].get_or_init(|| {
            let disk = stores::disk();
            let db = stores::tiny(HOME, &disk).shards(shards).open().expect("creates");
            db.close().expect("closes");
            drop(db);
            let twin = disk.fork();
            let db = stores::tiny(HOME, &twin).open().expect("opens");
            let shard = |key: &Key| (db.put(key, b"").expect("puts").to_u64() >> 56) as usize;
            let keys: Vec<Key> = (0..10).map(|n: usize| vec![b'a' + n as u8; n * n]).collect();
            let shard_of = keys.into_iter().map(|key| (key.clone(), shard(&key))).collect();
            Self { disk, shard_of }
        })
    }
}

struct Run<'a> {
    input: Input<'a>,
    config: Config,
    disk: SimDisk,
    model: Model,
    db: Option<Db>,
    values: u64,
    /// What the checkpoint holds, while there is one for certain.
    copy: Option<BTreeMap<Key, Put>>,
}

impl<'a> Run<'a> {
    fn new(mut input: Input<'a>) -> Self {
        let config = Config::read(&mut input);
        let fresh = Fresh::of(config.shards);
        let model = Model::new(config.shards.into(), fresh.shard_of.clone());
        let disk = fresh.disk.fork();
        let mut run = Self { input, config, disk, model, db: None, values: 0, copy: None };
        run.db = Some(run.open(HOME, false).expect("opens"));
        run
    }

    fn open(&self, path: &str, read_only: bool) -> Result<Db> {
        self.disk.faults().set_allocate_unsupported(self.config.no_allocate);
        let durability = if self.config.is_sync { Durability::Sync } else { Durability::Buffered };
        stores::tiny(path, &self.disk)
            .segment_bytes_min(self.config.segment_bytes_min)
            .durability(durability)
            .snapshot_on_close(self.config.snapshot_on_close)
            .read_only(read_only)
            .open()
    }

    fn db(&self) -> Db {
        self.db.clone().expect("a store is open")
    }

    fn now(&self) -> u64 {
        self.disk.storage().wall_ms()
    }

    fn step(&mut self) {
        let step = self.input.u8() % 24;
        self.act(step);
        if self.disk.is_crashed() {
            let blow = self.blow();
            self.strike(blow);
        }
    }

    fn act(&mut self, step: u8) {
        let db = self.db();
        match step {
            0..6 => self.put(),
            6 | 7 => {
                let key = self.key();
                let was_there = self.visible(&key).is_some();
                self.write(vec![(key.clone(), None)], |db, options| {
                    assert_eq!(db.delete_with(&key, options)?, was_there, "a delete's answer");
                    Ok(None)
                });
            }
            8 | 9 => self.batch(),
            10 | 11 => self.conditional(),
            12 => self.expire(),
            13 => {
                let mark = self.model.mark();
                if self.has_succeeded(db.sync()) {
                    self.model.durable_to(&mark);
                }
            }
            14 => _ = db.run_background(),
            15 => {
                let steps = (0..5000).take_while(|_| db.run_background()).count();
                assert!(steps < 5000, "background work never ends");
            }
            16 => self.disk.advance([1, 30, 300, 3000][usize::from(self.input.u8() & 3)]),
            17 => {
                let chosen = self.input.u8();
                let answer =
                    db.merge_chosen(|shard, id| chosen >> ((u64::from(shard) + id) & 7) & 1 == 1);
                self.has_succeeded(answer.map(drop));
            }
            18 => _ = self.has_succeeded(db.compact().map(drop)),
            19 => self.checkpoint(),
            20 => {
                drop(db);
                let is_clean = self.input.bool();
                self.reopen(is_clean);
            }
            21 => {
                drop(db);
                self.strike(Blow::Kill);
            }
            22 => {
                drop(db);
                self.strike(Blow::PowerCut);
            }
            _ => self.plan_a_crash(),
        }
    }

    fn blow(&mut self) -> Blow {
        if self.input.bool() { Blow::PowerCut } else { Blow::Kill }
    }

    /// The process will die in one of the next calls to the system.
    fn plan_a_crash(&mut self) {
        let effect = if self.input.bool() { CrashEffect::Whole } else { CrashEffect::Nothing };
        let call = self.disk.faults().calls() + 1 + u64::from(self.input.u8() & 63);
        self.disk.faults().crash_at_call(call, effect);
    }

    /// Only a planned crash lets a call fail.
    fn has_succeeded(&self, answer: Result<()>) -> bool {
        match answer {
            Ok(()) => true,
            Err(_) if self.disk.is_crashed() => false,
            Err(error) => panic!("it failed: {error}"),
        }
    }

    // ---- Writes ----

    fn key(&mut self) -> Key {
        let index = usize::from(self.input.u8()) % self.model.shard_of.len();
        self.model.keys().nth(index).expect("a key for every number").clone()
    }

    /// A value that no other put has.
    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let len = usize::from(self.input.u8()) * 4;
        let mut value = self.values.to_le_bytes().to_vec();
        value.resize(8 + len, self.values as u8);
        value
    }

    fn visible(&self, key: &[u8]) -> Option<Put> {
        self.model.visible(key, self.now()).cloned()
    }

    fn ttl(&mut self) -> Duration {
        Duration::from_millis(1 + u64::from(self.input.u8()) * 8)
    }

    fn expiring(&self, value: Vec<u8>, ttl: Duration) -> Put {
        Put { value, expiry: Some(self.now() + ttl.as_millis() as u64) }
    }

    /// Makes a write in the store and in the model.
    fn write(
        &mut self,
        changes: Changes,
        act: impl FnOnce(&Db, WriteOptions) -> Result<Option<Version>>,
    ) {
        let asks = self.input.u8() & 3 == 0;
        let durability = if asks { Durability::Sync } else { Durability::Buffered };
        let options = WriteOptions::new().durability(durability);
        self.write_as(changes, asks, |db| act(db, options));
    }

    fn write_as(
        &mut self,
        changes: Changes,
        is_sync: bool,
        act: impl FnOnce(&Db) -> Result<Option<Version>>,
    ) {
        let answer = act(&self.db());
        let is_done = self.has_succeeded(answer.map(drop));
        let touched = self.model.write(changes, is_done);
        if is_done && is_sync {
            for shard in touched {
                self.model.shard_durable_to(shard, self.model.shard_mark(shard));
            }
        }
    }

    fn put(&mut self) {
        let (key, value) = (self.key(), self.value());
        if self.input.u8() & 3 == 0 {
            let ttl = self.ttl();
            let change = (key.clone(), Some(self.expiring(value.clone(), ttl)));
            self.write(vec![change], |db, options| {
                db.put_with(&key, &value, options.ttl(ttl)).map(Some)
            });
        } else {
            let put = Put { value: value.clone(), expiry: None };
            self.write(vec![(key.clone(), Some(put))], |db, options| {
                db.put_with(&key, &value, options).map(Some)
            });
        }
    }

    fn batch(&mut self) {
        let mut batch = Batch::new();
        let mut changes = Changes::new();
        for _ in 0..=self.input.u8() & 7 {
            let key = self.key();
            match self.input.u8() & 3 {
                0 => {
                    batch.delete(&key);
                    changes.push((key, None));
                }
                1 => {
                    let (value, ttl) = (self.value(), self.ttl());
                    batch.put_with_ttl(&key, &value, ttl);
                    changes.push((key, Some(self.expiring(value, ttl))));
                }
                _ => {
                    let value = self.value();
                    batch.put(&key, &value);
                    changes.push((key, Some(Put { value, expiry: None })));
                }
            }
        }
        self.write(changes, |db, options| db.write_with(&batch, options));
    }

    fn conditional(&mut self) {
        let (key, value) = (self.key(), self.value());
        let old = self.visible(&key);
        let put = Put { value: value.clone(), expiry: None };
        let change = vec![(key.clone(), Some(put))];
        let is_sync = self.config.is_sync;
        match self.input.u8() % 4 {
            0 => {
                let changes = if old.is_none() { change } else { Changes::new() };
                self.write_as(changes, is_sync, |db| {
                    let version = db.put_if_absent(&key, &value)?;
                    assert_eq!(version.is_some(), old.is_none(), "the answer of put_if_absent");
                    Ok(version)
                });
            }
            1 => {
                let is_right = self.input.bool();
                let new = self.input.bool().then_some(value);
                let old = if is_right { old.map(|old| old.value) } else { Some(b"no".to_vec()) };
                let put = new.clone().map(|value| Put { value, expiry: None });
                let changes = if is_right { vec![(key.clone(), put)] } else { Changes::new() };
                self.write_as(changes, is_sync, |db| {
                    let swapped = db.compare_and_swap(&key, old.as_deref(), new.as_deref())?;
                    assert_eq!(swapped, is_right, "the answer of compare_and_swap");
                    Ok(None)
                });
            }
            2 => {
                let Some(found) = self.db().get(&key).expect("gets") else { return };
                let is_right = self.input.bool();
                let number = found.version().to_u64() + u64::from(!is_right);
                let changes = if is_right { change } else { Changes::new() };
                self.write_as(changes, is_sync, |db| {
                    let version = db.put_if_version(&key, &value, Version::from_u64(number))?;
                    assert_eq!(version.is_some(), is_right, "the answer of put_if_version");
                    Ok(version)
                });
            }
            _ => {
                let new = self.input.bool().then_some(value);
                let put = new.clone().map(|value| Put { value, expiry: None });
                self.write_as(vec![(key.clone(), put)], is_sync, |db| {
                    db.update(&key, |found| {
                        assert_eq!(found, old.as_ref().map(|old| &old.value[..]), "what it gets");
                        new.clone()
                    })?;
                    Ok(None)
                });
            }
        }
    }

    /// Gives a key an expiry, or takes it away.
    fn expire(&mut self) {
        let (key, ttl) = (self.key(), self.ttl());
        let ttl = self.input.bool().then_some(ttl);
        let old = self.visible(&key);
        let change = old.as_ref().map(|old| match ttl {
            Some(ttl) => self.expiring(old.value.clone(), ttl),
            None => Put { expiry: None, ..old.clone() },
        });
        let changes = change.into_iter().map(|put| (key.clone(), Some(put))).collect();
        self.write_as(changes, self.config.is_sync, |db| {
            let was_there = match ttl {
                Some(ttl) => db.expire(&key, ttl),
                None => db.persist(&key),
            };
            assert_eq!(was_there?, old.is_some(), "whether the key is there");
            Ok(None)
        });
    }

    // ---- Structure ----

    fn checkpoint(&mut self) {
        let state = self.model.state(0);
        self.copy = None;
        if self.has_succeeded(self.db().checkpoint(COPY).map(drop)) {
            self.copy = Some(state);
            self.check_copy();
        }
    }

    fn check_copy(&self) {
        let Some(state) = &self.copy else { return };
        let copy = match self.open(COPY, true) {
            Ok(copy) => copy,
            Err(_) if self.disk.is_crashed() => return,
            Err(error) => panic!("opening the checkpoint failed: {error}"),
        };
        assert_eq!(contents(&copy), visible(state, self.now()), "the checkpoint's contents");
    }

    fn reopen(&mut self, is_clean: bool) {
        let mark = self.model.mark();
        let db = self.db.take().expect("a store is open");
        if is_clean && self.has_succeeded(db.close()) {
            self.model.durable_to(&mark);
        }
        drop(db);
        if self.disk.is_crashed() {
            return;
        }
        match self.open(HOME, false) {
            Ok(db) => self.db = Some(db),
            Err(_) if self.disk.is_crashed() => return,
            Err(error) => panic!("reopening failed: {error}"),
        }
        self.check();
    }

    // ---- Crashes ----

    /// Crashes; recovers, in several attempts perhaps; compares with the model.
    fn strike(&mut self, mut blow: Blow) {
        self.end_life(blow);
        while self.input.u8() & 3 == 3 {
            self.plan_a_crash();
            match self.open(HOME, false) {
                Ok(_) => {}
                Err(error) => assert!(self.disk.is_crashed(), "recovering failed: {error}"),
            }
            let next = self.blow();
            self.end_life(next);
            if next == Blow::PowerCut {
                blow = next;
            }
        }
        let db = self.open(HOME, false).expect("recovers");
        let found = observe(&db, &self.model);
        self.db = Some(db);
        let now = self.now();
        if let Err(text) = self.model.recover(blow, &found, now) {
            panic!("after {blow:?}: {text}");
        }
        self.check();
        self.check_copy();
    }

    fn end_life(&mut self, blow: Blow) {
        match blow {
            Blow::Kill => self.disk.kill(),
            Blow::PowerCut => {
                let (kept, stale) = (self.input.short(), self.input.bool());
                self.disk.power_cut_with(&mut Chosen { kept, asked: 0, stale });
            }
        }
        self.db = None;
        let _ = self.disk.crashed();
        self.disk.faults().forget_crash();
    }

    // ---- Checks ----

    /// Every way to read gives what the model has, and nothing is damaged.
    fn check(&self) {
        let (db, now) = (self.db(), self.now());
        let expected = self.model.state(now);
        assert_eq!(observe(&db, &self.model), expected, "what is got");
        assert_eq!(contents(&db), expected, "what is iterated");
        let keys: Vec<&Key> = self.model.keys().collect();
        let many = db.get_many(&keys).expect("gets many");
        for (key, value) in keys.iter().zip(many) {
            let put = expected.get(*key).map(|put| &put.value[..]);
            assert_eq!(value.as_deref(), put, "what is got together");
        }
        let (least, ghosts) = (expected.len(), self.model.ghosts.len());
        let most = least + self.model.expired(now).count() + ghosts;
        assert!((least..=most).contains(&(db.len() as usize)), "{} keys", db.len());
        match db.verify(|_| true) {
            Ok(report) => assert!(report.is_clean(), "{:?}", report.damage),
            Err(error) => assert!(self.disk.is_crashed(), "verifying failed: {error}"),
        }
    }
}

/// Keeps what the bits say, which repeat; nothing without bits.
struct Chosen<'a> {
    kept: &'a [u8],
    asked: usize,
    stale: bool,
}

impl Chooser for Chosen<'_> {
    fn keep(&mut self, _pending: &Pending<'_>) -> bool {
        let (byte, bit) = (self.asked / 8, self.asked % 8);
        self.asked += 1;
        !self.kept.is_empty() && self.kept[byte % self.kept.len()] >> bit & 1 == 1
    }

    fn stale(&mut self, sector: &mut [u8; SECTOR_BYTES]) -> bool {
        sector.fill(0xA5);
        self.stale
    }
}

fn visible(state: &BTreeMap<Key, Put>, now: u64) -> BTreeMap<Key, Put> {
    state.iter().filter(|(_, p)| p.is_visible(now)).map(|(k, p)| (k.clone(), p.clone())).collect()
}

fn put_of(value: &caskade::Value) -> Put {
    Put { value: value.to_vec(), expiry: value.expires_at_unix_ms() }
}

/// What `get` answers for every key.
fn observe(db: &Db, model: &Model) -> BTreeMap<Key, Put> {
    let get = |key: &Key| Some((key.clone(), put_of(&db.get(key).expect("gets")?)));
    model.keys().filter_map(get).collect()
}

fn contents(db: &Db) -> BTreeMap<Key, Put> {
    let mut found = BTreeMap::new();
    for entry in db.iter().expect("iterates") {
        let entry = entry.expect("reads the entry");
        let twice = found.insert(entry.key.to_vec(), put_of(&entry.value));
        assert_eq!(twice, None, "a key comes once");
    }
    found
}
