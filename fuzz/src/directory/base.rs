//! The stores to start from.

use super::change::Trust;
use crate::input::Input;
use caskade::{Background, Batch, Builder, Db, Durability, WriteOptions};
use caskade_codec::ids::{SegmentId, ShardId};
use caskade_codec::names;
use caskade_shard::storage::EntryKind;
use caskade_shard::storage::sim::{Pending, SimDisk};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Where the store lies on the simulated disk.
const HOME: &str = "/db";

/// Options for tiny segments; background work is done only on demand.
pub(super) fn tiny(disk: &SimDisk) -> Builder {
    Db::builder(HOME)
        .storage(disk.storage())
        .segment_bytes_max(4096)
        .segment_bytes_min(512)
        .journal_bytes(8 << 10)
        .background(Background::Manual)
}

pub(super) type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
/// All files of a store but its reserve, of which nothing is read.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A store that the engine wrote.
pub(super) struct Base {
    disk: SimDisk,
    pub(super) files: Files,
    /// Every value that was written for a key.
    pub(super) history: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// What it holds.
    now: Pairs,
    /// Whether a flip shows. In a journal that is needed one looks like its end.
    is_exact: bool,
}

impl Base {
    /// One of the stores. They are made once.
    pub(super) fn pick(number: u8) -> &'static Self {
        static ALL: [OnceLock<Base>; 4] = [const { OnceLock::new() }; 4];
        let number = usize::from(number) % ALL.len();
        ALL[number].get_or_init(|| [closed, killed, cut, merging][number]())
    }

    /// The store's disk with other files.
    pub(super) fn disk_with(&self, files: &Files) -> SimDisk {
        let disk = self.disk.fork();
        for path in self.files.keys().filter(|path| !files.contains_key(*path)) {
            disk.remove_file(path).expect("it was there");
        }
        for (path, bytes) in
            files.iter().filter(|(path, bytes)| self.files.get(*path) != Some(bytes))
        {
            disk.write_file(path, bytes).expect("its directory is there");
        }
        disk
    }

    /// Panics if a key must not have this value.
    pub(super) fn judge(&self, key: &[u8], value: Option<&[u8]>, trust: Trust) {
        let now = self.now.get(key).map(|value| &value[..]);
        let text = key.escape_ascii();
        match (trust, value) {
            (Trust::Flips, _) if self.is_exact => assert_eq!(value, now, "the value of {text}"),
            (Trust::Forgeries, _) | (_, None) => {}
            (_, Some(value)) => {
                let written = self.history.get(key).into_iter().flatten();
                assert!(written.into_iter().any(|old| old == value), "{text} never was {value:?}");
            }
        }
    }
}

/// Any of our names in the store.
pub(super) fn name(input: &mut Input<'_>, base: &Base) -> PathBuf {
    let (kind, number) = (input.u8() % 11, input.u8());
    let shards = base.files.keys().filter(|path| path.ends_with(names::MANIFEST)).count();
    let home = Path::new(HOME);
    let shard = home.join(names::shard(ShardId(u16::from(number >> 6) % shards as u16)));
    let id = SegmentId(u64::from(number & 63));
    match kind {
        0 | 1 => shard.join(names::segment(id)),
        2 => shard.join(names::hint(id)),
        3 => shard.join(names::KEYDIR),
        4 => shard.join(names::MANIFEST),
        5 => shard.join(names::temporary(names::MANIFEST)),
        6 => shard.join(names::temporary(&names::hint(id))),
        7 => home.join(names::temporary(names::STORE)),
        8 => home.join(names::journal(number & 1)),
        9 => home.join(names::LOCK),
        _ => home.join(names::shard(ShardId(200 + u16::from(number & 7)))),
    }
}

/// All files of the store but the reserve.
pub(super) fn files_of(disk: &SimDisk) -> Files {
    let mut files = Files::new();
    let mut dirs = vec![PathBuf::from(HOME)];
    while let Some(dir) = dirs.pop() {
        for entry in disk.list(&dir).expect("the directory is there") {
            let path = dir.join(&entry.name);
            match entry.kind {
                EntryKind::Dir => dirs.push(path),
                _ if entry.name == names::RESERVE => {}
                _ => _ = files.insert(path.clone(), disk.read_file(&path).expect("a file")),
            }
        }
    }
    files
}

/// Writes a store and remembers what.
struct Writer {
    disk: SimDisk,
    db: Option<Db>,
    shards: u16,
    history: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    now: Pairs,
    values: u8,
}

impl Writer {
    fn new(shards: u16) -> Self {
        let (disk, history, now) = (SimDisk::new(11), BTreeMap::new(), Pairs::new());
        // Segments are mapped again while they grow.
        disk.set_map_reserve(16 << 10);
        let mut writer = Self { disk, db: None, shards, history, now, values: 0 };
        writer.open();
        writer
    }

    fn open(&mut self) {
        let builder = tiny(&self.disk).shards(self.shards).snapshot_on_close(false);
        self.db = Some(builder.open().expect("opens"));
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("it is open")
    }

    /// Closes and opens: what was written goes into sealed segments.
    fn seal(&mut self) {
        self.db().close().expect("closes");
        self.db = None;
        self.open();
        while self.db().run_background() {}
    }

    fn value(&mut self, len: usize) -> Vec<u8> {
        self.values += 1;
        let mut value = format!("value {}", self.values).into_bytes();
        value.resize(value.len().max(len), self.values);
        value
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        self.history.entry(key.to_vec()).or_default().push(value.to_vec());
        self.now.insert(key.to_vec(), value.to_vec());
    }

    fn put(&mut self, key: &str, len: usize, options: WriteOptions) {
        let value = self.value(len);
        self.db().put_with(key.as_bytes(), &value, options).expect("puts");
        self.note(key.as_bytes(), &value);
    }

    fn delete(&mut self, key: &str) {
        self.db().delete(key.as_bytes()).expect("deletes");
        self.now.remove(key.as_bytes());
    }

    /// A batch over all shards.
    fn batch(&mut self, keys: &[&str]) {
        let mut batch = Batch::new();
        for key in keys {
            let value = self.value(30);
            batch.put(key.as_bytes(), &value);
            self.note(key.as_bytes(), &value);
        }
        self.db().write(&batch).expect("writes");
    }

    /// Keys of all kinds, in a few segments.
    fn write_some(&mut self) {
        let plain = WriteOptions::new();
        for (index, key) in ["", "a", "b", "c", "d", "e", "f", "g"].iter().enumerate() {
            self.put(key, index * 60, plain);
        }
        self.delete("b");
        self.put("expires", 10, plain.ttl(Duration::from_hours(1)));
        self.put("is over", 10, plain.ttl(Duration::from_millis(1)));
        self.now.remove(&b"is over"[..]);
        self.disk.advance(5);
        self.batch(&["c", "d", "h", "i", "j"]);
    }

    fn finish(self, is_exact: bool) -> Base {
        let Self { disk, db, history, now, .. } = self;
        drop(db);
        let files = files_of(&disk);
        Base { disk, files, history, now, is_exact }
    }
}

/// Closed in peace: merged segments, and a snapshot of the keydir.
fn closed() -> Base {
    let mut writer = Writer::new(1);
    for _ in 0..2 {
        writer.write_some();
        writer.seal();
    }
    writer.db().compact().expect("compacts");
    writer.put("a", 50, WriteOptions::new());
    writer.delete("c");
    writer.db().close().expect("closes");
    writer.db = None;
    let db = tiny(&writer.disk).snapshot_on_close(true).open().expect("opens");
    db.close().expect("closes");
    drop(db);
    writer.finish(true)
}

/// The process was killed: sealed segments with hints, and a log behind them.
fn killed() -> Base {
    let mut writer = Writer::new(2);
    writer.write_some();
    writer.seal();
    writer.write_some();
    writer.disk.kill();
    writer.finish(true)
}

/// The power failed: nothing but the journal holds the end of the log.
fn cut() -> Base {
    let mut writer = Writer::new(2);
    writer.write_some();
    writer.seal();
    writer.put("a", 20, WriteOptions::new());
    writer.put("b", 400, WriteOptions::new());
    writer.batch(&["c", "d", "i"]);
    writer.put("e", 30, WriteOptions::new().durability(Durability::Sync));
    writer.put("f", 40, WriteOptions::new().durability(Durability::Sync));
    writer.disk.power_cut_with(&mut |_: &Pending<'_>| false);
    writer.finish(false)
}

/// Killed after a merge: hints of merged segments, tombstones that still hide something, and batches
/// over three shards, of which one ends the log.
fn merging() -> Base {
    let mut writer = Writer::new(3);
    for _ in 0..3 {
        writer.write_some();
        writer.seal();
        writer.delete("d");
    }
    writer.db().merge_chosen(|_, id| id % 2 == 0).expect("merges");
    writer.delete("e");
    writer.batch(&["a", "b", "c", "d", "e", "f"]);
    writer.disk.kill();
    writer.finish(true)
}
