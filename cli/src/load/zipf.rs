//! Numbers by chance: scrambled, and by Zipf's law as YCSB draws them.

/// A number that looks like chance, another one for every input (`SplitMix64`).
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

const THETA: f64 = 0.99;

/// Ranks below a number, the lower the likelier: Gray et al., "Quickly generating billion-record
/// synthetic databases", as YCSB has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zipf {
    n: f64,
    zeta_n: f64,
    eta: f64,
}

impl Zipf {
    /// Ranks below `n`, at least 2.
    pub(crate) fn new(n: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let (zeta_n, n) = (zeta(n), n as f64);
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - zeta(2) / zeta_n);
        Self { n, zeta_n, eta }
    }

    /// The rank for a number by chance.
    pub(crate) fn rank(&self, chance: u64) -> u64 {
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
