//! Space set aside for deletes and merges, so that a full disk can be emptied from within.
//!
//! While the reserve is given up, the store counts as full: writes that need more space are refused,
//! so that they do not eat what was set aside. As soon as the reserve can be made again, by a write
//! or by the background, the store takes writes again.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use caskade_codec::names;
use caskade_shard::context::Context;
use caskade_shard::planted;
use caskade_shard::storage::Access;

use crate::store::Store;
use crate::{Error, Result};

/// Enough for the manifests and the small outputs of a merge that frees much.
const RESERVE_BYTES: u64 = 512 << 10;

/// The reserve file's state.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    is_given_up: AtomicBool,
    /// Held while the file comes or goes.
    file: Mutex<()>,
}

impl Reserve {
    /// Sets space aside, unless that was done. False if there is none.
    pub(crate) fn restore(&self, ctx: &Context) -> bool {
        let _turn = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let path = ctx.path.join(names::RESERVE);
        let file = match ctx.storage.create(&path) {
            // It may be hollow: a crash came before its space, or it was copied.
            Err(fault) if fault.kind() == std::io::ErrorKind::AlreadyExists => {
                ctx.storage.open(&path, Access::ReadWrite)
            }
            answer => answer,
        };
        // What cannot be opened for a moment is there all the same.
        let Ok(file) = file else { return false };
        let made = match file.allocate(0, RESERVE_BYTES) {
            Err(fault) if fault.kind() == std::io::ErrorKind::Unsupported => {
                file.write_all_at(&vec![0; RESERVE_BYTES as usize], 0)
            }
            answer => answer,
        };
        if made.is_err() {
            let _ = ctx.storage.remove(&path);
            return false;
        }
        self.is_given_up.store(false, Ordering::Release);
        true
    }

    /// Gives the space up, unless that was done.
    pub(crate) fn give_up(&self, ctx: &Context) {
        let _turn = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_given_up.store(true, Ordering::Release);
        let _ = ctx.storage.remove(&ctx.path.join(names::RESERVE));
    }

    /// Whether the store counts as full.
    #[inline]
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }
}

impl Store {
    /// Runs what makes space; when the disk is full, once more with the reserve.
    pub(crate) fn with_reserve<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            Err(error) if error.is_no_space() => {
                // Another thread may have done so since this one saw the disk full.
                self.reserve.give_up(&self.ctx);
                work()
            }
            answer => answer,
        }
    }

    /// Refuses what needs space while the disk is full.
    #[inline]
    pub(crate) fn check_space(&self) -> Result<()> {
        if self.reserve.is_given_up() { self.refuse_or_heal() } else { Ok(()) }
    }

    #[cold]
    fn refuse_or_heal(&self) -> Result<()> {
        if !planted!("full-for-good") && self.reserve.restore(&self.ctx) {
            return Ok(());
        }
        Err(Error::NoSpace { action: "write to", path: self.ctx.path.clone() })
    }
}
