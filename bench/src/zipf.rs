//! Zipf's law, as YCSB draws it.

use crate::workload::mix;

const THETA: f64 = 0.99;

/// Numbers below a bound, a few of them very often: Gray et al., "Quickly generating billion-record
/// synthetic databases". The often ones are scattered over all numbers.
#[derive(Debug, Clone, Copy)]
pub struct Zipf {
    n: f64,
    zeta_n: f64,
    eta: f64,
}

impl Zipf {
    /// Numbers below `n`, at least 2.
    #[must_use]
    pub fn new(n: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let (zeta_n, n) = (zeta(n), n as f64);
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - zeta(2) / zeta_n);
        Self { n, zeta_n, eta }
    }

    fn rank(&self, chance: u64) -> u64 {
        let u = (chance >> 11) as f64 / (1_u64 << 53) as f64;
        let uz = u * self.zeta_n;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.n * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.n as u64 - 1)
    }

    /// `count` numbers, drawn ahead: drawing one costs about as much as a lookup.
    #[must_use]
    pub fn draw_many(&self, seed: u64, count: usize) -> Vec<u32> {
        let scattered = |rank: u32| (mix(u64::from(rank) ^ 0x5EED) % self.n as u64) as u32;
        self.draw_ranks(seed, count).into_iter().map(scattered).collect()
    }

    /// The same, not scattered: the lower a number, the more often it comes.
    #[must_use]
    pub fn draw_ranks(&self, seed: u64, count: usize) -> Vec<u32> {
        (0..count as u64).map(|i| self.rank(mix(seed << 32 ^ i)) as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_ranks_are_as_likely_as_the_law_says() {
        const DRAWS: u64 = 200_000;
        let zipf = Zipf::new(10_000);
        let mut counts = vec![0_u64; 10_000];
        for i in 0..DRAWS {
            counts[zipf.rank(mix(i)) as usize] += 1;
        }
        let zeta: f64 = (1..=10_000).map(|i| f64::from(i).powf(-THETA)).sum();
        for rank in [0, 1] {
            let expected = DRAWS as f64 * f64::from(rank + 1).powf(-THETA) / zeta;
            let found = counts[rank as usize] as f64;
            assert!((found / expected - 1.0).abs() < 0.05, "{rank}: {found} for {expected}");
        }
        assert!(counts[5_000..].iter().sum::<u64>() > DRAWS / 50, "the tail is drawn too");
    }
}
