//! Telling of operations that took long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Store;

/// What a caller may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// A page of a scan.
    Scan,
    /// Writing one key.
    Put,
    /// Deleting one key.
    Delete,
    /// A write that depends on what is there.
    Update,
    /// A batch.
    Batch,
    /// Waiting for durability.
    Sync,
}

impl Operation {
    /// Its name, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Batch => "batch",
            Self::Sync => "sync",
        }
    }
}

/// An operation that took at least the time that was set for the hook.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SlowOperation<'a> {
    /// What was done.
    pub operation: Operation,
    /// How long the caller waited.
    pub elapsed: Duration,
    /// The key, where there is one.
    pub key: Option<&'a [u8]>,
}

/// Who is told, from which time on.
#[derive(Clone)]
pub(crate) struct SlowHook {
    pub(crate) threshold: Duration,
    pub(crate) hook: Arc<dyn Fn(&SlowOperation<'_>) + Send + Sync>,
}

impl fmt::Debug for SlowHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowHook").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}

impl Store {
    /// Does `work`, and tells the hook if it took long. Without a hook no clock is read.
    ///
    /// Gets do without: they wait for nobody, and their path stays as short as it can be.
    #[inline]
    pub(crate) fn timed<T>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        work: impl FnOnce(&Self) -> T,
    ) -> T {
        let begun = self.is_timed.then(|| self.now());
        let answer = work(self);
        if let Some(begun) = begun {
            self.tell(operation, key, begun);
        }
        answer
    }

    #[cold]
    fn now(&self) -> Duration {
        self.ctx.storage.monotonic()
    }

    #[cold]
    fn tell(&self, operation: Operation, key: Option<&[u8]>, begun: Duration) {
        let elapsed = self.now().saturating_sub(begun);
        if let Some(slow) = &self.options.slow
            && elapsed >= slow.threshold
        {
            (slow.hook)(&SlowOperation { operation, elapsed, key });
        }
    }
}
