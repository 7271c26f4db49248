//! The store as its users see it. The work lies in the modules named for it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use caskade_shard::context::Event;

use caskade_shard::read_path::Found;

use crate::batch::Batch;
use crate::checkpoint::{self, CheckpointProgress, CheckpointReport};
use crate::compact::{self, CompactProgress};
use crate::iter::{Iter, Keys, ScanCursor, ScanPage};
use crate::maintenance::Maintenance;
use crate::open;
use crate::options::{Background, Builder, WriteOptions};
use crate::reads::{GROUP, with_value};
use crate::slow::Operation;
use crate::stats::{self, CompactReport, OpenReport, SegmentStats, Stats};
use crate::store::{Around, Store};
use crate::value::{Copies, Value};
use crate::verify::{self, VerifyProgress, VerifyReport};
use crate::version::Version;
use crate::{Error, Result};

/// A handle to an open store. Clones share it; it may be used from any number of threads.
///
/// The store closes when [`Db::close`] is called or the last handle is dropped. After that, handles,
/// iterators and [`Value`]s that are still around stay safe to use: iterators go on, values keep their
/// bytes, figures stay as they were, and other calls that can fail answer [`Error::Closed`].
///
/// A process that forks opens its stores afterwards: a child that uses or drops a handle of its
/// parent's shares the files and the lock with it.
#[derive(Debug, Clone)]
pub struct Db {
    handle: Arc<Handle>,
}

/// Closes the store when the last [`Db`] is gone.
#[derive(Debug)]
struct Handle {
    store: Arc<Store>,
    maintenance: Arc<Maintenance>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// When a key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It does not.
    Never,
    /// After this time from now.
    In(Duration),
}

impl Db {
    /// Opens the store in the directory `path`, or creates it there, with the default options.
    ///
    /// # Errors
    ///
    /// As [opening](crate#errors).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Opens a store with other options.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }

    pub(crate) fn open_with(options: Builder) -> Result<Self> {
        let is_threaded = options.background == Background::Thread && !options.read_only;
        let (store, events) = open::open(options)?;
        if !store.options.read_only {
            // A disk that is full already shows itself at the first write.
            store.reserve.restore(&store.ctx);
        }
        let store = Arc::new(store);
        let maintenance = Arc::new(Maintenance::new(Arc::clone(&store), events));
        let thread = if is_threaded {
            let worker = Arc::clone(&maintenance);
            let thread = std::thread::Builder::new()
                .name("caskade".to_owned())
                .spawn(move || worker.run())
                .map_err(|fault| Error::io("start a thread for", &store.ctx.path, fault))?;
            Some(thread)
        } else {
            None
        };
        let handle = Handle { store, maintenance, thread: Mutex::new(thread) };
        Ok(Self { handle: Arc::new(handle) })
    }

    #[inline]
    fn store(&self) -> &Store {
        &self.handle.store
    }

    // Writing.

    /// Stores `value` under `key`, whatever was there: a TTL of the old value does not go over to the new one.
    /// Their lengths have [limits](crate#limits).
    ///
    /// # Errors
    ///
    /// As [any write](crate#errors).
    #[inline]
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Version> {
        self.put_with(key, value, WriteOptions::new())
    }

    /// As [`Db::put`], with options for this write.
    ///
    /// # Errors
    ///
    /// As [any write](crate#errors).
    #[inline]
    pub fn put_with(&self, key: &[u8], value: &[u8], options: WriteOptions) -> Result<Version> {
        self.store().timed(Operation::Put, Some(key), |store| store.put(key, value, options))
    }

    /// Removes `key`. Answers whether it was there.
    ///
    /// # Errors
    ///
    /// As [any write](crate#errors).
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        self.delete_with(key, WriteOptions::new())
    }

    /// As [`Db::delete`], with options for this write; a TTL has no meaning here.
    ///
    /// # Errors
    ///
    /// As [any write](crate#errors).
    pub fn delete_with(&self, key: &[u8], options: WriteOptions) -> Result<bool> {
        let durability = options.durability;
        self.store().timed(Operation::Delete, Some(key), |store| store.delete(key, durability))
    }

    /// Writes all changes of `batch` or, should the machine go down, none of them. Readers may see
    /// the changes one after the other; snapshots ([`Db::iter`]) see all or none.
    ///
    /// Answers a version to wait for with [`Db::wait_durable`], or None if the batch is empty.
    ///
    /// # Errors
    ///
    /// As [any write](crate#errors).
    pub fn write(&self, batch: &Batch) -> Result<Option<Version>> {
        self.write_with(batch, WriteOptions::new())
    }

    /// As [`Db::write`], with options for this batch; a TTL belongs to the batch's own puts.
    ///
    /// # Errors
    ///
    /// As [any write](crate#errors).
    pub fn write_with(&self, batch: &Batch, options: WriteOptions) -> Result<Option<Version>> {
        let durability = options.durability;
        self.store().timed(Operation::Batch, None, |store| store.write(batch, durability))
    }

    /// Stores `value` if there is no value. Answers the version, or None if there was one.
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn put_if_absent(&self, key: &[u8], value: &[u8]) -> Result<Option<Version>> {
        self.put_if_absent_with(key, value, WriteOptions::new())
    }

    /// As [`Db::put_if_absent`], with options for this write.
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn put_if_absent_with(
        &self,
        key: &[u8],
        value: &[u8],
        options: WriteOptions,
    ) -> Result<Option<Version>> {
        let put = |store: &Store| store.put_if_absent(key, value, options);
        self.store().timed(Operation::Update, Some(key), put)
    }

    /// Replaces the value if it equals `expected`; None stands for "no value", on both sides.
    /// Answers whether it did. A TTL of the old value is not carried over.
    ///
    /// ```
    /// # fn main() -> caskade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = caskade::Db::open(dir.path().join("data"))?;
    /// assert!(db.compare_and_swap(b"lock", None, Some(b"mine"))?);
    /// assert!(!db.compare_and_swap(b"lock", None, Some(b"theirs"))?);
    /// assert!(db.compare_and_swap(b"lock", Some(b"mine"), None)?);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        self.compare_and_swap_with(key, expected, new, WriteOptions::new())
    }

    /// As [`Db::compare_and_swap`], with options for this write: a lease is renewed with a TTL.
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn compare_and_swap_with(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<bool> {
        let swap = |store: &Store| store.compare_and_swap(key, expected, new, options);
        self.store().timed(Operation::Update, Some(key), swap)
    }

    /// Stores `value` if the key's value still is the one of version `expected`. Answers the new
    /// version, or None if it is not. A TTL of the old value is not carried over.
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn put_if_version(
        &self,
        key: &[u8],
        value: &[u8],
        expected: Version,
    ) -> Result<Option<Version>> {
        self.put_if_version_with(key, value, expected, WriteOptions::new())
    }

    /// As [`Db::put_if_version`], with options for this write.
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn put_if_version_with(
        &self,
        key: &[u8],
        value: &[u8],
        expected: Version,
        options: WriteOptions,
    ) -> Result<Option<Version>> {
        let put = |store: &Store| store.put_if_version(key, value, expected, options);
        self.store().timed(Operation::Update, Some(key), put)
    }

    /// Replaces the value by what `change` makes of it; None stands for "no value", on both sides.
    ///
    /// `change` runs without a lock, and again if somebody else wrote meanwhile. A TTL of the old
    /// value is not carried over. Answers what `change` answered last.
    ///
    /// ```
    /// # fn main() -> caskade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = caskade::Db::open(dir.path().join("data"))?;
    /// db.update(b"log", |old| {
    ///     let mut lines = old.map(<[u8]>::to_vec).unwrap_or_default();
    ///     lines.extend_from_slice(b"line\n");
    ///     Some(lines)
    /// })?;
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn update(
        &self,
        key: &[u8],
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        self.update_with(key, WriteOptions::new(), change)
    }

    /// As [`Db::update`], with options for this write.
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn update_with(
        &self,
        key: &[u8],
        options: WriteOptions,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        loop {
            let old = self.get(key)?;
            let new = change(old.as_deref());
            let seen = old.map(|old| old.version());
            let replace = |store: &Store| store.replace_if_seen(key, seen, new.as_deref(), options);
            if self.store().timed(Operation::Update, Some(key), replace)? {
                return Ok(new);
            }
        }
    }

    /// Adds to a counter, an eight byte little-endian integer, and answers the sum: what is there
    /// afterwards, not what was there before, as an atomic integer's `fetch_add` would. A missing key
    /// counts as 0; the sum wraps around. A TTL of the counter is kept.
    ///
    /// # Errors
    ///
    /// [`Error::NotACounter`] if the value has not eight bytes; else as any read and
    /// [any write](crate#errors).
    pub fn fetch_add(&self, key: &[u8], delta: i64) -> Result<i64> {
        self.fetch_add_with(key, delta, WriteOptions::new())
    }

    /// As [`Db::fetch_add`], with options for this write. A TTL is for a counter that begins with it: one
    /// that is there keeps its own, so that "so many in a minute" is one call.
    ///
    /// ```
    /// # fn main() -> caskade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = caskade::Db::open(dir.path().join("data"))?;
    /// use std::time::Duration;
    ///
    /// let minute = caskade::WriteOptions::new().ttl(Duration::from_secs(60));
    /// assert_eq!(db.fetch_add_with(b"calls:ada", 1, minute)?, 1);
    /// assert_eq!(db.fetch_add_with(b"calls:ada", 1, minute)?, 2);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Db::fetch_add`].
    pub fn fetch_add_with(&self, key: &[u8], delta: i64, options: WriteOptions) -> Result<i64> {
        let add = |store: &Store| store.fetch_add(key, delta, options);
        self.store().timed(Operation::Update, Some(key), add)
    }

    // Expiry.

    /// Lets `key` expire after `ttl` from now. Answers whether it is there. This writes the record anew, with
    /// the store's durability: it costs as much as a put, and gives the value a new version.
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.store().timed(Operation::Update, Some(key), |store| store.set_expiry(key, Some(ttl)))
    }

    /// Lets `key` never expire. Answers whether it is there. As [`Db::expire`], this is a write.
    ///
    /// # Errors
    ///
    /// As any read and [any write](crate#errors).
    pub fn persist(&self, key: &[u8]) -> Result<bool> {
        self.store().timed(Operation::Update, Some(key), |store| store.set_expiry(key, None))
    }

    /// When `key` expires, or None if it is not there.
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors).
    pub fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.store().ttl(key)
    }

    // Reading.

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors).
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.store().get(key)
    }

    /// Copies the value of `key` into `out`, in place of what `out` held. Answers whether it is
    /// there; `out` is empty if it is not.
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors).
    #[inline]
    pub fn get_into(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        self.store().get_into(key, out)
    }

    /// The values of many keys, in their order. Cache misses of different keys overlap, which makes
    /// this several times faster than single gets. Small values are copied into memory that up to 16
    /// of them share: one that is kept for long keeps the others' bytes.
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors): one damaged record fails the call.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let mut values = vec![None; keys.len()];
        let mut copies = Copies::with_capacity(keys.len().min(GROUP));
        self.store().get_many(keys, |index, found| {
            let Some((found, shard, guard)) = found else { return Ok(()) };
            if copies.take(index, &found, shard.id) {
                copies.give(GROUP, &mut values);
            } else {
                let share = |found: Found<'_>| shard.share_segment(&found, guard);
                values[index] = Some(Value::new(found, shard.id, share)?);
            }
            Ok(())
        })?;
        copies.give(1, &mut values);
        Ok(values)
    }

    /// As [`Db::get_many`], without copies: calls `visit` with the index of each key and its value.
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors): a damaged record ends the call; keys before it were visited.
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.store().get_many(keys, |index, found| {
            match found {
                Some((found, ..)) => {
                    with_value(&found, |value| visit(index, Some(value)))?;
                }
                None => visit(index, None),
            }
            Ok(())
        })
    }

    /// Whether `key` has a value. Reads and verifies the record, as every read does.
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors).
    pub fn contains_key(&self, key: &[u8]) -> Result<bool> {
        Ok(self.value_len(key)?.is_some())
    }

    /// The length of the value of `key`. Reads and verifies the record, but copies nothing.
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors).
    pub fn value_len(&self, key: &[u8]) -> Result<Option<usize>> {
        self.store().value_len(key)
    }

    /// Number of keys, in constant time. Expired keys count until they are cleaned up.
    pub fn len(&self) -> u64 {
        self.store().shards.iter().map(caskade_shard::shard::Shard::len).sum()
    }

    /// Whether there is no key, nor an expired one that was not cleaned up yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // Iterating.

    /// All keys and values as of now, in no order. Writes, deletes and merges go on meanwhile and
    /// are not seen. Costs memory only for what changes while it lives.
    ///
    /// # Errors
    ///
    /// As [any call](crate#errors); the iterator itself answers errors record by record.
    #[expect(clippy::iter_not_returning_iterator, reason = "taking a snapshot can fail")]
    pub fn iter(&self) -> Result<Iter> {
        Iter::new(self.store())
    }

    /// All keys as of now, in no order.
    ///
    /// # Errors
    ///
    /// As [`Db::iter`].
    pub fn keys(&self) -> Result<Keys> {
        Ok(Keys::new(self.iter()?))
    }

    /// A page of about `count` keys and values, without a snapshot: it can be resumed at any time,
    /// by its cursor, even after the store was closed and opened again. A key that exists during
    /// the whole scan is seen exactly once.
    ///
    /// ```
    /// # fn main() -> caskade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = caskade::Db::open(dir.path().join("data"))?;
    /// # for i in 0..100_u32 { db.put(&i.to_le_bytes(), b"v")?; }
    /// let mut seen = 0;
    /// let mut cursor = Some(caskade::ScanCursor::start());
    /// while let Some(at) = cursor {
    ///     let page = db.scan(at, 10)?;
    ///     seen += page.entries.len();
    ///     cursor = page.next;
    /// }
    /// assert_eq!(seen, 100);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors).
    pub fn scan(&self, cursor: ScanCursor, count: usize) -> Result<ScanPage> {
        let page = |store: &Store| crate::iter::scan(store, cursor, count, Err);
        self.store().timed(Operation::Scan, None, page)
    }

    /// As [`Db::scan`], but goes on behind damaged records: `damaged` hears of each, as an
    /// [`Error::Corrupt`].
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors), but not for damage.
    pub fn scan_past_damage(
        &self,
        cursor: ScanCursor,
        count: usize,
        mut damaged: impl FnMut(Error),
    ) -> Result<ScanPage> {
        let hear = |error| {
            damaged(error);
            Ok(())
        };
        let page = |store: &Store| crate::iter::scan(store, cursor, count, hear);
        self.store().timed(Operation::Scan, None, page)
    }

    // Durability.

    /// Makes everything that was acknowledged so far durable.
    ///
    /// # Errors
    ///
    /// [`Error::Indeterminate`] if the disk failed, now or before; else as [any write](crate#errors).
    pub fn sync(&self) -> Result<()> {
        self.store().timed(Operation::Sync, None, |store| {
            store.check_writable()?;
            store.sync_all()
        })
    }

    /// Waits until the write of `version` is durable, and everything before it in its shard. The version
    /// is one that the store gave out since it was opened.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if no write of this store has this version; else as [`Db::sync`].
    pub fn wait_durable(&self, version: Version) -> Result<()> {
        let store = self.store();
        store.check_writable()?;
        let (shard, seqno) = version.parts();
        let exists =
            store.shards.get(usize::from(shard.0)).is_some_and(|s| s.last_seqno() >= seqno);
        if !exists {
            let reason = "no write of this store has this version".to_owned();
            return Err(Error::InvalidOption { name: "version", reason });
        }
        let wait = |store: &Store| store.committer.wait(&store.shards, &[(shard, seqno)]);
        store.timed(Operation::Sync, None, wait)
    }

    // Upkeep.

    /// Writes a copy of the store, as of now, into the directory `target`, which then opens as a
    /// store of its own. Sealed segments are hard-linked, so that this is quick and costs little
    /// space; `target` must lie on the same file system. If `target` holds an earlier checkpoint of
    /// this store, what did not change is kept. Reads and writes go on.
    ///
    /// The two share the blocks of what was linked: damage to one is damage to both. A backup is a copy
    /// of a checkpoint, elsewhere (`caskade restore`).
    ///
    /// # Errors
    ///
    /// [`Error::NotAStore`] if `target` holds other files or another store, or lies in the store's own
    /// directory, [`Error::Locked`] if
    /// somebody has it open or makes a checkpoint there, [`Error::Io`] if it lies on another file system
    /// or its parent does not exist. [`Error::Poisoned`] if an fsync in it fails, and from then on: the store
    /// itself goes on, but makes no checkpoints until it is opened again. Else as [any write](crate#errors).
    /// After an error that came while files were being linked (a disk that was full then, say), what is in
    /// `target` is no store, until a checkpoint is finished there.
    pub fn checkpoint(&self, target: impl AsRef<Path>) -> Result<CheckpointReport> {
        self.checkpoint_with(target, |_| true)
    }

    /// As [`Db::checkpoint`], and calls `progress` for each shard. Answering `false` stops with
    /// [`Error::Stopped`]; what is in `target` then is no store, until a checkpoint is finished there.
    /// `progress` does not close, compact or checkpoint the store: that would wait for itself.
    ///
    /// # Errors
    ///
    /// As [`Db::checkpoint`], and [`Error::Stopped`].
    pub fn checkpoint_with(
        &self,
        target: impl AsRef<Path>,
        progress: impl FnMut(CheckpointProgress) -> bool,
    ) -> Result<CheckpointReport> {
        checkpoint::checkpoint(self.store(), target.as_ref(), progress)
    }

    /// Merges each shard that has dead bytes, expired segments or many small files, now. Reads and
    /// writes go on.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a record is damaged: its segment is kept; else as
    /// [any write](crate#errors).
    pub fn compact(&self) -> Result<CompactReport> {
        self.compact_with(|_| true)
    }

    /// As [`Db::compact`], and calls `progress` now and then. Answering `false` stops with
    /// [`Error::Stopped`]: shards that are done stay merged, the others stay as they were. `progress`
    /// does not close, compact or checkpoint the store: that would wait for itself.
    ///
    /// # Errors
    ///
    /// As [`Db::compact`], [`Error::Stopped`], and [`Error::Closed`] if another thread closed the store.
    pub fn compact_with(
        &self,
        progress: impl FnMut(CompactProgress) -> bool,
    ) -> Result<CompactReport> {
        compact::compact(self.store(), progress)
    }

    /// Merges the sealed segments for whose shard and id `choose` answers true. For tests.
    #[doc(hidden)]
    pub fn merge_chosen(&self, mut choose: impl FnMut(u16, u64) -> bool) -> Result<CompactReport> {
        let store = self.store();
        store.check_writable()?;
        let mut report = CompactReport::default();
        for shard in &store.shards {
            let around = Around { store, shard: shard.id };
            let outcome = shard.merge_chosen(&around, &mut |id| choose(shard.id.0, id.0))?;
            report.add(&outcome);
        }
        Ok(report)
    }

    /// Reads every record and checks it. Reads and writes go on.
    ///
    /// `progress` is called now and then; answering `false` stops with [`Error::Stopped`].
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], and as [any call](crate#errors). Damage is no error: the report lists it.
    pub fn verify(&self, progress: impl FnMut(VerifyProgress) -> bool) -> Result<VerifyReport> {
        verify::verify(self.store(), progress)
    }

    /// Figures of each segment: how much of it lives.
    pub fn segment_stats(&self) -> Vec<SegmentStats> {
        self.store().shards.iter().flat_map(stats::segment_stats).collect()
    }

    /// Figures of the store and of each shard.
    pub fn stats(&self) -> Stats {
        Stats::gather(self.store())
    }

    /// What opening the store found and did.
    pub fn open_report(&self) -> &OpenReport {
        &self.store().report
    }

    /// The first failure after which nothing more can be written, if there was one.
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.store().ctx.poison.cause()
    }

    /// The directory of the store, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.store().ctx.path
    }

    /// A new view of a store that is open read-only, as of now.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if the store is open for writing; else as [opening](crate#errors).
    pub fn refresh(&self) -> Result<Self> {
        let options = self.store().options.clone();
        if !options.read_only {
            let reason = "a store open for writing is always up to date".to_owned();
            return Err(Error::InvalidOption { name: "read_only", reason });
        }
        options.open()
    }

    /// Does one piece of background work, where [`Background::Manual`] leaves it to the caller.
    /// Answers whether there was any.
    pub fn run_background(&self) -> bool {
        self.handle.maintenance.step()
    }

    /// Makes everything durable, writes what makes the next open fast, and closes the store for all
    /// handles. A compaction or checkpoint under way ends first: a compaction soon, with
    /// [`Error::Closed`]. Closing twice is fine: the second call answers at once, even if the first is still at work.
    ///
    /// Dropping the last handle does the same, except that nobody hears of errors.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`] if the disk failed before; else as [`Db::sync`]. The store is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }
}

impl Handle {
    fn close(&self) -> Result<()> {
        if !self.store.begin_closing() {
            return Ok(());
        }
        self.store.ctx.announce(Event::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let panicked = thread.is_some_and(has_panicked);
        let outcome = self.store.finish_closing();
        if panicked {
            return Err(self.store.ctx.poison.latch("the maintenance thread panicked"));
        }
        outcome
    }
}

/// Waits for the end of the maintenance thread.
fn has_panicked(thread: JoinHandle<()>) -> bool {
    if thread.thread().id() == std::thread::current().id() {
        // Its own hook closes the store. It ends with the step that it is in.
        return false;
    }
    // Its last work may be waiting for a thread of rayon's pool, which this one may be: it helps.
    while rayon::current_thread_index().is_some() && !thread.is_finished() {
        if rayon::yield_now() != Some(rayon::Yield::Executed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    thread.join().is_err()
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; what was acknowledged is safe without this.
        let _ = self.close();
    }
}
