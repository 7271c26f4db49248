//! All public operations against a map, with everything that may happen to the files in between.
//!
//! One deterministic state machine on the simulated disk: tiny segments, few keys, a clock that
//! only the test moves. After each structural event (reopening, a kill, a merge, a checkpoint, the
//! loss of index files) every way to read must give what the map has, and the counts of live and
//! dead bytes must equal a recount.
//!
//! `CASKADE_MODEL_STEPS=100000 cargo test --release -p caskade --test it model` runs longer;
//! `CASKADE_MODEL_SEED` begins elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caskade::{
    Background, Batch, Builder, Db, Durability, Error, Expiry, ScanCursor, Version, WriteOptions,
};
use caskade_shard::storage::sim::{Rng, SimDisk};

const STORE: &str = "/store";
/// Steps in one store, before another one with another configuration begins.
const STEPS_PER_STORE: u64 = 2_500;

type Map = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

struct Machine {
    rng: Rng,
    disk: SimDisk,
    db: Option<Db>,
    map: Map,
    keys: Vec<Vec<u8>>,
    has_ttl: bool,
    value_bytes_max: u64,
    shards: u16,
    segment_bytes: (u64, u64),
    max_space_amp: f64,
    snapshot_on_close: bool,
    durability: Durability,
    structural: u64,
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn the_store_is_a_map() {
    let steps = variable("CASKADE_MODEL_STEPS").unwrap_or(5_000);
    let seed = variable("CASKADE_MODEL_SEED").unwrap_or(1);
    let (mut done, mut structural) = (0, 0);
    while done < steps {
        let world = seed + done / STEPS_PER_STORE;
        let mut machine = Machine::new(world);
        let count = STEPS_PER_STORE.min(steps - done);
        for step in 0..count {
            let choice = machine.rng.below(1000);
            if variable("CASKADE_MODEL_TRACE") == Some(world) {
                eprintln!("world {world}, step {step}: {choice}");
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                machine.step(choice);
            }));
            if let Err(panic) = outcome {
                eprintln!("failed in step {step}: CASKADE_MODEL_SEED={world}, choice {choice}");
                std::panic::resume_unwind(panic);
            }
        }
        structural += machine.structural;
        done += count;
    }
    assert!(structural * 100 > done, "too little happened to the files");
}

fn frame_len(key: &[u8], value: &[u8], expiry: Option<u64>) -> u64 {
    let expiry = if expiry.is_some() { 8 } else { 0 };
    ((20 + expiry + key.len() + value.len()) as u64).next_multiple_of(8)
}

impl Machine {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(rng.next_u64());
        disk.set_map_reserve(1 << 20);
        let count = *rng.pick(&[3, 10, 30, 200]);
        let keys = (0..count)
            .map(|index: u64| format!("{index}{}", "k".repeat((index % 11) as usize)).into_bytes())
            .collect();
        let least = *rng.pick(&[256, 400, 1000, 4096]);
        let mut machine = Self {
            has_ttl: rng.chance(1, 2),
            value_bytes_max: *rng.pick(&[30, 300, 3000]),
            shards: *rng.pick(&[1, 2, 4]),
            segment_bytes: (least, (least << rng.below(5)).min(64 << 10)),
            max_space_amp: *rng.pick(&[1.1, 1.5, 3.0]),
            snapshot_on_close: rng.chance(2, 3),
            durability: *rng.pick(&[Durability::Buffered, Durability::Sync]),
            rng,
            disk,
            db: None,
            map: Map::new(),
            keys,
            structural: 0,
        };
        machine.open();
        machine
    }

    fn builder(&self, path: &str) -> Builder {
        Db::builder(path)
            .storage(self.disk.storage())
            .background(Background::Manual)
            .shards(self.shards)
            .segment_bytes_max(self.segment_bytes.1)
            .segment_bytes_min(self.segment_bytes.0)
            .journal_bytes(16 << 10)
            .max_space_amp(self.max_space_amp)
            .snapshot_on_close(self.snapshot_on_close)
            .durability(self.durability)
    }

    fn open(&mut self) {
        self.db = Some(self.builder(STORE).open().expect("opens"));
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn now(&self) -> u64 {
        self.disk.storage().wall_ms()
    }

    fn key(&mut self) -> Vec<u8> {
        let keys = &self.keys;
        self.rng.pick(keys).clone()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = self.rng.below(self.value_bytes_max);
        let mut value = vec![0; len as usize];
        self.rng.fill(&mut value);
        value
    }

    fn ttl(&mut self) -> Option<Duration> {
        let is_wanted = self.has_ttl && self.rng.chance(1, 3);
        is_wanted.then(|| Duration::from_millis(1 + self.rng.below(5000)))
    }

    /// The map without what is expired.
    fn seen(&self, key: &[u8]) -> Option<&(Vec<u8>, Option<u64>)> {
        let now = self.now();
        self.map.get(key).filter(|(_, expiry)| expiry.is_none_or(|at| at > now))
    }

    fn seen_map(&self) -> Map {
        let now = self.now();
        let is_seen = |expiry: &Option<u64>| expiry.is_none_or(|at| at > now);
        let seen = self.map.iter().filter(|(_, (_, expiry))| is_seen(expiry));
        seen.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn expiry(&self, ttl: Option<Duration>) -> Option<u64> {
        ttl.map(|ttl| self.now() + ttl.as_millis() as u64)
    }

    fn step(&mut self, choice: u64) {
        match choice {
            0..350 => self.put(),
            350..480 => self.delete(),
            480..560 => self.batch(),
            560..700 => self.conditional(),
            700..800 => self.read_one(),
            800..840 => self.disk.advance(self.rng.below(400)),
            840..920 => drop(self.db().run_background()),
            920..935 => self.db().sync().expect("syncs"),
            935..940 => self.read_many(),
            940..950 => self.merge_some(),
            950..957 => self.background_all(),
            957..962 => self.compact(),
            962..974 => self.reopen(),
            974..982 => self.kill(),
            982..986 => self.checkpoint(),
            986..993 => self.read_only(),
            993..996 => self.rest(),
            996..997 => self.wipe(),
            _ => self.verify(),
        }
    }

    // ---- Writes ----

    fn put(&mut self) {
        let (key, value, ttl) = (self.key(), self.value(), self.ttl());
        let mut options = WriteOptions::new();
        if let Some(ttl) = ttl {
            options = options.ttl(ttl);
        }
        if self.rng.chance(1, 10) {
            options = options.durability(Durability::Sync);
        }
        let version = self.db().put_with(&key, &value, options).expect("puts");
        let found = self.db().get(&key).expect("gets").expect("just put");
        assert_eq!(found.version(), version);
        self.map.insert(key, (value, self.expiry(ttl)));
    }

    fn delete(&mut self) {
        let key = self.key();
        let was_there = self.seen(&key).is_some();
        assert_eq!(self.db().delete(&key).expect("deletes"), was_there);
        self.map.remove(&key);
    }

    fn batch(&mut self) {
        let mut batch = Batch::new();
        for _ in 0..self.rng.below(7) {
            let key = self.key();
            if self.rng.chance(1, 3) {
                batch.delete(&key);
                self.map.remove(&key);
            } else {
                let (value, ttl) = (self.value(), self.ttl());
                match ttl {
                    Some(ttl) => batch.put_with_ttl(&key, &value, ttl),
                    None => batch.put(&key, &value),
                };
                self.map.insert(key, (value, self.expiry(ttl)));
            }
        }
        let version = self.db().write(&batch).expect("writes");
        assert_eq!(version.is_none(), batch.is_empty());
        if let Some(version) = version {
            self.db().wait_durable(version).expect("waits");
        }
    }

    #[expect(clippy::single_match_else, reason = "both arms matter")]
    fn conditional(&mut self) {
        let (key, new) = (self.key(), self.value());
        let old = self.seen(&key).cloned();
        let db = self.db().clone();
        match self.rng.below(7) {
            0 => {
                let done = db.put_if_absent(&key, &new).expect("puts").is_some();
                assert_eq!(done, old.is_none());
                if done {
                    self.map.insert(key, (new, None));
                }
            }
            1 => {
                let old = old.map(|(value, _)| value);
                assert!(!db.compare_and_swap(&key, Some(b"other"), Some(&new)).expect("swaps"));
                assert!(db.compare_and_swap(&key, old.as_deref(), Some(&new)).expect("swaps"));
                self.map.insert(key, (new, None));
            }
            2 => {
                let Some(found) = db.get(&key).expect("gets") else { return };
                let wrong = Version::from_u64(found.version().to_u64() ^ 1);
                assert_eq!(db.put_if_version(&key, &new, wrong).expect("puts"), None);
                assert!(db.put_if_version(&key, &new, found.version()).expect("puts").is_some());
                self.map.insert(key, (new, None));
            }
            3 => {
                let change = self.rng.chance(3, 4).then_some(new);
                let seen = old.map(|(value, _)| value);
                let answer = db.update(&key, |old| {
                    assert_eq!(old, seen.as_deref());
                    change.clone()
                });
                assert_eq!(answer.expect("updates"), change);
                match change {
                    Some(new) => drop(self.map.insert(key, (new, None))),
                    None => drop(self.map.remove(&key)),
                }
            }
            4 => {
                let answer = db.fetch_add(&key, 7);
                let (count, expiry) = match old {
                    None => (0, None),
                    Some((value, expiry)) => match <[u8; 8]>::try_from(&value[..]) {
                        Ok(bytes) => (i64::from_le_bytes(bytes), expiry),
                        Err(_) => {
                            let len = value.len();
                            assert!(
                                matches!(answer, Err(Error::NotACounter { len: l }) if l == len)
                            );
                            return;
                        }
                    },
                };
                let sum = count.wrapping_add(7);
                assert_eq!(answer.expect("adds"), sum);
                self.map.insert(key, (sum.to_le_bytes().to_vec(), expiry));
            }
            5 if self.has_ttl => {
                let ttl = Duration::from_millis(1 + self.rng.below(5000));
                assert_eq!(db.expire(&key, ttl).expect("expires"), old.is_some());
                if let Some((value, _)) = old {
                    self.map.insert(key, (value, self.expiry(Some(ttl))));
                }
            }
            _ => {
                assert_eq!(db.persist(&key).expect("persists"), old.is_some());
                if let Some((value, _)) = old {
                    self.map.insert(key, (value, None));
                }
            }
        }
    }

    // ---- Reads ----

    fn read_one(&mut self) {
        let key = self.key();
        self.check_key(self.db(), &key);
    }

    fn check_key(&self, db: &Db, key: &[u8]) {
        let expected = self.seen(key);
        let found = db.get(key).expect("gets");
        let found = found.map(|value| (value.to_vec(), value.expires_at_unix_ms()));
        assert_eq!(found.as_ref(), expected, "{}", key.escape_ascii());
        let mut out = b"rubbish".to_vec();
        assert_eq!(db.get_into(key, &mut out).expect("gets"), expected.is_some());
        assert_eq!(out, expected.map_or(&[][..], |(value, _)| value));
        assert_eq!(db.contains_key(key).expect("looks"), expected.is_some());
        assert_eq!(db.value_len(key).expect("looks"), expected.map(|(value, _)| value.len()));
        let ttl = expected.map(|(_, expiry)| match expiry {
            None => Expiry::Never,
            Some(at) => Expiry::In(Duration::from_millis(at - self.now())),
        });
        assert_eq!(db.ttl(key).expect("looks"), ttl);
    }

    fn read_many(&mut self) {
        let keys: Vec<_> = (0..self.rng.below(40)).map(|_| self.key()).collect();
        let found = self.db().get_many(&keys).expect("gets");
        let mut visited = vec![None; keys.len()];
        self.db()
            .get_many_with(&keys, |index, value| visited[index] = Some(value.map(<[u8]>::to_vec)))
            .expect("gets");
        for ((key, found), visited) in keys.iter().zip(found).zip(visited) {
            let expected = self.seen(key).map(|(value, _)| value.clone());
            assert_eq!(found.map(Vec::from), expected);
            assert_eq!(visited.expect("visited"), expected);
        }
        self.check_all(self.db());
    }

    /// Every way to read all keys.
    fn check_all(&self, db: &Db) {
        let expected = self.seen_map();
        for key in &self.keys {
            self.check_key(db, key);
        }
        let mut found = Map::new();
        for entry in db.iter().expect("iterates") {
            let entry = entry.expect("reads");
            let value = (entry.value.to_vec(), entry.value.expires_at_unix_ms());
            assert!(found.insert(entry.key.to_vec(), value).is_none(), "a key came twice");
        }
        assert_eq!(found, expected, "iter");
        let mut visited = BTreeMap::new();
        db.iter()
            .expect("iterates")
            .visit(|key, value| visited.insert(key.to_vec(), value.to_vec()).is_none())
            .expect("visits");
        assert!(visited.iter().eq(expected.iter().map(|(key, (value, _))| (key, value))), "visit");
        let mut keys: Vec<_> = db.keys().expect("keys").map(|key| key.expect("reads")).collect();
        keys.sort();
        assert!(keys.iter().map(|key| &**key).eq(expected.keys().map(|key| &key[..])), "keys");
        let (mut found, mut cursor) = (Map::new(), Some(ScanCursor::start()));
        while let Some(at) = cursor {
            let page = db.scan(at, 7).expect("scans");
            for entry in page.entries {
                let value = (entry.value.to_vec(), entry.value.expires_at_unix_ms());
                assert!(found.insert(entry.key.to_vec(), value).is_none(), "a key came twice");
            }
            cursor = page.next;
        }
        assert_eq!(found, expected, "scan");
        self.check_counts(db, &expected);
    }

    fn check_counts(&self, db: &Db, seen: &Map) {
        let bytes = |map: &Map| -> u64 {
            map.iter().map(|(key, (value, expiry))| frame_len(key, value, *expiry)).sum()
        };
        // Expired records count until they are cleaned up.
        let (least, most) = (seen.len() as u64, self.map.len() as u64);
        assert!((least..=most).contains(&db.len()), "len {} of {least}..={most}", db.len());
        let stats = db.stats();
        let live = stats.total.live_bytes;
        let (least, most) = (bytes(seen), bytes(&self.map));
        assert!((least..=most).contains(&live), "{live} live bytes, recounted {least}..={most}");
        assert_eq!(stats.total.dead_bytes, stats.total.total_bytes - live);
        assert_eq!(stats.total.keys, db.len());
    }

    /// Length of all segment files.
    fn file_bytes(&self) -> u64 {
        self.files(".seg")
            .iter()
            .map(|path| self.disk.read_file(path).map_or(0, |b| b.len()))
            .sum::<usize>() as u64
    }

    fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for shard in 0..self.shards {
            let dir = Path::new(STORE).join(format!("shard-{shard:03}"));
            for entry in self.disk.list(&dir).expect("a directory") {
                if entry.name.to_string_lossy().ends_with(suffix) {
                    found.push(dir.join(entry.name));
                }
            }
        }
        found
    }

    // ---- What happens to the files ----

    fn structural(&mut self) {
        self.structural += 1;
        self.check_all(self.db());
    }

    fn merge_some(&mut self) {
        let (salt, share) = (self.rng.next_u64(), 1 + self.rng.below(4));
        let choose =
            |shard: u16, id: u64| Rng::new(salt ^ u64::from(shard) << 40 ^ id).chance(share, 4);
        self.db().merge_chosen(choose).expect("merges");
        self.structural();
    }

    fn compact(&mut self) {
        self.db().compact().expect("compacts");
        self.structural();
        if !self.has_ttl {
            // Nothing but live records and headers is left.
            let stats = self.db().stats().total;
            let headers = 64 * (stats.segments_sealed + stats.segments_open);
            assert_eq!(stats.total_bytes, stats.live_bytes + headers, "{stats:?}");
        }
    }

    fn background_all(&mut self) {
        for steps in 0.. {
            assert!(steps < 10_000, "the background work never ends");
            if !self.db().run_background() {
                break;
            }
        }
        self.structural();
    }

    fn reopen(&mut self) {
        self.db().close().expect("closes");
        assert!(matches!(self.db().get(b""), Err(Error::Closed)));
        self.db = None;
        self.lose_indexes();
        self.open();
        assert_eq!(self.db().open_report().losses().count(), 0);
        assert_eq!(self.db().stats().total.total_bytes, self.file_bytes(), "bytes of all files");
        self.structural();
    }

    fn kill(&mut self) {
        self.disk.kill();
        self.db = None;
        self.lose_indexes();
        self.open();
        assert_eq!(self.db().open_report().losses().count(), 0);
        self.structural();
    }

    fn lose_indexes(&mut self) {
        let share = *self.rng.pick(&[0, 0, 1, 4]);
        for path in self.files(".hint").into_iter().chain(self.files("KEYDIR")) {
            if self.rng.chance(share, 4) {
                self.disk.remove_file(path).expect("removes");
            }
        }
    }

    fn checkpoint(&mut self) {
        self.db().checkpoint("/copy").expect("checkpoints");
        self.structural();
        let copy = self.builder("/copy").read_only(true).open().expect("opens the copy");
        self.check_all(&copy);
    }

    fn read_only(&mut self) {
        let reader = self.builder(STORE).read_only(true).open().expect("opens to read");
        self.check_all(&reader);
        assert!(matches!(reader.put(b"key", b""), Err(Error::ReadOnly)));
        self.put();
        let fresh = reader.refresh().expect("refreshes");
        self.check_all(&fresh);
        self.structural();
    }

    /// A store that is left alone comes to rest: nothing is merged a second time for nothing.
    fn rest(&mut self) {
        for _ in 0..2 {
            self.background_all();
            self.reopen();
        }
        self.background_all();
        assert_eq!(self.db().stats().total.merges, 0, "merged again: {:?}", self.db().stats());
    }

    /// Of a store whose keys are all deleted nothing is left, and nothing comes back.
    fn wipe(&mut self) {
        for key in self.keys.clone() {
            self.db().delete(&key).expect("deletes");
        }
        self.map.clear();
        for _ in 0..2 {
            self.compact();
            assert_eq!(self.db().len(), 0);
            self.reopen();
        }
        assert_eq!(self.file_bytes(), 0, "{:?}", self.files(".seg"));
    }

    fn verify(&mut self) {
        let report = self.db().verify(|_| true).expect("verifies");
        assert!(report.is_clean(), "{report:?}");
    }
}
