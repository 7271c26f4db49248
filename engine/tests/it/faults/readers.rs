//! Readers beside a living writer.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskade::{Batch, Db, Durability, Error, RecoveryMode, WriteOptions};
use caskade_shard::storage::sim::SimDisk;
use caskade_shard::storage::{Access, Dir, DirEntry, File, LockFault, LockGuard, Storage};

use crate::rig::{Rig, contents, tiny};

/// A reader beside a writer that puts, in all ways, rotates and merges: each view is one that was,
/// and nothing that the writer was about to write counts as lost.
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
                if round % 7 == 0 {
                    let mut both = Batch::new();
                    (0..6_u8).for_each(|key| _ = both.put(&[key, 1], &round.to_le_bytes()));
                    db.write(&both).unwrap();
                }
                if round % 31 == 0 {
                    let durably = WriteOptions::new().durability(Durability::Sync);
                    db.put_with(b"s", b"durable", durably).unwrap();
                }
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
            let losses: Vec<_> = reader.open_report().losses().collect();
            assert!(losses.is_empty(), "{losses:?}");
            let both: Vec<_> = (0..6_u8).map(|key| reader.get(&[key, 1]).unwrap()).collect();
            assert!(both.iter().all(|value| *value == both[0]), "half a batch: {both:?}");
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

/// Storage in which something happens whenever certain files are about to be opened: once each.
struct Interrupted {
    inner: Arc<dyn Storage>,
    /// What their paths end in.
    files: &'static str,
    happenings: Mutex<VecDeque<Box<dyn FnOnce() + Send>>>,
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
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        self.inner.open_dir(path)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        if path.to_string_lossy().ends_with(self.files)
            && let Some(happening) = self.happenings.lock().unwrap().pop_front()
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
    let reader = rig
        .open_interrupted(".seg", [Box::new(happening) as _])
        .expect("a reader beside the writer");
    assert_eq!(reader.get(b"key").unwrap().unwrap(), [19; 100]);
}

impl Rig {
    /// Opens the store read-only while something happens to it.
    fn open_interrupted<const N: usize>(
        &self,
        files: &'static str,
        happenings: [Box<dyn FnOnce() + Send>; N],
    ) -> caskade::Result<Db> {
        let happenings = Mutex::new(VecDeque::from(happenings));
        let storage = Interrupted { inner: self.disk.storage(), files, happenings };
        self.builder.clone().read_only(true).storage(Arc::new(storage)).open()
    }
}

/// A store whose only segment is open, with four records of equal length, and that segment.
fn four_records() -> (Rig, PathBuf) {
    let mut rig = Rig::with(tiny(1).segment_bytes_min(4096));
    for key in 0..4_u8 {
        rig.put([key], [key; 35]);
    }
    let path = rig.files(0, ".seg").pop().expect("a segment");
    (rig, path)
}

const HEADER: u64 = 64;
/// 20 bytes of header, a key of 1, a value of 35.
const FRAME: u64 = 56;

/// A reader may meet the log's last record half written, and even, where it was held up in between,
/// a hole in front of records that came while it read. Neither is a loss, nor damage.
#[test]
fn what_is_half_written_at_the_first_look_is_not_lost() {
    for at in [3, 0] {
        let (mut rig, path) = four_records();
        let told = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&told);
        rig.builder = rig.builder.on_open_progress(move |now| {
            *heard.lock().unwrap() = Some(now);
            true
        });
        let place = HEADER + at * FRAME + 30;
        rig.disk.flip_bit(&path, place, 1).unwrap();
        let (disk, segment) = (rig.disk.clone(), path.clone());
        let writer_goes_on = move || disk.flip_bit(&segment, place, 1).unwrap();
        let reader = rig.open_interrupted(".seg", [Box::new(|| {}) as _, Box::new(writer_goes_on)]);
        let reader = reader.expect("opens");
        assert_eq!(reader.open_report().losses().count(), 0);
        assert_eq!(contents(&reader), rig.model);
        // Progress is that of the last look.
        let after_two = told.lock().unwrap().take().expect("progress");
        rig.try_open(|options| options.read_only(true)).expect("opens");
        assert_eq!(told.lock().unwrap().take(), Some(after_two));
    }
}

/// A log that ends elsewhere at each look is growing.
#[test]
fn a_log_that_ends_elsewhere_each_time_grows() {
    let (rig, path) = four_records();
    let flip = |record: u64| {
        let (disk, path) = (rig.disk.clone(), path.clone());
        move || disk.flip_bit(&path, HEADER + record * FRAME + 30, 1).unwrap()
    };
    flip(2)();
    let (mend, tear) = (flip(2), flip(3));
    let next = move || {
        mend();
        tear();
    };
    let reader =
        rig.open_interrupted(".seg", [Box::new(|| {}) as _, Box::new(next)]).expect("opens");
    assert_eq!(reader.open_report().losses().count(), 0);
    assert_eq!(contents(&reader).len(), 3);
}

/// A batch that was whole long ago stays whole for a reader that reads one shard's manifest before
/// a merge makes it known, and the other's after.
#[test]
fn a_merge_between_two_manifests_tears_no_batch() {
    let mut rig = Rig::with(tiny(2).segment_bytes_min(4096));
    let keys: Vec<String> = (0..8).map(|key| format!("{key}")).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (&key[..], "in a batch")).collect();
    rig.write(&pairs);
    for key in 0..16_u8 {
        rig.put([key], [key; 1000]);
    }
    rig.settle_down();
    let stats = rig.db().stats();
    assert!(stats.shards.iter().all(|shard| shard.sealed > 0) && stats.total.merges == 0);
    let end = |path: &PathBuf| {
        let bytes = rig.disk.read_file(path).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map(|place| place as u64)
    };
    let logs = rig.files(0, ".seg").into_iter().filter(|path| end(path) > Some(HEADER));
    let last = logs.max().expect("a log");
    let place = end(&last).expect("records");
    let flip = move |disk: &SimDisk| disk.flip_bit(&last, place, 1).unwrap();
    // A doubt at the first look, so that what only the second finds would go untold.
    flip(&rig.disk);
    let (db, disk) = (rig.db().clone(), rig.disk.clone());
    let writer_goes_on = move || {
        flip(&disk);
        db.merge_chosen(|shard, _| shard == 1).expect("merges");
    };
    // Each look opens it twice.
    let nothing = || Box::new(|| {}) as Box<dyn FnOnce() + Send>;
    let happenings = [nothing(), nothing(), Box::new(writer_goes_on) as _];
    let reader = rig.open_interrupted("shard-000/MANIFEST", happenings).expect("opens");
    assert_eq!(rig.db().stats().total.merges, 1, "it happened");
    assert_eq!(reader.open_report().losses().count(), 0);
    assert!(contents(&reader) == rig.model, "half a batch, or older values");
}

/// A writer at rest replaces the keydir snapshot, which then fits no manifest that was read before.
#[test]
fn a_snapshot_that_does_not_fit_is_looked_at_again() {
    let mut rig = Rig::with(tiny(1).snapshot_on_close(true));
    rig.put("key", "value");
    rig.close();
    let looks = Arc::new(AtomicUsize::new(0));
    let look = |then: Option<SimDisk>| {
        let looks = Arc::clone(&looks);
        Box::new(move || {
            looks.fetch_add(1, Ordering::Relaxed);
            let path = Rig::shard_dir(0).join("KEYDIR");
            if let Some(disk) = then {
                disk.flip_bit(&path, 100, 1).unwrap();
            }
        }) as Box<dyn FnOnce() + Send>
    };
    // The second look finds what the first did not.
    for (happenings, expected) in [
        ([look(None), look(None)], 1),
        ([look(Some(rig.disk.clone())), look(Some(rig.disk.clone()))], 2),
    ] {
        looks.store(0, Ordering::Relaxed);
        let reader = rig.open_interrupted("KEYDIR", happenings).expect("opens");
        assert!(reader.open_report().is_clean(), "{:?}", reader.open_report());
        assert_eq!(looks.load(Ordering::Relaxed), expected);
        assert!(contents(&reader) == rig.model);
    }
}

/// What an open for writing reports or refuses, a read-only one reports or refuses too: damage to
/// the open log at every byte, where nothing was known to be durable and where half of it was.
#[test]
fn a_read_only_open_tells_what_an_open_for_writing_tells() {
    let (rig, path) = four_records();
    assert_eq!(refusals_of_damage(rig, &path), HEADER, "only the header is more than a torn end");

    let (mut rig, first) = four_records();
    rig.seal();
    rig.put("a", [1; 35]);
    // Makes the log durable, and notes how far.
    rig.db().merge_chosen(|_, segment| segment == 1).expect("merges");
    rig.put("b", [2; 35]);
    let mut others = rig.files(0, ".seg").into_iter().filter(|path| *path != first);
    let path = others.find(|path| rig.disk.read_file(path).unwrap()[HEADER as usize] != 0);
    let refused = refusals_of_damage(rig, &path.expect("the log"));
    assert_eq!(refused, HEADER + FRAME);
}

/// Flips a bit of each byte of the log, and answers how many times a default open refused.
fn refusals_of_damage(mut rig: Rig, log: &Path) -> u64 {
    rig.kill();
    let mut refused = 0;
    let bytes = rig.disk.read_file(log).unwrap();
    let len = bytes.iter().rposition(|byte| *byte != 0).expect("records") as u64 + 1;
    for at in 0..len {
        let disk = rig.disk.fork();
        disk.flip_bit(log, at, (at % 8) as u32).unwrap();
        for mode in [RecoveryMode::Default, RecoveryMode::Strict, RecoveryMode::Salvage] {
            let options = rig.builder.clone().storage(disk.storage()).recovery_mode(mode);
            let reader = options.clone().read_only(true).open();
            let writer = options.storage(disk.fork().storage()).open();
            match (reader, writer) {
                (Ok(reader), Ok(writer)) => {
                    let losses = |db: &Db| db.open_report().losses().cloned().collect::<Vec<_>>();
                    assert_eq!(losses(&reader), losses(&writer), "byte {at}, {mode:?}");
                    assert_eq!(contents(&reader), contents(&writer), "byte {at}, {mode:?}");
                    let is_told = !losses(&reader).is_empty() || contents(&reader) == rig.model;
                    assert!(is_told, "byte {at}, {mode:?}");
                }
                (Err(reader), Err(writer)) => {
                    assert_eq!(reader.to_string(), writer.to_string());
                    refused += u64::from(mode == RecoveryMode::Default);
                }
                (reader, writer) => {
                    let errors = (reader.err(), writer.err());
                    panic!("byte {at}, {mode:?}: reading and writing answer {errors:?}");
                }
            }
        }
    }
    refused
}
