//! Which calls fail, and how.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::SimDisk;
pub use super::image::FailedSync;

/// The kinds of calls across the boundary. Clock readings are not counted: they cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named for its method")]
pub enum Op {
    CreateDir,
    ListDir,
    OpenDir,
    SyncDir,
    Open,
    Create,
    Rename,
    Remove,
    HardLink,
    Lock,
    Entropy,
    Len,
    Read,
    Write,
    Allocate,
    SetLen,
    Sync,
    Map,
}

impl Op {
    /// Whether the call changes what is stored.
    #[must_use]
    pub fn changes(self) -> bool {
        let reads = [Op::ListDir, Op::OpenDir, Op::Open, Op::Entropy, Op::Len, Op::Read, Op::Map];
        !reads.contains(&self) && !matches!(self, Op::Sync | Op::SyncDir)
    }

    /// Whether a call of this kind can end in this error at all.
    fn can_fail_with(self, errno: i32) -> bool {
        match Errno::from_raw_os_error(errno) {
            Errno::INTR => false,
            Errno::NOSPC | Errno::DQUOT => {
                self.changes() && !matches!(self, Op::Remove | Op::SetLen)
            }
            Errno::ROFS => self.changes(),
            Errno::MFILE | Errno::NFILE => {
                matches!(self, Op::ListDir | Op::OpenDir | Op::Open | Op::Create | Op::Lock)
            }
            Errno::NOMEM => self == Op::Map,
            _ => true,
        }
    }
}

/// One call, as it is shown to a rule or kept in the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number; the first call is 1.
    pub number: u64,
    /// Its kind.
    pub op: Op,
    /// The path it was given, or by which its file was opened.
    pub path: PathBuf,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing special.
    Proceed,
    /// It fails with this errno. A write leaves a random prefix, a sync drops pages as
    /// [`Faults::set_failed_sync`] says; other calls have no effect.
    Fail(i32),
    /// The process dies in it.
    Crash(CrashEffect),
}

/// Whether the call in which the process dies still has its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashEffect {
    /// None.
    Nothing,
    /// All of it.
    Whole,
    /// One of both by the disk's generator; a write may leave a prefix.
    Random,
}

/// How long a call that is made to fail keeps failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// That call only.
    Once,
    /// That call and all after it.
    ForGood,
}

type Rule = Box<dyn FnMut(&Call) -> Verdict + Send>;

/// What is planned; part of the disk's state.
#[derive(Default)]
pub(super) struct FaultPlan {
    pub(super) calls: u64,
    failures: Vec<(u64, Repeat, i32)>,
    crash: Option<(u64, CrashEffect)>,
    rule: Option<Rule>,
    trace: Option<Vec<Call>>,
    pub(super) failed_sync: FailedSync,
    pub(super) no_allocate: bool,
    pub(super) read_only: bool,
    /// What all files together may take.
    pub(super) capacity: Option<u64>,
}

impl FaultPlan {
    /// Counts a call and decides what becomes of it.
    pub(super) fn judge(&mut self, op: Op, path: &Path) -> Verdict {
        self.calls += 1;
        let number = self.calls;
        if self.trace.is_some() || self.rule.is_some() {
            let call = Call { number, op, path: path.to_path_buf() };
            let verdict = self.rule.as_mut().map_or(Verdict::Proceed, |rule| rule(&call));
            if let Some(trace) = &mut self.trace {
                trace.push(call);
            }
            match verdict {
                Verdict::Proceed => {}
                Verdict::Fail(errno) if !op.can_fail_with(errno) => {}
                other => return other,
            }
        }
        if let Some((at, effect)) = self.crash
            && number >= at
        {
            self.crash = None;
            return Verdict::Crash(effect);
        }
        if self.read_only && op.changes() {
            return Verdict::Fail(Errno::ROFS.raw_os_error());
        }
        let hit = self.failures.iter().find(|(at, repeat, errno)| {
            let due = if *repeat == Repeat::Once { number == *at } else { number >= *at };
            due && op.can_fail_with(*errno)
        });
        hit.map_or(Verdict::Proceed, |(_, _, errno)| Verdict::Fail(*errno))
    }
}

impl fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultPlan")
            .field("calls", &self.calls)
            .field("failures", &self.failures)
            .field("crash", &self.crash)
            .finish_non_exhaustive()
    }
}

/// The fault controls of a disk. They outlive crashes, until [`Faults::clear`].
#[derive(Debug)]
pub struct Faults<'a> {
    pub(super) disk: &'a SimDisk,
}

impl Faults<'_> {
    /// How many calls were made since the disk was made or [`Faults::clear`]ed. Clock readings do
    /// not count, nor do calls through the handles of a life that is over.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.disk.state().faults.calls
    }

    /// Forgets every planned fault and counts from 0 again.
    pub fn clear(&self) {
        self.disk.state().faults = FaultPlan::default();
    }

    /// Makes call `number` fail with `errno`, once or from then on.
    ///
    /// Calls that cannot end in that error proceed: reads in `ENOSPC`, writes in `EMFILE`, and any
    /// call in `EINTR`, which the boundary hides.
    pub fn fail_call(&self, number: u64, repeat: Repeat, errno: i32) {
        self.disk.state().faults.failures.push((number, repeat, errno));
    }

    /// Makes the process die in call `number`; see [`SimDisk::crashed`].
    pub fn crash_at_call(&self, number: u64, effect: CrashEffect) {
        self.disk.state().faults.crash = Some((number, effect));
    }

    /// Takes a planned crash back, if it did not happen yet.
    pub fn forget_crash(&self) {
        self.disk.state().faults.crash = None;
    }

    /// Shows every call to `rule` first. It runs under the disk's mutex: it must not call the disk.
    pub fn set_rule(&self, rule: impl FnMut(&Call) -> Verdict + Send + 'static) {
        self.disk.state().faults.rule = Some(Box::new(rule));
    }

    /// What failing syncs do to their pages; everything is dropped unless told otherwise.
    pub fn set_failed_sync(&self, manner: FailedSync) {
        self.disk.state().faults.failed_sync = manner;
    }

    /// Leaves this much free space from now on, in bytes; `None` for no limit. Files take whole
    /// sectors as far as they are allocated or written, and one sector each for themselves. A
    /// write that does not fit leaves the prefix that does.
    pub fn set_free_space(&self, free: Option<u64>) {
        let mut state = self.disk.state();
        state.faults.capacity = free.map(|free| state.space_used() + free);
    }

    /// Whether allocation is a thing this file system cannot do.
    pub fn set_allocate_unsupported(&self, unsupported: bool) {
        self.disk.state().faults.no_allocate = unsupported;
    }

    /// Whether the file system is mounted read-only (`EROFS`).
    pub fn set_read_only(&self, read_only: bool) {
        self.disk.state().faults.read_only = read_only;
    }

    /// Records every call from now on.
    pub fn start_trace(&self) {
        self.disk.state().faults.trace = Some(Vec::new());
    }

    /// The calls since [`Faults::start_trace`]; ends the recording.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Call> {
        self.disk.state().faults.trace.take().unwrap_or_default()
    }
}
