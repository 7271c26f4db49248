//! The boundary's traits on the simulator: each call is counted, judged and then carried out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use rustix::io::Errno;

use super::SimDisk;
use super::faults::{CrashEffect, Op, Verdict};
use super::rng::Rng;
use super::state::{NodeId, State};
use crate::storage::{Access, Dir, DirEntry, File, LockFault, LockGuard, Map, MapMode, Storage};

/// No file or map of the simulator is longer: such a length is a mistake of the caller.
const LEN_MAX: u64 = 1 << 36;

/// One life of a process on a disk.
#[derive(Clone, Debug)]
pub(super) struct Life {
    disk: SimDisk,
    number: u64,
}

/// How far a call gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// It fails, and may leave a part of its effect.
    Failing,
    /// The process dies in the middle of it.
    Torn,
}

impl Life {
    pub(super) fn new(disk: SimDisk, number: u64) -> Life {
        Life { disk, number }
    }

    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        // Whatever a dead process would still do reaches nobody.
        if state.life == self.number { Ok(state) } else { Err(Errno::SHUTDOWN.into()) }
    }

    /// A call that does everything or nothing.
    fn call<T>(
        &self,
        op: Op,
        path: &Path,
        run: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.call_in_parts(op, path, |state, extent| match extent {
            Extent::Whole => run(state),
            Extent::Failing | Extent::Torn => Err(Errno::IO.into()),
        })
    }

    /// A call that may leave a part of its effect.
    fn call_in_parts<T>(
        &self,
        op: Op,
        path: &Path,
        run: impl FnOnce(&mut State, Extent) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state()?;
        match state.faults.judge(op, path) {
            Verdict::Proceed => run(&mut state, Extent::Whole),
            Verdict::Fail(errno) => {
                let _ = run(&mut state, Extent::Failing);
                Err(io::Error::from_raw_os_error(errno))
            }
            Verdict::Crash(effect) => {
                let choice = match effect {
                    CrashEffect::Nothing => 0,
                    CrashEffect::Whole => 1,
                    CrashEffect::Random => state.rng.below(3),
                };
                let answer = match choice {
                    0 => None,
                    1 => Some(run(&mut state, Extent::Whole)),
                    _ => Some(run(&mut state, Extent::Torn)),
                };
                state.die();
                state.crashed = true;
                // Unlocked first: the answer may hold a handle, which locks when it is dropped.
                drop(state);
                drop(answer);
                Err(Errno::SHUTDOWN.into())
            }
        }
    }
}

/// [`Storage`] for one life.
pub(super) struct SimStorage {
    pub(super) life: Life,
}

impl fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStorage").field("life", &self.life.number).finish_non_exhaustive()
    }
}

impl SimStorage {
    fn handle(
        &self,
        state: &mut State,
        path: &Path,
        id: NodeId,
        access: Access,
    ) -> io::Result<SimFile> {
        state.file_mut(id)?.open += 1;
        Ok(SimFile { life: self.life.clone(), id, path: path.into(), access })
    }
}

impl Storage for SimStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.life.call(Op::CreateDir, path, |state| state.create_dir(path))
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.life.call(Op::ListDir, path, |state| state.list_dir(path))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        self.life.call(Op::OpenDir, path, |state| {
            let id = state.find(path)?;
            state.dir(id)?;
            let dir = SimDir { life: self.life.clone(), path: path.into() };
            Ok(Box::new(dir) as Box<dyn Dir>)
        })
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        self.life.call(Op::Open, path, |state| {
            let id = state.find(path)?;
            state.file(id)?;
            if access == Access::ReadWrite && state.faults.read_only {
                return Err(Errno::ROFS.into());
            }
            Ok(Arc::new(self.handle(state, path, id, access)?) as Arc<dyn File>)
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.life.call(Op::Create, path, |state| {
            let id = state.create(path)?;
            Ok(Arc::new(self.handle(state, path, id, Access::ReadWrite)?) as Arc<dyn File>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.life.call(Op::Rename, from, |state| state.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.life.call(Op::Remove, path, |state| state.remove(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.life.call(Op::HardLink, from, |state| state.hard_link(from, to))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockFault> {
        let id = self.life.call(Op::Lock, path, |state| {
            let place = state.place(path)?;
            let id = match state.at(&place) {
                Some(id) => id,
                None => state.create(path)?,
            };
            if state.locks.contains(&id) {
                return Ok(Err(LockFault::Held { pid: pid_in(&state.file(id)?.contents()) }));
            }
            let life = state.life;
            let file = state.file_mut(id)?;
            file.set_len(0);
            file.write(format!("{life}\n").as_bytes(), 0);
            file.open += 1;
            state.locks.insert(id);
            Ok(Ok(id))
        })??;
        Ok(Box::new(SimLock { life: self.life.clone(), id }))
    }

    fn wall_ms(&self) -> u64 {
        self.life.disk.state().wall_ms
    }

    fn monotonic(&self) -> Duration {
        self.life.disk.state().monotonic
    }

    fn entropy(&self, out: &mut [u8]) -> io::Result<()> {
        self.life.call(Op::Entropy, Path::new(""), |state| {
            state.rng.fill(out);
            Ok(())
        })
    }
}

/// A directory as it was opened: it is synced by its path, for nobody renames one that he has open.
#[derive(Debug)]
struct SimDir {
    life: Life,
    path: PathBuf,
}

impl Dir for SimDir {
    fn sync(&self) -> io::Result<()> {
        self.life.call_in_parts(Op::SyncDir, &self.path, |state, extent| {
            match extent {
                Extent::Whole => state.sync_dir(&self.path)?,
                Extent::Failing => state.fail_sync_dir(&self.path),
                // The next cut may keep any part of it anyway.
                Extent::Torn => {}
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
struct SimLock {
    life: Life,
    id: NodeId,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut state) = self.life.state() {
            state.locks.remove(&self.id);
            close(&mut state, self.id);
        }
    }
}

struct SimFile {
    life: Life,
    id: NodeId,
    path: Arc<Path>,
    access: Access,
}

impl SimFile {
    fn call<T>(&self, op: Op, run: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.life.call(op, &self.path, run)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.access == Access::Read { Err(Errno::BADF.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.life.call_in_parts(Op::Sync, &self.path, |state, extent| {
            let manner = state.faults.failed_sync;
            match extent {
                Extent::Whole => state.file_mut(self.id)?.sync(),
                Extent::Failing => {
                    let mut rng = Rng::new(state.rng.next_u64());
                    state.file_mut(self.id)?.fail_sync(manner, &mut rng);
                }
                // The next cut may keep any part of it anyway.
                Extent::Torn => {}
            }
            Ok(())
        })
    }

    /// Writes what fits the free space, and says whether that was all.
    fn write(&self, state: &mut State, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = state.space_up_to(self.id, end_of(offset, bytes.len() as u64)?)?;
        let fits = end.saturating_sub(offset).min(bytes.len() as u64) as usize;
        state.file_mut(self.id)?.write(&bytes[..fits], offset);
        if fits < bytes.len() { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.call(Op::Len, |state| Ok(state.file(self.id)?.len()))
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.call(Op::Read, |state| {
            let file = state.file(self.id)?;
            let end = offset.saturating_add(out.len() as u64);
            if end > file.len() && !out.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.read(offset, out);
            Ok(())
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.life.call_in_parts(Op::Write, &self.path, |state, extent| {
            self.check_writable()?;
            let len = match extent {
                Extent::Whole => bytes.len(),
                Extent::Failing | Extent::Torn => state.rng.below(bytes.len() as u64 + 1) as usize,
            };
            self.write(state, &bytes[..len], offset)
        })
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(Op::Allocate, |state| {
            self.check_writable()?;
            if state.faults.no_allocate {
                return Err(Errno::OPNOTSUPP.into());
            }
            if len == 0 {
                return Ok(());
            }
            let end = end_of(offset, len)?;
            if state.space_up_to(self.id, end)? < end {
                return Err(Errno::NOSPC.into());
            }
            state.file_mut(self.id)?.allocate(end);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Op::SetLen, |state| {
            // What ftruncate says of a descriptor that was opened to read.
            self.check_writable().map_err(|_| Errno::INVAL)?;
            end_of(0, len)?;
            state.file_mut(self.id)?.set_len(len);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn map(&self, len: u64, mode: MapMode) -> io::Result<Map> {
        self.call(Op::Map, |state| {
            if mode == MapMode::Write && self.access == Access::Read {
                return Err(Errno::ACCESS.into());
            }
            if len > LEN_MAX {
                return Err(Errno::NOMEM.into());
            }
            let reserve = state.map_reserve;
            let file = state.file_mut(self.id)?;
            let memory = file.map(len as usize, reserve, mode == MapMode::Write);
            Ok(Map::from_memory(memory, len as usize, mode))
        })
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile")
            .field("path", &self.path)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Ok(mut state) = self.life.state() {
            close(&mut state, self.id);
        }
    }
}

fn close(state: &mut State, id: NodeId) {
    if let Ok(file) = state.file_mut(id) {
        file.open -= 1;
    }
}

fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    let end = offset.checked_add(len).filter(|end| *end <= LEN_MAX);
    Ok(end.ok_or(Errno::FBIG)?)
}

fn pid_in(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
