//! Paths as in a file system, on a store that knows no order: put, get, list, delete a subtree.
//!
//! A folder's names are kept in records of their own, so that listing reads a few records and looks
//! at nothing else. They change in one batch with what they name: a crash leaves no name without a
//! file, and no file without a name.
//!
//! `cargo run --release -p caskade --example file_tree`

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caskade::{Batch, Db, Result};

/// Records that share a folder's names, so that adding one to a folder of thousands stays cheap.
const BUCKETS: u8 = 16;

/// A tree of files. Folders come with their first file and go with their last.
struct Tree {
    db: Db,
    /// Reading names and writing them back is one step: writers take turns.
    turn: Mutex<()>,
}

impl Tree {
    fn new(db: Db) -> Self {
        Self { db, turn: Mutex::new(()) }
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a file, as `docs/2026/plan.txt`, and names it and its folders where they are new.
    fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let _turn = self.turn();
        let mut batch = Batch::new();
        batch.put(&file_key(path), bytes);
        let mut child = path;
        loop {
            let (folder, name) = split(child);
            let mut names = self.names(folder, bucket_of(name))?;
            if !names.insert(name.to_owned()) {
                // It was known, so that its folders are.
                break;
            }
            batch.put(&names_key(folder, bucket_of(name)), joined(&names).as_bytes());
            if folder.is_empty() {
                break;
            }
            child = folder;
        }
        self.db.write(&batch)?;
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get(&file_key(path))?.map(Vec::from))
    }

    /// The names in a folder, in order. The root is the empty path.
    fn list(&self, folder: &str) -> Result<BTreeSet<String>> {
        let keys: Vec<_> = (0..BUCKETS).map(|bucket| names_key(folder, bucket)).collect();
        let records = self.db.get_many(&keys)?;
        Ok(records.iter().flatten().flat_map(|record| parsed(record)).collect())
    }

    /// Deletes a file, or a folder with all that is in it, at once. Answers how many files went.
    fn remove(&self, path: &str) -> Result<u64> {
        let _turn = self.turn();
        let mut batch = Batch::new();
        let mut files = 0;
        let mut left = vec![path.to_owned()];
        while let Some(path) = left.pop() {
            if self.db.contains_key(&file_key(&path))? {
                batch.delete(&file_key(&path));
                files += 1;
            }
            for name in self.list(&path)? {
                left.push(if path.is_empty() { name } else { format!("{path}/{name}") });
            }
            for bucket in 0..BUCKETS {
                batch.delete(&names_key(&path, bucket));
            }
        }
        self.forget(path, &mut batch)?;
        self.db.write(&batch)?;
        Ok(files)
    }

    /// Takes a name out of its folder, and the folder out of its own if nothing else is in it.
    fn forget(&self, path: &str, batch: &mut Batch) -> Result<()> {
        let mut child = path;
        loop {
            let (folder, name) = split(child);
            let bucket = bucket_of(name);
            let mut names = self.names(folder, bucket)?;
            let was_last = self.list(folder)?.len() == 1;
            if !names.remove(name) {
                return Ok(());
            }
            if names.is_empty() {
                batch.delete(&names_key(folder, bucket));
            } else {
                batch.put(&names_key(folder, bucket), joined(&names).as_bytes());
            }
            // A path may be a file and a folder at once; then it keeps its name.
            if !was_last || folder.is_empty() || self.db.contains_key(&file_key(folder))? {
                return Ok(());
            }
            child = folder;
        }
    }

    fn names(&self, folder: &str, bucket: u8) -> Result<BTreeSet<String>> {
        let record = self.db.get(&names_key(folder, bucket))?;
        Ok(record.map(|record| parsed(&record)).unwrap_or_default())
    }
}

fn file_key(path: &str) -> Vec<u8> {
    [b"f", path.as_bytes()].concat()
}

fn names_key(folder: &str, bucket: u8) -> Vec<u8> {
    [&[b'n', bucket], folder.as_bytes()].concat()
}

/// The folder, empty for the root, and the name in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The same for a name as long as the store lives, so that it must not come from `HashMap`'s hasher.
fn bucket_of(name: &str) -> u8 {
    name.bytes().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)) % BUCKETS
}

/// Names hold no slash, so that it can stand between them.
fn joined(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join("/")
}

fn parsed(record: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(record).split('/').map(str::to_owned).collect()
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let tree = Tree::new(Db::open(folder.path().join("tree"))?);
    tree.put("readme.txt", b"hello")?;
    tree.put("docs/2025/plan.txt", b"old")?;
    for month in 1..=12 {
        tree.put(&format!("docs/2026/{month:02}.txt"), format!("month {month}").as_bytes())?;
    }
    println!("/            {:?}", tree.list("")?);
    println!("docs         {:?}", tree.list("docs")?);
    println!("docs/2026    {} names", tree.list("docs/2026")?.len());
    assert_eq!(tree.get("docs/2026/03.txt")?.as_deref(), Some(b"month 3".as_slice()));
    assert_eq!(tree.list("docs/2026")?.first().map(String::as_str), Some("01.txt"));

    assert_eq!(tree.remove("docs/2026")?, 12);
    assert_eq!(tree.list("docs")?, BTreeSet::from(["2025".to_owned()]));
    assert_eq!(tree.get("docs/2026/03.txt")?, None);
    assert_eq!(tree.remove("docs/2025/plan.txt")?, 1);
    assert_eq!(tree.list("")?, BTreeSet::from(["readme.txt".to_owned()]), "empty folders go");
    assert_eq!(tree.remove("docs")?, 0);
    println!("after removing docs: {:?}", tree.list("")?);

    assert_eq!(tree.remove("")?, 1, "the root has all the rest in it");
    assert!(tree.db.is_empty(), "nothing is left behind");
    tree.db.close()
}
