//! Who decides what a power cut keeps.

use std::path::Path;

use super::SECTOR_BYTES;
use super::faults::Op;
use super::rng::Rng;

/// One change that was not synced when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending<'a> {
    /// A change of directory entries, in the order they were made. It is kept whole or not at all.
    Entry {
        /// The call that made it.
        op: Op,
        /// The name it is about; the old name of a rename.
        path: &'a Path,
        /// The new name of a rename.
        to: Option<&'a Path>,
    },
    /// The change of a file's length to `to`, newest first; the first one kept is the length.
    Length {
        /// The file, by its first name.
        file: &'a Path,
        /// The length after the change.
        to: u64,
    },
    /// The new contents of one sector below the chosen length.
    Sector {
        /// The file, by its first name.
        file: &'a Path,
        /// The sector's number in the file.
        index: u64,
    },
}

/// Answers, for each pending change in turn, whether the power cut keeps it.
///
/// Any closure from `&Pending` to `bool` is one.
pub trait Chooser {
    /// Whether the change is kept.
    fn keep(&mut self, pending: &Pending<'_>) -> bool;

    /// Asked for a sector that was not kept, in a part of the file by which an unsynced change
    /// extended it: true after filling it with what the device held there before. Else zeros.
    fn stale(&mut self, _sector: &mut [u8; SECTOR_BYTES]) -> bool {
        false
    }
}

impl<F: FnMut(&Pending<'_>) -> bool> Chooser for F {
    fn keep(&mut self, pending: &Pending<'_>) -> bool {
        self(pending)
    }
}

/// Keeps a random subset. How much of it changes from cut to cut and from file to file, so that
/// nearly everything and nearly nothing are as likely as a half.
#[derive(Debug)]
pub struct RandomChooser<'a> {
    rng: &'a mut Rng,
    entries_kept: u64,
    sectors_kept: u64,
    stale: bool,
}

/// Chances out of [`CHANCES`].
const KEPT: [u64; 6] = [0, 1, 4, 8, 15, 16];
const CHANCES: u64 = 16;

impl RandomChooser<'_> {
    /// Chooses by `rng`.
    pub fn new(rng: &mut Rng) -> RandomChooser<'_> {
        let entries_kept = *rng.pick(&KEPT);
        let sectors_kept = *rng.pick(&KEPT);
        let stale = rng.chance(1, 8);
        RandomChooser { rng, entries_kept, sectors_kept, stale }
    }
}

impl Chooser for RandomChooser<'_> {
    fn keep(&mut self, pending: &Pending<'_>) -> bool {
        match pending {
            Pending::Entry { .. } => self.rng.chance(self.entries_kept, CHANCES),
            Pending::Length { .. } => {
                // Lengths come before the sectors of their file: another file, another share.
                self.sectors_kept = *self.rng.pick(&KEPT);
                self.rng.chance(1, 2)
            }
            Pending::Sector { .. } => self.rng.chance(self.sectors_kept, CHANCES),
        }
    }

    fn stale(&mut self, sector: &mut [u8; SECTOR_BYTES]) -> bool {
        let stale = self.stale && self.rng.chance(1, 2);
        if stale {
            self.rng.fill(sector);
        }
        stale
    }
}

/// Goes through every possible answer to every question, one power cut a time:
///
/// ```ignore
/// let mut all = Exhaustive::new();
/// while all.next_run() {
///     let disk = base.fork();
///     disk.power_cut_with(&mut all);
///     // ... look at the disk ...
/// }
/// ```
///
/// Which questions come may depend on earlier answers, but not on anything else.
#[derive(Debug, Default)]
pub struct Exhaustive {
    answers: Vec<bool>,
    asked: usize,
    started: bool,
}

impl Exhaustive {
    /// The first run keeps everything, the last one nothing.
    #[must_use]
    pub fn new() -> Exhaustive {
        Exhaustive::default()
    }

    /// One run only, with these answers (from [`Exhaustive::answers`]) and true for any further.
    #[must_use]
    pub fn replay(answers: &[bool]) -> Exhaustive {
        Exhaustive { answers: answers.to_vec(), asked: 0, started: true }
    }

    /// Prepares the next combination; false when all have been.
    pub fn next_run(&mut self) -> bool {
        if !self.started {
            self.started = true;
            return true;
        }
        self.answers.truncate(self.asked);
        while self.answers.last() == Some(&false) {
            self.answers.pop();
        }
        self.asked = 0;
        match self.answers.last_mut() {
            Some(last) => {
                *last = false;
                true
            }
            None => false,
        }
    }

    /// The answers of this run so far.
    #[must_use]
    pub fn answers(&self) -> &[bool] {
        &self.answers[..self.asked]
    }
}

impl Chooser for Exhaustive {
    fn keep(&mut self, _pending: &Pending<'_>) -> bool {
        if self.asked == self.answers.len() {
            self.answers.push(true);
        }
        self.asked += 1;
        self.answers[self.asked - 1]
    }
}
