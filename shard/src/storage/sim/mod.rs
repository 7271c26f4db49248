//! A simulated disk for tests: it forgets at a power cut what was not synced, fails on command, and
//! replays from a seed.
//!
//! A [`SimDisk`] outlives the processes that use it. [`SimDisk::storage`] starts a process life;
//! [`SimDisk::kill`] and [`SimDisk::power_cut`] end it, and the next life opens what is left.
//!
//! ```ignore
//! let disk = SimDisk::new(seed);
//! run_a_workload(disk.storage());
//! disk.power_cut(&mut Rng::new(seed));
//! look_at_what_is_left(disk.storage());
//! ```
//!
//! Each file has a live and a durable image, in sectors of 512 bytes. The live image is the memory
//! that maps of the file point to, so stores through a map need no hook: syncs and power cuts find
//! them by comparing. There is no real time, no real file and no real entropy in it. A call is a
//! map look-up or two, a file costs nothing until it has contents.
//!
//! What it does not imitate: sparse files (the space from a file's start to its last allocated byte
//! counts as taken), permissions, symbolic links, more than one living process, maps that grow
//! beyond the memory of an earlier map of the file ([`SimDisk::set_map_reserve`]), and the signal
//! for touching what no space was allocated for: stores of that kind make the next
//! [`SimDisk::kill`] or [`SimDisk::power_cut`] panic instead, loads give zeros.

mod chooser;
mod faults;
mod handle;
mod image;
mod rng;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use chooser::{Chooser, Exhaustive, Pending, RandomChooser};
pub use faults::{Call, CrashEffect, FailedSync, Faults, Op, Repeat, Verdict};
pub use rng::Rng;

use super::{DirEntry, Storage};
use handle::{Life, SimStorage};
use state::State;

/// What a power cut keeps or loses as a whole.
pub const SECTOR_BYTES: usize = 512;

/// A simulated disk with one file system, whose root directory exists. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk. The seed gives the entropy and the random parts of faults.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State::new(seed))) }
    }

    /// The storage of the current process life. All handles from it die with that life.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        let life = self.state().life;
        Arc::new(SimStorage { life: Life::new(self.clone(), life) })
    }

    /// A disk of its own in the state of this one: its process is dead, no fault is planned.
    #[must_use]
    pub fn fork(&self) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(self.state().fork())) }
    }

    /// Kills the process: what the kernel holds stays. Locks are released, handles answer every
    /// call with `ESHUTDOWN`, maps keep their memory but no longer reach the files.
    ///
    /// # Panics
    /// When a store through a map went where the kernel would have killed the process before.
    pub fn kill(&self) {
        let mut state = self.state();
        state.die();
        let stray = state.stray_store.take();
        drop(state);
        assert_eq!(stray, None, "a store through a map went astray");
    }

    /// Kills the process and cuts the power: a random subset of what was not synced stays.
    ///
    /// # Panics
    /// As [`SimDisk::kill`].
    pub fn power_cut(&self, rng: &mut Rng) {
        self.power_cut_with(&mut RandomChooser::new(rng));
    }

    /// As [`SimDisk::power_cut`]; `chooser` says what stays. It must not call the disk.
    ///
    /// # Panics
    /// As [`SimDisk::kill`].
    pub fn power_cut_with(&self, chooser: &mut dyn Chooser) {
        self.kill();
        self.state().cut(chooser);
    }

    /// How many questions a power cut now would ask its chooser at most: the changes of directory
    /// entries, the changes of length and the dirty sectors.
    #[must_use]
    pub fn pending_choices(&self) -> usize {
        self.state().pending_choices()
    }

    /// Whether a planned crash ([`Faults::crash_at_call`]) has happened; asking resets it. The
    /// disk is then in the state after [`SimDisk::kill`], and the power may be cut on top of it.
    #[must_use]
    pub fn crashed(&self) -> bool {
        std::mem::take(&mut self.state().crashed)
    }

    /// As [`SimDisk::crashed`], without resetting it.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    /// The fault controls.
    #[must_use]
    pub fn faults(&self) -> Faults<'_> {
        Faults { disk: self }
    }

    /// Moves both clocks on.
    pub fn advance(&self, ms: u64) {
        let mut state = self.state();
        state.wall_ms = state.wall_ms.saturating_add(ms);
        state.monotonic = state.monotonic.saturating_add(Duration::from_millis(ms));
    }

    /// Makes the wall clock jump.
    pub fn set_wall_ms(&self, ms: u64) {
        self.state().wall_ms = ms;
    }

    /// Files take at least this much memory when they are first mapped. Needed only where a file is
    /// mapped again, longer, while an earlier map lives.
    pub fn set_map_reserve(&self, bytes: usize) {
        self.state().map_reserve = bytes;
    }

    // The rest serves tests. It is not counted, never fails by plan and works between lives.

    /// The live contents of a file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.file(state.find(path.as_ref())?)?.contents())
    }

    /// What is durable of a file, if its name is.
    #[must_use]
    pub fn read_durable(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        Some(self.state().durable_file(path.as_ref())?.durable_contents())
    }

    /// Puts a file there, name and contents durable, or replaces an existing one's contents.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        self.state().plant(path.as_ref(), bytes)
    }

    /// Removes a file's name, durably.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.state().uproot(path.as_ref())
    }

    /// The entries of a directory.
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
        self.state().list_dir(path.as_ref())
    }

    /// Whether there is anything at a path.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.state().find(path.as_ref()).is_ok()
    }

    /// How many handles of files are open.
    #[must_use]
    pub fn open_handles(&self) -> u64 {
        self.state().open_handles()
    }

    /// Bit rot: flips bit `bit` (0 to 7) of the byte at `offset`, live and on the device.
    ///
    /// # Panics
    /// When the file is not that long.
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u32) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(path.as_ref())?;
        let file = state.file_mut(id)?;
        assert!(offset < file.len() && bit < 8, "bit {bit} of byte {offset} is not in the file");
        file.flip_bit(offset, bit);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked in a chooser or a rule leaves a disk that can still be looked at.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}
