//! A store's directory with arbitrary bytes in any file: whatever is opened, read, verified and
//! repaired, nothing panics, and no key gets a value that it never had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use caskade::{Background, Batch, Builder, Db, Durability, RecoveryMode, WriteOptions};
use caskade_codec::record::{ALIGNMENT, Header};
use caskade_codec::{checksum, record, segment};
use caskade_shard::storage::EntryKind;
use caskade_shard::storage::sim::SimDisk;

use crate::alone::alone;
use crate::input::Input;

const HOME: &str = "/db";
const KEYS: u8 = 24;

/// More changes than these make no new kind of damage.
const CHANGES_MAX: usize = 12;

/// What every key of a store held at some time.
type History = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

struct Template {
    disk: SimDisk,
    files: Vec<PathBuf>,
    history: History,
}

fn options(disk: &SimDisk) -> Builder {
    Db::builder(HOME)
        .storage(disk.storage())
        .segment_bytes_max(4096)
        .segment_bytes_min(512)
        .journal_bytes(8 << 10)
        .background(Background::Manual)
}

/// Stores as they are found: closed; killed with open segments and a journal in use; with what a
/// merge left, and batches over shards.
fn templates() -> &'static [Template] {
    static TEMPLATES: OnceLock<Vec<Template>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        [(1, true, true), (1, false, false), (2, true, false), (3, false, true)]
            .map(|(shards, is_closed, is_merged)| template(shards, is_closed, is_merged))
            .into()
    })
}

fn template(shards: u16, is_closed: bool, is_merged: bool) -> Template {
    let disk = SimDisk::new(shards.into());
    disk.set_map_reserve(64 << 10);
    let db = options(&disk).shards(shards).open().expect("creates a store");
    let mut history = History::new();
    let durable = WriteOptions::new().durability(Durability::Sync);
    for round in 0..6_u8 {
        let mut batch = Batch::new();
        for key in 0..KEYS {
            let value = vec![round; usize::from(key) * 9];
            let key = vec![b'k', key];
            if (key[1] + round) % 7 == 0 {
                db.delete(&key).expect("deletes");
                continue;
            }
            if key[1].is_multiple_of(5) {
                batch.put(&key, &value);
            } else {
                db.put(&key, &value).expect("puts");
            }
            history.entry(key).or_default().insert(value);
        }
        db.write_with(&batch, durable).expect("writes");
        while db.run_background() {}
    }
    if is_merged {
        db.compact().expect("compacts");
    }
    if is_closed {
        db.close().expect("closes");
    } else {
        disk.kill();
    }
    drop(db);
    let mut files = Vec::new();
    list(&disk, Path::new(HOME), &mut files);
    Template { disk, files, history }
}

fn list(disk: &SimDisk, dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries = disk.list(dir).expect("lists");
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries {
        let path = dir.join(&entry.name);
        match entry.kind {
            EntryKind::Dir => list(disk, &path, files),
            _ => files.push(path),
        }
    }
}

/// The first byte picks a store, the others change its files.
pub fn directory(data: &[u8]) {
    alone(|| {
        let mut input = Input::new(data);
        let templates = templates();
        let template = &templates[usize::from(input.u8()) % templates.len()];
        let disk = template.disk.fork();
        let mut is_forged = false;
        for _ in 0..CHANGES_MAX {
            if input.is_empty() {
                break;
            }
            is_forged |= change(&disk, &template.files, &mut input);
        }
        // A record with a right checksum is the user's, whoever wrote it.
        let history = (!is_forged).then_some(&template.history);
        for mode in [RecoveryMode::Strict, RecoveryMode::Default, RecoveryMode::Salvage] {
            let disk = disk.fork();
            let readers = options(&disk).create(false).recovery_mode(mode).read_only(true).open();
            if let Ok(db) = readers {
                look(&db, history);
            }
            let disk = disk.fork();
            if let Ok(db) = options(&disk).create(false).recovery_mode(mode).open() {
                look(&db, history);
                live(&db, &disk, history);
            }
        }
    });
}

/// Changes one file, and answers whether it forged a checksum.
fn change(disk: &SimDisk, files: &[PathBuf], input: &mut Input<'_>) -> bool {
    let kind = input.u8();
    let path = &files[usize::from(input.u8()) % files.len()];
    // It may be gone by now.
    let Ok(mut bytes) = disk.read_file(path) else { return false };
    let at = usize::from(input.u16()) % (bytes.len() + 1);
    let mut is_forged = false;
    match kind % 10 {
        0 => bytes = input.short().to_vec(),
        1 => bytes.truncate(at),
        2 => bytes.extend_from_slice(input.short()),
        3 => {
            let with = input.short();
            let end = bytes.len().min(at + with.len());
            bytes[at..end].copy_from_slice(&with[..end - at]);
        }
        4 => {
            let len = usize::from(input.u16());
            let end = bytes.len().min(at + len);
            bytes[at..end].fill(0);
        }
        5 => {
            let other = &files[usize::from(input.u8()) % files.len()];
            let Ok(others) = disk.read_file(other) else { return false };
            disk.write_file(other, &bytes).expect("writes");
            bytes = others;
        }
        6 => {
            disk.remove_file(path).expect("removes");
            return false;
        }
        7 => {
            // A piece of the file goes elsewhere in it.
            let (from, len) = (usize::from(input.u16()), usize::from(input.u8()) * ALIGNMENT);
            let from = from % (bytes.len() + 1);
            let piece = bytes[from..bytes.len().min(from + len)].to_vec();
            let end = bytes.len().min(at + piece.len());
            bytes[at..end].copy_from_slice(&piece[..end - at]);
        }
        _ => {
            let with = input.short();
            let end = bytes.len().min(at + with.len());
            bytes[at..end].copy_from_slice(&with[..end - at]);
            mend(path, &mut bytes, at);
            is_forged = true;
        }
    }
    disk.write_file(path, &bytes).expect("writes");
    is_forged
}

/// Sets the checksums right that cover `at`, by the kind of the file.
fn mend(path: &Path, bytes: &mut [u8], at: usize) {
    match path.extension().and_then(|end| end.to_str()) {
        Some("seg") if at < segment::HEADER_LEN => seal(bytes, segment::HEADER_LEN - 4),
        Some("seg") => mend_frame(bytes, at),
        Some("hint") => {
            let Some((head, body)) = bytes.split_first_chunk_mut::<128>() else { return };
            head[120..124].copy_from_slice(&checksum::of(body).to_le_bytes());
            seal(bytes, 124);
        }
        _ => {
            // The files of two copies, of which each ends in its checksum; and whatever else.
            let copy_len = bytes.len() % 4096;
            for start in [0, bytes.len() - copy_len] {
                let end = bytes.len().min(start + copy_len);
                seal(&mut bytes[start..end], copy_len.saturating_sub(4));
            }
        }
    }
}

fn seal(bytes: &mut [u8], len: usize) {
    let crc = checksum::of(&bytes[..len.min(bytes.len())]);
    if let Some(place) = bytes.get_mut(len..len + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// The frame that holds `at`, as far as the lengths before it lead there.
fn mend_frame(bytes: &mut [u8], at: usize) {
    let Ok(header) = segment::Header::decode(bytes) else { return };
    let mut start = segment::HEADER_LEN;
    while let Some(head) = bytes.get(start..).and_then(<[u8]>::first_chunk) {
        let Ok(frame) = Header::decode(head) else { return };
        let end = start + frame.frame_len();
        if end > bytes.len() {
            return;
        }
        if at < end {
            let crc =
                checksum::extend(record::seed(header.salt, start as u64), &bytes[start + 4..end]);
            bytes[start..start + 4].copy_from_slice(&crc.to_le_bytes());
            return;
        }
        start = end;
    }
}

/// Reads everything in every way.
fn look(db: &Db, history: Option<&History>) {
    let check = |key: &[u8], value: &[u8]| {
        if let Some(history) = history {
            let was = history.get(key).is_some_and(|values| values.contains(value));
            assert!(was, "{} has a value that it never had", key.escape_ascii());
        }
    };
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|key| vec![b'k', key]).collect();
    for key in &keys {
        let value = db.get(key);
        if let Ok(Some(value)) = &value {
            check(key, value);
            assert_eq!(db.value_len(key).expect("a value that was read"), Some(value.len()));
        }
        let _ = db.ttl(key);
    }
    if let Ok(values) = db.get_many(&keys) {
        for (key, value) in keys.iter().zip(&values) {
            if let Some(value) = value {
                check(key, value);
            }
        }
    }
    if let Ok(iter) = db.iter() {
        for entry in iter.flatten() {
            check(&entry.key, &entry.value);
        }
    }
    if let Ok(keys) = db.keys() {
        let _ = keys.count();
    }
    let _ = db.verify(|_| true);
    let _ = (db.stats(), db.segment_stats(), db.len(), db.open_report());
}

/// A store that opened is a store: it takes writes, keeps them over a restart, and merges.
fn live(db: &Db, disk: &SimDisk, history: Option<&History>) {
    let written = db.put(b"new", b"value").and_then(|_| db.sync());
    while db.run_background() {}
    let _ = db.compact();
    if written.is_ok() && db.poisoned().is_none() {
        assert_eq!(db.get(b"new").expect("reads what it wrote").as_deref(), Some(&b"value"[..]));
        let closed = db.close().is_ok();
        disk.kill();
        // What was refused once may be refused again, but not what was closed well.
        match options(disk).create(false).recovery_mode(RecoveryMode::Salvage).open() {
            Ok(db) => {
                let value = db.get(b"new").expect("reads what it kept");
                assert_eq!(value.as_deref(), Some(&b"value"[..]));
                assert!(db.delete(b"new").expect("deletes"));
                look(&db, history);
            }
            Err(error) => assert!(!closed, "closed, and does not open again: {error}"),
        }
    }
}
