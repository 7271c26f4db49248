//! The contract of [`Storage`] and [`File`](super::File) as a suite that every implementation passes.

use std::any::Any;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    Access, EntryKind, LockFault, Map, MapMode, Storage, replace, replace_without_dir_sync,
};

/// A storage to be tested.
#[derive(Debug)]
pub struct Subject {
    /// The implementation.
    pub storage: Arc<dyn Storage>,
    /// An empty directory on it.
    pub dir: PathBuf,
    /// Kept until the test is over.
    pub keep: Box<dyn Any>,
}

impl Subject {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Arc<dyn super::File> {
        let file = self.storage.create(&self.path(name)).expect("create");
        file.write_all_at(bytes, 0).expect("write");
        file
    }

    fn get(&self, name: &str) -> Vec<u8> {
        contents(&*self.storage.open(&self.path(name), Access::Read).expect("open"))
    }

    fn names(&self) -> Vec<String> {
        let entries = self.storage.list_dir(&self.dir).expect("list");
        entries.into_iter().map(|entry| entry.name.into_string().expect("UTF-8")).collect()
    }
}

/// Runs the suite; each part gets a subject of its own from `make`.
///
/// # Panics
/// Where the implementation breaks the contract.
pub fn run(make: &dyn Fn() -> Subject) {
    let parts: [fn(&Subject); 12] = [
        directories,
        opening,
        reading_and_writing,
        lengths,
        allocation,
        maps,
        maps_and_handles_outlive_names,
        renaming,
        removing,
        hard_links,
        locking,
        clocks_and_entropy,
    ];
    for part in parts {
        part(&make());
    }
    replacing(&make());
}

fn directories(s: &Subject) {
    let sub = s.path("sub");
    s.storage.create_dir(&sub).unwrap();
    assert_kind(s.storage.create_dir(&sub), ErrorKind::AlreadyExists);
    assert_kind(s.storage.create_dir(&s.path("no/sub")), ErrorKind::NotFound);
    s.put("b", b"");
    s.put("a", b"");
    assert_kind(s.storage.create_dir(&s.path("a")), ErrorKind::AlreadyExists);
    assert_eq!(s.names(), ["a", "b", "sub"]);
    let kinds: Vec<_> = s.storage.list_dir(&s.dir).unwrap().iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EntryKind::File, EntryKind::File, EntryKind::Dir]);
    assert_eq!(s.storage.list_dir(&sub).unwrap(), []);
    assert_kind(s.storage.list_dir(&s.path("no")), ErrorKind::NotFound);
    assert_kind(s.storage.list_dir(&s.path("a")), ErrorKind::NotADirectory);
    s.storage.sync_dir(&s.dir).unwrap();
    assert_kind(s.storage.sync_dir(&s.path("no")), ErrorKind::NotFound);
    assert_kind(s.storage.sync_dir(&s.path("a")), ErrorKind::NotADirectory);
    s.storage.ensure_dir(&sub).unwrap();
    assert_kind(s.storage.ensure_dir(&s.path("no/sub")), ErrorKind::NotFound);
    s.storage.ensure_dir(&s.path("other")).unwrap();
    assert_eq!(s.names(), ["a", "b", "other", "sub"]);
}

fn opening(s: &Subject) {
    assert_kind(s.storage.open(&s.path("no"), Access::Read), ErrorKind::NotFound);
    assert_kind(s.storage.open(&s.path("no"), Access::ReadWrite), ErrorKind::NotFound);
    assert_eq!(s.names(), [""; 0], "open creates nothing");
    let first = s.put("file", b"one");
    assert_kind(s.storage.create(&s.path("file")), ErrorKind::AlreadyExists);
    assert_eq!(s.get("file"), b"one", "a refused create leaves the contents");
    assert_kind(s.storage.create(&s.path("no/file")), ErrorKind::NotFound);
    assert!(s.storage.open(&s.dir, Access::Read).is_err());
    assert!(s.storage.open(&s.dir, Access::ReadWrite).is_err());

    let second = s.storage.open(&s.path("file"), Access::ReadWrite).unwrap();
    second.write_all_at(b"two", 0).unwrap();
    assert_eq!(contents(&*first), b"two", "handles share the file");
    let reader = s.storage.open(&s.path("file"), Access::Read).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err());
    assert!(reader.set_len(0).is_err());
    assert!(reader.allocate(0, 10).is_err());
    assert!(reader.map(3, MapMode::Write).is_err());
    assert_eq!(contents(&*first), b"two");
    reader.sync_data().unwrap();
}

fn reading_and_writing(s: &Subject) {
    let file = s.put("file", b"hello");
    let mut out = [0; 3];
    file.read_exact_at(&mut out, 1).unwrap();
    assert_eq!(&out, b"ell");
    assert_kind(file.read_exact_at(&mut out, 3), ErrorKind::UnexpectedEof);
    assert_kind(file.read_exact_at(&mut out, 100), ErrorKind::UnexpectedEof);
    file.read_exact_at(&mut [], 5).unwrap();
    file.write_all_at(b"", 1000).unwrap();
    assert_eq!(file.len().unwrap(), 5, "an empty write extends nothing");
    file.write_all_at(b"J", 0).unwrap();
    file.write_all_at(b"end", 2000).unwrap();
    let mut expected = vec![0; 2003];
    expected[..5].copy_from_slice(b"Jello");
    expected[2000..].copy_from_slice(b"end");
    assert_eq!(contents(&*file), expected);
    assert!(file.write_all_at(b"x", u64::MAX).is_err());
    let large: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
    file.write_all_at(&large, 1).unwrap();
    assert_eq!(contents(&*file)[1..], large);
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    assert_eq!(contents(&*file)[1..], large);
}

fn lengths(s: &Subject) {
    let file = s.put("file", &[7; 3000]);
    file.set_len(1000).unwrap();
    assert_eq!(contents(&*file), [7; 1000]);
    file.set_len(2000).unwrap();
    let mut expected = vec![7; 1000];
    expected.resize(2000, 0);
    assert_eq!(contents(&*file), expected, "what was cut off does not come back");
    file.set_len(0).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    file.set_len(1 << 30).unwrap();
    let mut out = [1; 10];
    file.read_exact_at(&mut out, (1 << 30) - 10).unwrap();
    assert_eq!(out, [0; 10]);
}

fn allocation(s: &Subject) {
    let file = s.put("file", b"data");
    match file.allocate(0, 5000) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(contents(&*file), b"data");
            return;
        }
        Ok(()) => assert_eq!(file.len().unwrap(), 5000),
    }
    let mut expected = b"data".to_vec();
    expected.resize(5000, 0);
    assert_eq!(contents(&*file), expected);
    file.allocate(0, 100).unwrap();
    file.allocate(9000, 0).unwrap();
    assert_eq!(file.len().unwrap(), 5000, "allocation never shrinks, and of nothing is nothing");
    file.allocate(6000, 1000).unwrap();
    assert_eq!(file.len().unwrap(), 7000);
}

fn maps(s: &Subject) {
    let file = s.put("file", b"0123456789");
    let other = s.storage.open(&s.path("file"), Access::Read).unwrap();
    // Longer than the file: the rest is for when it has grown.
    let writer = file.map(20_000, MapMode::Write).unwrap();
    let reader = other.map(10, MapMode::Read).unwrap();
    assert_eq!((writer.len(), reader.len()), (20_000, 10));
    assert_eq!((writer.mode(), reader.mode()), (MapMode::Write, MapMode::Read));
    assert!(writer.as_ptr().addr().is_multiple_of(64));
    store(&writer, 2, b"AB");
    assert_eq!(load(&reader, 0, 10), b"01AB456789", "maps share the bytes");
    assert_eq!(contents(&*other), b"01AB456789", "reads see stores");
    file.write_all_at(b"CD", 4).unwrap();
    assert_eq!(load(&reader, 0, 10), b"01ABCD6789", "maps see writes");
    file.write_all_at(&[0; 12_000], 10).unwrap();
    store(&writer, 12_000, b"far");
    let mut out = [0; 3];
    other.read_exact_at(&mut out, 12_000).unwrap();
    assert_eq!(&out, b"far");
    assert_eq!(file.len().unwrap(), 12_010, "maps do not lengthen the file");
    writer.advise(super::Advice::Random);
    writer.will_need(0, 12_010);
    writer.will_need(100_000, 5);
    writer.populate_write(0, 12_010);
    writer.populate_write(100_000, 5);
    file.sync_data().unwrap();
    assert!(file.map(0, MapMode::Read).unwrap().is_empty());
    assert_eq!(load(&reader, 10, 0), b"");
    let outside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| load(&reader, 8, 3)));
    assert!(outside.is_err(), "a range beyond the map is refused");
}

fn maps_and_handles_outlive_names(s: &Subject) {
    let file = s.put("file", b"old!");
    let map = file.map(4, MapMode::Write).unwrap();
    s.storage.remove(&s.path("file")).unwrap();
    s.put("file", b"new");
    assert_eq!(contents(&*file), b"old!");
    store(&map, 0, b"OLD");
    assert_eq!(contents(&*file), b"OLD!");
    file.sync_data().unwrap();
    drop(file);
    assert_eq!(load(&map, 0, 4), b"OLD!");
    assert_eq!(s.get("file"), b"new");
}

fn renaming(s: &Subject) {
    let a = s.put("a", b"A");
    let b = s.put("b", b"B");
    s.storage.rename(&s.path("a"), &s.path("b")).unwrap();
    assert_eq!(s.names(), ["b"]);
    assert_eq!(s.get("b"), b"A");
    assert_eq!((contents(&*a), contents(&*b)), (b"A".to_vec(), b"B".to_vec()));
    assert_kind(s.storage.rename(&s.path("a"), &s.path("c")), ErrorKind::NotFound);
    s.storage.create_dir(&s.path("sub")).unwrap();
    assert!(s.storage.rename(&s.path("b"), &s.path("sub")).is_err());
    s.storage.rename(&s.path("b"), &s.path("sub/c")).unwrap();
    s.storage.rename(&s.path("sub"), &s.path("moved")).unwrap();
    assert_eq!(s.get("moved/c"), b"A");
    assert_eq!(s.names(), ["moved"]);
}

fn removing(s: &Subject) {
    s.put("file", b"x");
    s.storage.create_dir(&s.path("sub")).unwrap();
    s.storage.remove(&s.path("file")).unwrap();
    assert_kind(s.storage.remove(&s.path("file")), ErrorKind::NotFound);
    assert!(s.storage.remove(&s.path("sub")).is_err());
    assert_eq!(s.names(), ["sub"]);
}

fn hard_links(s: &Subject) {
    let file = s.put("a", b"shared");
    s.put("taken", b"");
    s.storage.hard_link(&s.path("a"), &s.path("b")).unwrap();
    file.write_all_at(b"S", 0).unwrap();
    assert_eq!(s.get("b"), b"Shared");
    assert_kind(s.storage.hard_link(&s.path("a"), &s.path("taken")), ErrorKind::AlreadyExists);
    assert_kind(s.storage.hard_link(&s.path("no"), &s.path("c")), ErrorKind::NotFound);
    assert!(s.storage.hard_link(&s.dir, &s.path("c")).is_err());
    s.storage.rename(&s.path("a"), &s.path("b")).unwrap();
    assert_eq!(s.names(), ["a", "b", "taken"], "a rename onto itself changes nothing");
    s.storage.remove(&s.path("a")).unwrap();
    assert_eq!(s.get("b"), b"Shared");
}

fn locking(s: &Subject) {
    let path = s.path("LOCK");
    let guard = s.storage.lock(&path).expect("free");
    assert_eq!(s.names(), ["LOCK"]);
    match s.storage.lock(&path) {
        Err(LockFault::Held { pid }) => assert!(pid.is_some(), "the holder is named"),
        other => panic!("the lock was given twice: {other:?}"),
    }
    // A refused attempt takes nothing away from the holder.
    assert!(matches!(s.storage.lock(&path), Err(LockFault::Held { .. })));
    let other = s.storage.lock(&s.path("OTHER")).expect("another lock");
    drop(guard);
    assert_eq!(s.names(), ["LOCK", "OTHER"], "lock files stay");
    let again = s.storage.lock(&path).expect("free again");
    drop((again, other));
    match s.storage.lock(&s.path("no/LOCK")) {
        Err(LockFault::Io(error)) => assert_eq!(error.kind(), ErrorKind::NotFound),
        other => panic!("a lock without a file: {other:?}"),
    }
}

fn clocks_and_entropy(s: &Subject) {
    let (wall, monotonic) = (s.storage.wall_ms(), s.storage.monotonic());
    assert!(wall > 1_600_000_000_000);
    assert!(s.storage.monotonic() >= monotonic);
    let mut bytes = [[0; 37]; 2];
    s.storage.entropy(&mut bytes[0]).unwrap();
    s.storage.entropy(&mut bytes[1]).unwrap();
    assert_ne!(bytes[0], bytes[1]);
    assert_ne!(bytes[0][32..], [0; 5], "all of it is filled");
    s.storage.entropy(&mut []).unwrap();
}

fn replacing(s: &Subject) {
    replace(&*s.storage, &s.dir, "META", b"first").unwrap();
    assert_eq!(s.get("META"), b"first");
    // What an earlier life left unfinished is in nobody's way.
    s.put("META.tmp", b"rubbish that is longer");
    replace(&*s.storage, &s.dir, "META", b"second").unwrap();
    assert_eq!(s.get("META"), b"second");
    replace_without_dir_sync(&*s.storage, &s.dir, "META", b"").unwrap();
    assert_eq!(s.get("META"), b"");
    assert_eq!(s.names(), ["META"]);
    assert!(replace(&*s.storage, Path::new("no-such-directory"), "META", b"x").is_err());
}

fn contents(file: &dyn super::File) -> Vec<u8> {
    let mut out = vec![0; file.len().expect("length") as usize];
    file.read_exact_at(&mut out, 0).expect("read");
    out
}

/// Copies bytes out of a map. The suite is single-threaded and stays inside the files.
fn load(map: &Map, offset: u64, len: usize) -> Vec<u8> {
    map.copy_for_tests(offset, len)
}

fn store(map: &Map, offset: u64, bytes: &[u8]) {
    map.store_for_tests(offset, bytes);
}

fn assert_kind<T: std::fmt::Debug>(answer: std::io::Result<T>, kind: ErrorKind) {
    assert_eq!(answer.expect_err("it must fail").kind(), kind);
}

#[cfg(test)]
mod tests {
    use super::super::RealStorage;
    use super::super::sim::SimDisk;
    use super::*;

    #[test]
    fn the_real_storage_keeps_the_contract() {
        run(&|| {
            let dir = tempfile::tempdir().unwrap();
            Subject {
                storage: Arc::new(RealStorage::new()),
                dir: dir.path().to_path_buf(),
                keep: Box::new(dir),
            }
        });
    }

    #[test]
    fn the_simulator_keeps_the_contract() {
        run(&|| {
            let disk = SimDisk::new(1);
            let storage = disk.storage();
            storage.create_dir(Path::new("/dir")).unwrap();
            Subject { storage, dir: "/dir".into(), keep: Box::new(disk) }
        });
    }
}
