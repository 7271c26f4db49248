//! A store on a simulated disk, and what should be in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use caskade::{Background, Batch, Builder, Db, Durability, Result, WriteOptions};
use caskade_shard::storage::EntryKind;
use caskade_shard::storage::sim::{Chooser, SimDisk};

/// Where the store lies on the simulated disk.
pub(crate) const HOME: &str = "/db";

pub(crate) type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store on a simulated disk, with the keys and values that it should hold.
///
/// Segments are tiny, and background work is done only when the test says so.
pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) builder: Builder,
    pub(crate) model: Pairs,
    /// Every key that was ever written.
    pub(crate) keys: BTreeSet<Vec<u8>>,
    db: Option<Db>,
}

/// Options for a store of `shards` shards with tiny segments.
pub(crate) fn tiny(shards: u16) -> Builder {
    Db::builder(HOME)
        .shards(shards)
        .segment_bytes_max(4096)
        .segment_bytes_min(400)
        .journal_bytes(8 << 10)
        .background(Background::Manual)
}

impl Rig {
    /// An empty store of one shard.
    pub(crate) fn new() -> Self {
        Self::with(tiny(1))
    }

    /// An empty store with these options.
    pub(crate) fn with(builder: Builder) -> Self {
        let disk = SimDisk::new(11);
        // The journal and the reserve are mapped nowhere; segments may grow under their maps.
        disk.set_map_reserve(64 << 10);
        let mut rig = Self { disk, builder, model: Pairs::new(), keys: BTreeSet::new(), db: None };
        rig.open();
        rig
    }

    pub(crate) fn db(&self) -> &Db {
        self.db.as_ref().expect("the store is open")
    }

    /// Opens the store, with options other than the rig's own if need be.
    pub(crate) fn try_open(&self, options: impl FnOnce(Builder) -> Builder) -> Result<Db> {
        options(self.builder.clone()).storage(self.disk.storage()).open()
    }

    pub(crate) fn open(&mut self) {
        let db = self.try_open(|options| options).expect("the store opens");
        self.db = Some(db);
    }

    /// Closes the store and opens it again.
    pub(crate) fn reopen(&mut self) {
        self.close();
        self.open();
    }

    pub(crate) fn close(&mut self) {
        let db = self.db.take().expect("the store is open");
        db.close().expect("the store closes");
    }

    /// The process dies; nothing is open then.
    pub(crate) fn kill(&mut self) {
        self.disk.kill();
        self.db = None;
    }

    /// The process dies and another opens the store.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.open();
    }

    /// The power fails; nothing is open then.
    pub(crate) fn power_cut(&mut self, chooser: &mut dyn Chooser) {
        self.disk.power_cut_with(chooser);
        self.db = None;
    }

    pub(crate) fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.db().put(key, value).expect("puts");
        self.note(key, Some(value));
    }

    pub(crate) fn put_durably(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (key.as_ref(), value.as_ref());
        let options = WriteOptions::new().durability(Durability::Sync);
        self.db().put_with(key, value, options).expect("puts durably");
        self.note(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        let was_there = self.db().delete(key).expect("deletes");
        assert_eq!(was_there, self.model.contains_key(key));
        self.note(key, None);
    }

    /// Writes several puts together.
    pub(crate) fn write(&mut self, pairs: &[(&str, &str)]) {
        let mut batch = Batch::new();
        for (key, value) in pairs {
            batch.put(key.as_bytes(), value.as_bytes());
        }
        self.db().write(&batch).expect("writes the batch");
        for (key, value) in pairs {
            self.note(key.as_bytes(), Some(value.as_bytes()));
        }
    }

    /// Tells the model about a write that went round the rig.
    pub(crate) fn note(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.keys.insert(key.to_vec());
        match value {
            Some(value) => self.model.insert(key.to_vec(), value.to_vec()),
            None => self.model.remove(key),
        };
    }

    /// What was written so far goes into sealed segments, and the next write into a new one.
    pub(crate) fn seal(&mut self) {
        self.builder = self.builder.clone().snapshot_on_close(false);
        self.reopen();
    }

    /// Does all background work there is.
    pub(crate) fn settle_down(&self) {
        for _ in 0..10_000 {
            if !self.db().run_background() {
                return;
            }
        }
        panic!("background work never ends");
    }

    /// Compares the open store with the model, in every way it can be read.
    pub(crate) fn compare(&self) {
        compare(self.db(), &self.model, &self.keys);
    }

    /// Compares with the model; reopened; and reopened without hints and snapshots.
    pub(crate) fn prove(&mut self) {
        self.compare();
        self.reopen();
        self.compare();
        self.close();
        strip_indexes(&self.disk, HOME);
        self.open();
        self.compare();
        let report = self.db().verify(|_| true).expect("verifies");
        assert!(report.is_clean(), "{:?}", report.damage);
    }

    /// The directory of a shard.
    pub(crate) fn shard_dir(shard: u16) -> PathBuf {
        Path::new(HOME).join(format!("shard-{shard:03}"))
    }

    /// The names in a shard's directory that end in `suffix`, sorted.
    pub(crate) fn files(&self, shard: u16, suffix: &str) -> Vec<PathBuf> {
        files(&self.disk, &Self::shard_dir(shard), suffix)
    }
}

/// The paths in `dir` that end in `suffix`, sorted.
pub(crate) fn files(disk: &SimDisk, dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = disk.list(dir).expect("there is such a directory");
    let paths = entries.into_iter().map(|entry| dir.join(entry.name));
    paths.filter(|path| path.to_str().expect("a plain name").ends_with(suffix)).collect()
}

/// Compares a store with a model, in every way it can be read.
pub(crate) fn compare(db: &Db, model: &Pairs, keys: &BTreeSet<Vec<u8>>) {
    for key in keys {
        let found = db.get(key).expect("gets").map(Vec::from);
        assert_eq!(found.as_ref(), model.get(key), "{}", key.escape_ascii());
    }
    let mut seen = Pairs::new();
    for entry in db.iter().expect("iterates") {
        let entry = entry.expect("reads the entry");
        assert!(seen.insert(entry.key.to_vec(), entry.value.to_vec()).is_none(), "a key twice");
    }
    assert_eq!(&seen, model);
    let mut scanned = Pairs::new();
    let mut cursor = Some(caskade::ScanCursor::start());
    while let Some(at) = cursor {
        let page = db.scan(at, 3).expect("scans");
        let entries = page.entries.into_iter();
        scanned.extend(entries.map(|entry| (entry.key.to_vec(), entry.value.to_vec())));
        cursor = page.next;
    }
    assert_eq!(&scanned, model);
}

/// Removes every hint and every keydir snapshot.
pub(crate) fn strip_indexes(disk: &SimDisk, home: impl AsRef<Path>) {
    for entry in disk.list(&home).expect("the store is there") {
        let dir = home.as_ref().join(entry.name);
        let files = disk.list(&dir).unwrap_or_default();
        for file in files.into_iter().filter(|file| file.kind == EntryKind::File) {
            let name = file.name.to_str().expect("a plain name");
            // Ten digits and the suffix; tests plant other names too.
            if (name.len() == 15 && Path::new(name).extension().is_some_and(|end| end == "hint"))
                || name == "KEYDIR"
            {
                disk.remove_file(dir.join(name)).expect("removes the index");
            }
        }
    }
}

/// Reads a store that must open, whatever is in it.
pub(crate) fn contents(db: &Db) -> Pairs {
    let entries = db.iter().expect("iterates");
    let pairs = entries.map(|entry| entry.expect("reads the entry"));
    pairs.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).collect()
}

/// Numbers that look random.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Runs the calling test in a process of its own, where nothing else opens files or starts threads:
/// true in that process, false in the first one, once the other has passed.
pub(crate) fn is_alone(test: &str) -> bool {
    const MARK: &str = "CASKADE_TEST_ALONE";
    if std::env::var_os(MARK).is_some_and(|name| name == test) {
        return true;
    }
    let program = std::env::current_exe().expect("this test has a file");
    let output = std::process::Command::new(program)
        .args([test, "--exact", "--test-threads=1", "--nocapture"])
        .env(MARK, test)
        // Threads that come and go leave memory in arenas of their own: that is no leak.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{test} alone: {said}");
    false
}

/// What a process holds: open files, maps, threads.
pub(crate) type Resources = (usize, usize, usize);

/// What this process holds. The kernel lists a thread for a moment after it was joined: so this waits
/// for what is expected, or for a while.
pub(crate) fn resources(expected: Option<Resources>) -> Resources {
    let count = |dir: &str| std::fs::read_dir(dir).expect("there is a /proc").count();
    let now = || {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("there is a /proc");
        let files = maps.lines().filter(|line| line.contains(".seg") || line.contains("/db/"));
        (count("/proc/self/fd"), files.count(), count("/proc/self/task"))
    };
    if expected.is_none() {
        std::thread::sleep(Duration::from_millis(200));
    }
    let start = Instant::now();
    while expected.is_some_and(|expected| now() != expected)
        && start.elapsed() < Duration::from_secs(5)
    {
        std::thread::yield_now();
    }
    now()
}
