//! Work that is not to be done faster than so.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A rate that is kept by sleeping, by all threads together.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_sec: Option<u64>,
    /// When everything is paid for that was spent.
    paid_at: Mutex<Duration>,
}

impl Rate {
    /// Short sleeps are never exact: so small a debt is left to who comes next.
    const LEAST: Duration = Duration::from_millis(5);
    /// A longer sleep is cut in pieces.
    const PIECE: Duration = Duration::from_millis(50);

    pub(crate) fn new(bytes_per_sec: Option<u64>) -> Self {
        Self { bytes_per_sec, paid_at: Mutex::default() }
    }

    /// Sleeps until so many bytes, spent `now`, are paid for, or until `is_over`, which is asked now
    /// and then.
    pub(crate) fn spend(&self, bytes: u64, now: Duration, is_over: impl Fn() -> bool) {
        let Some(rate) = self.bytes_per_sec else { return };
        let cost = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        let mut left = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            // What was not used is not saved up.
            *paid_at = (*paid_at).max(now) + cost;
            paid_at.saturating_sub(now)
        };
        while left >= Self::LEAST && !is_over() {
            let piece = left.min(Self::PIECE);
            std::thread::sleep(piece);
            left = left.saturating_sub(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn threads_share_a_rate() {
        let rate = Rate::new(Some(1 << 20));
        let pieces = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    rate.spend(256 << 10, Duration::ZERO, || {
                        pieces.fetch_add(1, Ordering::Relaxed);
                        false
                    });
                });
            }
        });
        // A quarter of a second for the first, a whole one for the last: in pieces of a twentieth.
        assert_eq!(pieces.into_inner(), 5 + 10 + 15 + 20);
    }

    #[test]
    fn a_slow_rate_ends_with_the_store() {
        let rate = Rate::new(Some(1));
        let pieces = std::cell::Cell::new(0);
        rate.spend(1 << 30, Duration::ZERO, || {
            pieces.set(pieces.get() + 1);
            pieces.get() == 3
        });
        assert_eq!(pieces.get(), 3);
    }
}
