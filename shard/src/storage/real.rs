//! [`Storage`] on the operating system.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memmap2::MmapOptions;
use rustix::fs::{FallocateFlags, FlockOperation, FsWord, OFlags};
use rustix::io::Errno;

use super::{Access, Dir, DirEntry, EntryKind, File, LockFault, LockGuard, Map, MapMode, Storage};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How often a lock is tried whose file is not the one of that name any more.
const LOCK_TRIES: u32 = 100;

/// The lock file holds a pid in decimal; whatever is longer was not written by a store.
const PID_TEXT_MAX: usize = 20;

/// The file system and the clocks of this machine.
#[derive(Debug)]
pub struct RealStorage {
    start: Instant,
}

impl RealStorage {
    /// Its monotonic clock starts at 0 here.
    #[must_use]
    pub fn new() -> RealStorage {
        RealStorage { start: Instant::now() }
    }
}

impl Default for RealStorage {
    fn default() -> RealStorage {
        RealStorage::new()
    }
}

impl Storage for RealStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(DIR_MODE).create(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in open_dir(or_current_dir(path))? {
            let entry = entry?;
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => EntryKind::File,
                Ok(kind) if kind.is_dir() => EntryKind::Dir,
                Ok(_) => EntryKind::Other,
                // It vanished between the two calls.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirEntry { name: entry.file_name(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        let flags = OFlags::DIRECTORY.bits().cast_signed();
        let dir =
            fs::OpenOptions::new().read(true).custom_flags(flags).open(or_current_dir(path))?;
        Ok(Box::new(RealDir(dir)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        // NONBLOCK only keeps the open of a FIFO from waiting; on a regular file it does nothing.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let file = fs::OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(flags)
            .open(path)?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(Errno::ISDIR.into());
        }
        if !kind.is_file() {
            return Err(Errno::INVAL.into());
        }
        Ok(Arc::new(RealFile { file, access, direct: OnceLock::new() }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        Ok(Arc::new(RealFile { file, access: Access::ReadWrite, direct: OnceLock::new() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockFault> {
        let mut tries = 0;
        let file = loop {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(FILE_MODE)
                .custom_flags(
                    (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed(),
                )
                .open(path)?;
            // flock belongs to this open file description: a second one conflicts, in this process too.
            match retry(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(LockFault::Held { pid: read_pid(&file) }),
                Err(errno) => return Err(LockFault::Io(errno.into())),
            }
            // Whoever held it may have put another directory in the place of this one.
            if is_at(&file, path)? {
                break file;
            }
            tries += 1;
            if tries == LOCK_TRIES {
                return Err(LockFault::Io(Errno::AGAIN.into()));
            }
        };
        // The pid only serves messages: a full disk must not keep a store from opening.
        let _ = write_pid(&file);
        Ok(Box::new(RealLock { file }))
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn entropy(&self, out: &mut [u8]) -> io::Result<()> {
        let flags = rustix::rand::GetRandomFlags::empty();
        Ok(fill(out, |rest| rustix::rand::getrandom(rest, flags))?)
    }
}

/// Holds the lock by holding the file open; the kernel lets go of it with the last descriptor.
#[derive(Debug)]
struct RealLock {
    file: fs::File,
}

impl LockGuard for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // A child that was just born has the file open too, until it runs its own program.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

#[derive(Debug)]
struct RealDir(fs::File);

impl Dir for RealDir {
    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
    access: Access,
    /// Set if writes go around the page cache.
    direct: OnceLock<Mutex<Direct>>,
}

/// Where bytes are put in order for writes around the page cache, which take aligned memory only.
#[derive(Debug, Default)]
struct Direct {
    buffer: Vec<u8>,
    /// The device wants more than was promised.
    is_refused: bool,
}

impl Direct {
    /// What the memory of such writes is aligned to: enough for every device.
    const ALIGNMENT: usize = 4096;

    fn write_all_at(&mut self, file: &fs::File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.is_refused {
            match file.write_all_at(self.aligned(bytes), offset) {
                Err(fault) if fault.kind() == ErrorKind::InvalidInput => {}
                answer => return answer,
            }
            self.is_refused = true;
            let flags = rustix::fs::fcntl_getfl(file)?;
            rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?;
        }
        file.write_all_at(bytes, offset)
    }

    fn aligned(&mut self, bytes: &[u8]) -> &[u8] {
        self.buffer.clear();
        self.buffer.reserve(bytes.len() + Self::ALIGNMENT);
        let start = self.buffer.as_ptr().align_offset(Self::ALIGNMENT);
        self.buffer.resize(start, 0);
        // No more than was reserved, so that it stays where it is.
        self.buffer.extend_from_slice(bytes);
        &self.buffer[start..]
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.direct.get() {
            None => self.file.write_all_at(bytes, offset),
            Some(direct) => {
                let mut direct = direct.lock().unwrap_or_else(PoisonError::into_inner);
                direct.write_all_at(&self.file, bytes, offset)
            }
        }
    }

    fn expect_synced_blocks(&self) {
        let flags = rustix::fs::fcntl_getfl(&self.file);
        if flags
            .is_ok_and(|flags| rustix::fs::fcntl_setfl(&self.file, flags | OFlags::DIRECT).is_ok())
        {
            self.direct.get_or_init(Mutex::default);
        }
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        if is_copied_on_write(rustix::fs::fstatfs(&self.file)?.f_type) {
            return Err(ErrorKind::Unsupported.into());
        }
        Ok(retry(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, len))?)
    }

    fn allocate_ahead(&self, offset: u64, len: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        self.allocate(offset, len)?;
        // A page fault makes one small page, and asks the file system what belongs there. A write
        // makes large pages and asks once: measured, a third of the time.
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let piece = (end - at).min(ZEROS.len() as u64);
            self.write_all_at(&ZEROS[..piece as usize], at)?;
            at += piece;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn map(&self, len: u64, mode: MapMode) -> io::Result<Map> {
        if mode == MapMode::Write && self.access == Access::Read {
            return Err(Errno::ACCESS.into());
        }
        let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
        let mut options = MmapOptions::new();
        options.len(len);
        // Raw maps are shared ones; they make no claim about who else stores to the file.
        let raw = match mode {
            MapMode::Read => options.map_raw_read_only(&self.file)?,
            MapMode::Write => options.map_raw(&self.file)?,
        };
        Ok(Map::from_kernel(raw, mode))
    }
}

/// Whether a file system of this kind writes a block to a new place each time. The space that was
/// allocated then is for the first write alone: the next one, through a map, may find the disk full,
/// which is the process's death.
fn is_copied_on_write(kind: FsWord) -> bool {
    const BTRFS: FsWord = 0x9123_683E;
    const BCACHEFS: FsWord = 0xCA45_1A4E;
    const ZFS: FsWord = 0x2FC1_2FC1;
    matches!(kind, BTRFS | BCACHEFS | ZFS)
}

/// The parent of a bare file name is the empty path, which system calls do not take.
fn or_current_dir(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Opens a directory to be listed. The standard library repeats other calls that a signal
/// interrupted, but not this one.
fn open_dir(path: &Path) -> io::Result<fs::ReadDir> {
    loop {
        match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// Repeats a system call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            answer => return answer,
        }
    }
}

/// Calls until all of `out` is filled, however little one call gives.
fn fill(
    out: &mut [u8],
    mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    let mut filled = 0;
    while filled < out.len() {
        filled += retry(|| call(&mut out[filled..]))?;
    }
    Ok(())
}

/// Whether it is this file that has the name.
fn is_at(file: &fs::File, path: &Path) -> io::Result<bool> {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(identity(found) == identity(file.metadata()?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_pid(file: &impl FileExt) -> Option<u32> {
    let mut text = [0; PID_TEXT_MAX];
    let mut filled = 0;
    while filled < text.len() {
        match file.read_at(&mut text[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    std::str::from_utf8(&text[..filled]).ok()?.trim().parse().ok()
}

fn write_pid(file: &fs::File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn interrupted_calls_are_repeated_and_other_errors_are_not() {
        let mut calls = 0;
        let answer = retry(|| {
            calls += 1;
            if calls < 3 { Err(Errno::INTR) } else { Ok(calls) }
        });
        assert_eq!(answer, Ok(3));
        assert_eq!(retry(|| Err::<(), _>(Errno::IO)), Err(Errno::IO));
    }

    #[test]
    fn a_name_may_have_gone_to_another_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("LOCK");
        let file = fs::File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        fs::rename(&path, home.path().join("old")).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        fs::File::create(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }

    #[test]
    fn space_is_allocated_where_that_means_something() {
        // As Linux's magic.h and the others' sources have them.
        let [ext4, xfs, tmpfs] = [0xEF53, 0x5846_5342, 0x0102_1994];
        assert!([ext4, xfs, tmpfs].iter().all(|kind| !is_copied_on_write(*kind)));
        assert!(is_copied_on_write(0x9123_683E));
    }

    /// A file whose every other call is interrupted, and whose other calls do three bytes each.
    struct Moody {
        bytes: Mutex<Vec<u8>>,
        calls: AtomicU32,
    }

    impl Moody {
        fn new(bytes: &[u8]) -> Self {
            Self { bytes: Mutex::new(bytes.to_vec()), calls: AtomicU32::new(0) }
        }

        fn step(&self) -> io::Result<usize> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            if call.is_multiple_of(2) { Err(Errno::INTR.into()) } else { Ok(3) }
        }
    }

    impl FileExt for Moody {
        fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
            let bytes = self.bytes.lock().unwrap();
            let rest = &bytes[(offset as usize).min(bytes.len())..];
            let len = self.step()?.min(out.len()).min(rest.len());
            out[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
            let len = self.step()?.min(bytes.len());
            let mut held = self.bytes.lock().unwrap();
            let end = offset as usize + len;
            let grown = held.len().max(end);
            held.resize(grown, 0);
            held[offset as usize..end].copy_from_slice(&bytes[..len]);
            Ok(len)
        }
    }

    /// `RealFile` leaves this to the standard library, by the provided methods that are tried here.
    #[test]
    fn interrupted_and_short_reads_and_writes_are_whole_in_the_end() {
        let file = Moody::new(b"before");
        file.write_all_at(b"a longer text than three bytes", 2).unwrap();
        let mut out = [0; 32];
        file.read_exact_at(&mut out, 0).unwrap();
        assert_eq!(&out, b"bea longer text than three bytes");
        let beyond = file.read_exact_at(&mut out, 1).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
        assert!(file.calls.into_inner() > 40);
    }

    #[test]
    fn interrupted_and_short_reads_of_other_kinds_are_whole_too() {
        assert_eq!(read_pid(&Moody::new(b"1234567\n")), Some(1_234_567));
        let (mut out, mut calls) = ([0; 10], 0_u8);
        let answer = fill(&mut out, |rest| {
            calls += 1;
            if calls % 2 == 1 {
                return Err(Errno::INTR);
            }
            let len = rest.len().min(3);
            rest[..len].fill(calls);
            Ok(len)
        });
        assert_eq!(answer, Ok(()));
        assert_eq!(out, [2, 2, 2, 4, 4, 4, 6, 6, 6, 8]);
        assert_eq!(fill(&mut out, |_| Err(Errno::NOSYS)), Err(Errno::NOSYS));
    }

    #[test]
    fn an_unsupported_allocation_is_told_by_its_kind() {
        assert_eq!(io::Error::from(Errno::OPNOTSUPP).kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn links_and_special_files_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::new();
        let target = dir.path().join("target");
        storage.create(&target).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert_eq!(open_errno(&storage, &link), Some(Errno::LOOP.raw_os_error()));
        assert_eq!(open_errno(&storage, dir.path()), Some(Errno::ISDIR.raw_os_error()));
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(FILE_MODE);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(open_errno(&storage, &fifo), Some(Errno::INVAL.raw_os_error()));
        assert!(storage.create(&link).is_err());
        let kinds: Vec<_> =
            storage.list_dir(dir.path()).unwrap().into_iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EntryKind::Other, EntryKind::Other, EntryKind::File]);
    }

    #[test]
    fn writes_that_may_not_go_around_the_cache_go_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        let storage = RealStorage::new();
        let file = storage.create(&path).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.expect_synced_blocks();
        file.write_all_at(&[2; 1024], 512).unwrap();
        // No whole blocks: a device would refuse that.
        file.write_all_at(&[3; 100], 700).unwrap();
        file.write_all_at(&[4; 512], 4096).unwrap();
        let mut expected = vec![1; 4096];
        expected[512..1536].fill(2);
        expected[700..800].fill(3);
        expected.extend([4; 512]);
        assert_eq!(fs::read(&path).unwrap(), expected);
        let mut out = [0; 300];
        file.read_exact_at(&mut out, 650).unwrap();
        assert_eq!(out, expected[650..950]);
    }

    #[test]
    fn files_and_directories_are_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::new();
        let sub = dir.path().join("sub");
        storage.create_dir(&sub).unwrap();
        let file = sub.join("file");
        storage.create(&file).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&sub) & 0o077, 0);
        assert_eq!(mode(&file) & 0o177, 0);
    }

    #[test]
    fn a_lock_holds_through_a_symbolic_link_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::new();
        let home = dir.path().join("home");
        storage.create_dir(&home).unwrap();
        let alias = dir.path().join("alias");
        std::os::unix::fs::symlink(&home, &alias).unwrap();
        let guard = storage.lock(&home.join("LOCK")).unwrap();
        match storage.lock(&alias.join("LOCK")) {
            Err(LockFault::Held { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("a second lock was given: {other:?}"),
        }
        drop(guard);
        storage.lock(&alias.join("LOCK")).unwrap();
    }

    fn open_errno(storage: &RealStorage, path: &Path) -> Option<i32> {
        storage.open(path, Access::Read).unwrap_err().raw_os_error()
    }
}
