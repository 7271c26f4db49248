//! `restore`: a new store from a backup, on any file system.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use caskade_codec::names::{self, FileName, StoreName};
use serde_json::json;

use super::beside::{self, Draft};
use super::open_to_read;
use super::upkeep::{check_every_record, places_are};
use crate::args::RestoreArgs;
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::Progress;
use crate::units;

/// Bytes copied between two looks at Ctrl-C.
const STRETCH: usize = 1 << 20;

/// Copies the files of a backup, checks them, and shows the new store only then.
pub(crate) fn restore(args: &RestoreArgs) -> Outcome {
    // Says what is wrong with a backup that does not open, before anything is copied.
    open_to_read(&args.backup)?.close()?;
    beside::refuse_existing(&args.target)?;
    beside::refuse_inside(&args.backup, &args.target)?;
    let draft = beside::sibling(&args.target, ".restoring");
    beside::remove_leftover(&draft)?;
    let draft = Draft::new(draft)?;
    let held = keep_writers_away(&args.backup)?;
    let bytes = copy_files(&args.backup, &draft.path)?;
    drop(held);
    let db = open_to_read(&draft.path)?;
    let keys = db.len();
    if !args.no_verify {
        let report = check_every_record(&db)?;
        if !report.is_clean() {
            let backup = args.backup.display();
            return Err(Fault::Damaged(format!(
                "{} damaged in the backup {backup}; nothing was restored. `caskade verify {backup}` \
                 lists the damage, `caskade repair {backup} --into {}` saves the rest",
                places_are(report.damage.len()),
                args.target.display(),
            )));
        }
    }
    db.close()?;
    draft.rename(&args.target)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({ "keys": keys, "bytes": bytes }))?;
    } else {
        let (keys, bytes) = (units::number_of(keys, "key"), units::bytes(bytes));
        let checked = if args.no_verify { "" } else { ", every record checked" };
        writeln!(out, "{keys}, {bytes} in {}{checked}", args.target.display())?;
    }
    Ok(())
}

/// Copies what belongs to a store that nobody writes to, durably. The file that makes the folder a
/// store comes last. Answers the bytes.
pub(super) fn copy_files(from: &Path, to: &Path) -> Outcome<u64> {
    let files = files_of(from)?;
    let mut total = 0;
    for file in &files {
        let path = from.join(file);
        total +=
            fs::metadata(&path).map_err(|source| Fault::system("measure", &path, source))?.len();
    }
    let progress = Progress::of_bytes("copying");
    let mut done = 0;
    make_dir(to)?;
    for file in &files {
        let target = to.join(file);
        if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let dir = to.join(dir);
            if !dir.exists() {
                make_dir(&dir)?;
            }
        }
        copy_file(&from.join(file), &target, |bytes| {
            done += bytes;
            progress.set(done, total);
        })?;
    }
    for entry in beside::list(to)? {
        if entry.is_dir() {
            beside::sync_dir(&entry)?;
        }
    }
    beside::sync_dir(to)?;
    Ok(done)
}

/// Fails if somebody writes to the store. Holds no lock file open where there is none, since a
/// backup may lie where nothing can be written.
pub(super) fn keep_writers_away(store: &Path) -> Outcome<Option<File>> {
    let path = store.join(names::LOCK);
    let Ok(file) = File::open(&path) else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => {
            // The holder writes its number there, for messages.
            let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            Err(caskade::Error::Locked { path: store.to_owned(), pid }.into())
        }
        Err(fs::TryLockError::Error(source)) => Err(Fault::system("lock", &path, source)),
    }
}

/// The files of a store by their names in it, `STORE` last.
fn files_of(store: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in beside::list(store)? {
        let name = path.file_name().unwrap_or_default();
        match StoreName::parse(name) {
            StoreName::Journal(_) => files.push(PathBuf::from(name)),
            StoreName::Shard(_) => {
                for file in beside::list(&path)? {
                    let own = file.file_name().unwrap_or_default();
                    if !matches!(FileName::parse(own), FileName::Unknown | FileName::Temporary) {
                        files.push(Path::new(name).join(own));
                    }
                }
            }
            _ => {}
        }
    }
    files.sort();
    files.push(names::STORE.into());
    Ok(files)
}

fn make_dir(dir: &Path) -> Outcome {
    // For their owner alone, as the library makes them.
    let made = fs::DirBuilder::new().mode(0o700).create(dir);
    made.map_err(|source| Fault::system("create the directory", dir, source))
}

fn copy_file(from: &Path, to: &Path, mut tell: impl FnMut(u64)) -> Outcome {
    let mut source = File::open(from).map_err(|source| Fault::system("open", from, source))?;
    let target = File::options().write(true).create_new(true).mode(0o600).open(to);
    let mut target = target.map_err(|source| Fault::system("create", to, source))?;
    let mut buffer = vec![0; STRETCH];
    loop {
        interrupt::check()?;
        let len = source.read(&mut buffer).map_err(|source| Fault::system("read", from, source))?;
        if len == 0 {
            break;
        }
        target.write_all(&buffer[..len]).map_err(|source| Fault::system("write", to, source))?;
        tell(len as u64);
    }
    target.sync_all().map_err(|source| Fault::system("sync", to, source))
}
