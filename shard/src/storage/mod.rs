//! The I/O boundary: every file, map, sync, rename, lock and clock reading of a store goes through
//! [`Storage`] and [`File`].
//!
//! There are two implementations: [`RealStorage`] on the operating system, and the simulator `sim`
//! (feature `sim`), which forgets at a crash what was not synced and fails on command. Both pass
//! the contract suite in `suite`.
//!
//! # What is durable when
//!
//! *Kept by the kernel* means: survives the death of this process, not a power cut. *Durable*
//! means: survives a power cut too, as far as the device honours a flush.
//!
//! - Bytes stored through a writable [`Map`] or by [`File::write_all_at`] are kept by the kernel at
//!   once. They are durable after [`File::sync_data`] or [`File::sync_all`] returned `Ok`. Before
//!   that, a power cut keeps any subset of them in sectors, in any order.
//! - A file's length is kept and made durable along with its bytes, but is not ordered with them: a
//!   power cut may keep the length and lose the bytes (they read as zero or as garbage).
//! - Directory changes ([`Storage::create`], [`Storage::rename`], ...) are kept at once and durable
//!   after [`Storage::sync_dir`] on their directory. Syncing a file does not make its name durable.
//!   A power cut keeps any subset of the unsynced changes; each alone is atomic.
//!
//! # Errors
//!
//! Errors carry the errno of the operating system ([`io::Error::raw_os_error`]) wherever there is
//! one. They do not carry the path: the caller adds it. `EINTR` and short counts are handled inside.
//! Any call may fail with `EIO`; a method's contract names only what else to expect.
//!
//! After a failed sync the state of the unsynced bytes is unknown for good: the kernel may have
//! dropped them and marked them clean, so that a second sync answers `Ok` without writing them.
//! A sync that failed is therefore never repeated.

mod map;
pub(crate) mod pages;
mod real;
mod replace;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(any(test, feature = "sim"))]
pub mod suite;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use map::{Advice, Map};
pub use real::RealStorage;
pub use replace::{ReplaceFault, ReplaceStep, replace, replace_without_dir_sync};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only; works on a read-only file system.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// What a file is mapped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMode {
    /// Loads only. A store through such a map kills the process.
    Read,
    /// Loads and stores; stores reach the file.
    Write,
}

/// What a directory entry is. Symbolic links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, a device, a socket: nothing the store ever makes.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the directory.
    pub name: OsString,
    /// What it names.
    pub kind: EntryKind,
}

/// Why [`Storage::lock`] did not give the lock.
#[derive(Debug, thiserror::Error)]
pub enum LockFault {
    /// Another opener holds it, in this process or in another.
    #[error("held by another opener (pid {pid:?})")]
    Held {
        /// What the lock file says about the holder; for messages only.
        pid: Option<u32>,
    },
    /// The lock file could not be opened, created or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A held lock. Dropping it releases the lock; the lock file stays.
pub trait LockGuard: Send + Sync + Debug {}

/// An open directory.
pub trait Dir: Debug {
    /// Makes every change of the directory's entries durable that returned before the call.
    ///
    /// It says nothing about the contents of the files. A rename between two directories is whole
    /// after either was synced. A failure leaves unknown which changes are durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file system, a clock and a source of entropy.
///
/// Paths are used as they are given. Methods may be called from many threads at once.
pub trait Storage: Send + Sync + Debug {
    /// Creates one directory, for the owner only (0700).
    ///
    /// Fails with `AlreadyExists` where the name is taken (by anything) and with `NotFound` where
    /// the parent is missing. The new name is durable after [`Storage::sync_dir`] on the parent;
    /// without that, a power cut may take away the directory with all it holds, synced or not.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates one directory, unless the name is taken (by anything).
    fn ensure_dir(&self, path: &Path) -> io::Result<()> {
        match self.create_dir(path) {
            Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            answer => answer,
        }
    }

    /// Lists a directory, without `.` and `..`, sorted by name.
    ///
    /// Fails with `NotFound` or `NotADirectory`. Names that appear or vanish meanwhile may be in
    /// the list or not.
    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Opens a directory to sync it.
    ///
    /// Fails with `NotFound` or `NotADirectory`; may fail with `EMFILE`, `ENFILE` or `EACCES`.
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>>;

    /// Opens a directory and syncs it, for who need not tell which of the two failed.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_dir(path)?.sync()
    }

    /// Opens an existing regular file. Never creates one.
    ///
    /// Fails with `NotFound`, and with an error for anything that is not a regular file (a
    /// directory, a symbolic link as the last component, a FIFO, which does not block). May fail
    /// with `EMFILE` or `ENFILE`, and for [`Access::ReadWrite`] with `EROFS` or `EACCES`.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Creates an empty file, for the owner only (0600), open for reading and writing.
    ///
    /// Fails with `AlreadyExists` where the name is taken (by anything, a dangling link too); may
    /// fail with `ENOSPC`, `EDQUOT`, `EMFILE`, `ENFILE`, `EROFS`. A call that failed left no file.
    /// The name is durable after [`Storage::sync_dir`] on the parent.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Renames a file or directory; a file at `to` is replaced, in one atomic step.
    ///
    /// Fails with `NotFound` where `from` is missing. Open handles and maps of both files stay
    /// usable. After a power cut either the old state or the new one is there (until the
    /// directories were synced), and the new name may stand for contents that were not synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// Fails with `NotFound`, and with an error for a directory. The file itself, and its space,
    /// go when its last name, handle and map are gone.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a file, if it is there.
    fn ensure_removed(&self, path: &Path) -> io::Result<()> {
        match self.remove(path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
            answer => answer,
        }
    }

    /// Gives the file `from` the second name `to`.
    ///
    /// Fails with `NotFound` where `from` is missing, with `AlreadyExists` where `to` is taken, and
    /// with an error where `from` is a directory, where the two lie on different file systems
    /// (`EXDEV`) or where the file system has no hard links (`EPERM`, `EOPNOTSUPP`).
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes the exclusive lock that the file at `path` stands for, without waiting.
    ///
    /// Creates the file if it is missing and never removes it. Excludes every other opener of the
    /// same file, in this process or another and by whatever path, until the guard is dropped or
    /// the process is gone: a dead holder leaves nothing behind. The holder's pid is written into
    /// the file as far as that works. Needs a writable directory or an existing, writable file.
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockFault>;

    /// Milliseconds since the Unix epoch. It may jump in either direction; 0 for a time before.
    fn wall_ms(&self) -> u64;

    /// Time since an arbitrary start. Never goes back.
    fn monotonic(&self) -> Duration;

    /// Fills `out` with random bytes that an adversary cannot guess.
    fn entropy(&self, out: &mut [u8]) -> io::Result<()>;
}

/// An open regular file. It stays usable when its name is removed or renamed.
///
/// There is no cursor: all reads and writes name their offset, from any number of threads.
#[expect(clippy::len_without_is_empty, reason = "the length is a fallible system call")]
pub trait File: Send + Sync + Debug {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` from `offset` on.
    ///
    /// Fails with `UnexpectedEof` where the file ends before; `out` is then unspecified.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;

    /// All bytes of the file, which has `len_max` at most, or `OutOfMemory` if they are more than there is
    /// room for: the length of a damaged file says nothing.
    fn read_whole(&self, len_max: u64) -> io::Result<Vec<u8>> {
        let len = self.len()?;
        if len > len_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // Only asks: what is zeroed by the allocator costs less than what is zeroed here.
        let mut asked = Vec::<u8>::new();
        asked.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        drop(std::hint::black_box(asked));
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Writes all of `bytes` at `offset`, extending the file where needed; a gap reads as zeros.
    ///
    /// On failure (`ENOSPC`, `EDQUOT`, `EFBIG`, `EBADF` for a file opened to read) any prefix may
    /// have been written, and the file may have grown by it.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Says that from now on this handle only writes, in whole blocks of 512 bytes at multiples of
    /// 512, and syncs after each write: going around the page cache is quicker then, where that works.
    fn expect_synced_blocks(&self) {}

    /// Allocates real space for `offset .. offset + len` and extends the file to its end; what was
    /// not written before reads as zeros.
    ///
    /// After `Ok`, storing there (through a map too) cannot run out of space. Fails with
    /// [`io::ErrorKind::Unsupported`] where the file system cannot, and then changed nothing; with
    /// `ENOSPC` or `EDQUOT` when full, and then the file may have grown. A length of 0 does nothing.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// As [`File::allocate`], for a range behind the end of the file that is going to be stored to
    /// through a map: has its pages in memory, where the operating system is quicker that way.
    fn allocate_ahead(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(offset, len)
    }

    /// Cuts the file or extends it with zeros. An extension allocates no space.
    ///
    /// Bytes of a map beyond the new length must not be touched any more.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and its length durable: all that was stored before the call, through
    /// maps and other handles too. See the module's page on what a failure means.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`File::sync_data`], with the file's times and attributes.
    fn sync_all(&self) -> io::Result<()>;

    /// Maps the first `len` bytes, shared: stores by anyone are seen by all maps and reads.
    ///
    /// `len` may reach past the end of the file. What lies beyond the end must not be touched until
    /// the file has grown there (the kernel would kill the process), nor may a store go where no
    /// space was allocated. The map stays valid after the handle is dropped.
    /// Fails with `EACCES` for [`MapMode::Write`] on a file opened to read, and with `ENOMEM` when
    /// there are too many maps.
    fn map(&self, len: u64, mode: MapMode) -> io::Result<Map>;
}
