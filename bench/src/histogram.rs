//! How long operations took: counts in buckets whose width grows with the time.

use std::time::Duration;

/// Buckets to each doubling: a quantile is at most 1/32 too high.
const STEPS: u64 = 32;
const BUCKETS: usize = 60 * STEPS as usize;

/// Nanoseconds, counted.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }

    /// Counts one.
    #[inline]
    pub fn add(&mut self, taken: Duration) {
        let nanos = taken.as_nanos() as u64;
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Counts all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, others) in self.counts.iter_mut().zip(&other.counts) {
            *mine += others;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The nanoseconds that this share of all stayed below; the longest for a share of 1.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return upper_end(index).min(self.max);
            }
        }
        self.max
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Below `STEPS` a bucket for each number; above, `STEPS` to each doubling.
fn bucket(nanos: u64) -> usize {
    let shift = nanos.max(1).ilog2().saturating_sub(STEPS.ilog2());
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((bucket - shift * STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_above_what_is_in_it_and_not_far_above() {
        for nanos in (0..100_000).chain([u64::from(u32::MAX), 1 << 40]) {
            let end = upper_end(bucket(nanos));
            assert!(end >= nanos, "{nanos} ends at {end}");
            assert!(end - nanos <= nanos / STEPS, "{nanos} ends at {end}");
        }
    }

    #[test]
    fn quantiles_of_a_thousand() {
        let mut histogram = Histogram::new();
        let mut other = Histogram::new();
        for i in 1..=1000 {
            let half = if i % 2 == 0 { &mut histogram } else { &mut other };
            half.add(Duration::from_micros(i));
        }
        histogram.merge(&other);
        assert_eq!(histogram.count(), 1000);
        assert_eq!(histogram.quantile(1.0), 1_000_000);
        for (share, nanos) in [(0.5, 500_000_u64), (0.99, 990_000)] {
            let found = histogram.quantile(share);
            assert!((nanos..=nanos + nanos / 32).contains(&found), "{share}: {found}");
        }
    }
}
