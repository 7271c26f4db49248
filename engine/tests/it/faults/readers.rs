//! Readers beside a living writer.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskade::{Db, Error};
use caskade_shard::storage::{Access, DirEntry, File, LockFault, LockGuard, Storage};

use crate::rig::Rig;

/// A reader beside a writer that puts, rotates and merges: each view is one that was.
#[test]
fn readers_beside_a_writer_see_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("db");
    let options = || Db::builder(&home).shards(2).segment_bytes_max(4096).segment_bytes_min(512);
    let db = options().open().unwrap();
    db.put(b"a", &0_u64.to_le_bytes()).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..4000_u64 {
                db.put(b"a", &round.to_le_bytes()).unwrap();
                db.put(&[round as u8, 0], &[1; 60]).unwrap();
                if round % 500 == 0 {
                    db.compact().unwrap();
                }
            }
        });
        let mut reader = options().read_only(true).open().unwrap();
        let mut last = 0;
        let mut rounds = 0;
        while !writer.is_finished() || rounds == 0 {
            let value = reader.get(b"a").unwrap().expect("it was always there");
            let value = u64::from_le_bytes(value[..].try_into().unwrap());
            assert!(value >= last, "{value} after {last}");
            // A view does not change.
            assert!(reader.iter().unwrap().all(|entry| entry.is_ok()));
            last = value;
            let before = db.get(b"a").unwrap().unwrap();
            let before = u64::from_le_bytes(before[..].try_into().unwrap());
            reader = reader.refresh().expect("a fresh view");
            let now = reader.get(b"a").unwrap().unwrap();
            assert!(u64::from_le_bytes(now[..].try_into().unwrap()) >= before, "an old view");
            rounds += 1;
        }
    });
    assert!(matches!(db.refresh(), Err(Error::InvalidOption { .. })));
}

/// Storage in which something happens once, when the first segment is about to be opened.
struct Interrupted {
    inner: Arc<dyn Storage>,
    happening: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Storage for Interrupted {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }
    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        if path.extension().is_some_and(|end| end == "seg")
            && let Some(happening) = self.happening.lock().unwrap().take()
        {
            happening();
        }
        self.inner.open(path, access)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.hard_link(from, to)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockFault> {
        self.inner.lock(path)
    }
    fn wall_ms(&self) -> u64 {
        self.inner.wall_ms()
    }
    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }
    fn entropy(&self, out: &mut [u8]) -> io::Result<()> {
        self.inner.entropy(out)
    }
}

/// The manifest that a reader began with lists segments as open that a merge has removed by the time
/// it looks for them. That they are not there does not mean that they were never written.
#[test]
fn a_reader_that_a_merge_overtakes_begins_anew() {
    let mut rig = Rig::new();
    for round in 0..20_u8 {
        rig.put(b"key", [round; 100]);
    }
    let db = rig.db().clone();
    let happening = move || {
        db.compact().expect("compacts");
    };
    let storage =
        Interrupted { inner: rig.disk.storage(), happening: Mutex::new(Some(Box::new(happening))) };
    let builder = rig.builder.clone().read_only(true).storage(Arc::new(storage));
    let reader = builder.open().expect("a reader beside the writer");
    assert_eq!(reader.get(b"key").unwrap().unwrap(), [19; 100]);
}
