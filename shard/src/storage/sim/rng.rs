//! A small deterministic generator, so that a seed replays a run on any machine and version.

use std::sync::Arc;

/// `SplitMix64`: fast, and good enough to choose faults with. Or somebody else's choices, as long
/// as they reach.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
    script: Script,
}

/// Bytes that decide before the generator does.
#[derive(Clone, Debug)]
struct Script {
    bytes: Arc<[u8]>,
    at: usize,
}

impl Script {
    /// The next `LEN` bytes as a number, if there are so many.
    fn take<const LEN: usize>(&mut self) -> Option<u64> {
        let bytes = self.bytes.get(self.at..)?.first_chunk::<LEN>()?;
        self.at += LEN;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl Rng {
    /// The same seed gives the same numbers, for ever.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng::scripted(&[], seed)
    }

    /// Each number costs the script as many bytes as it needs. Behind its end the seed decides.
    #[must_use]
    pub fn scripted(script: &[u8], seed: u64) -> Rng {
        Rng { state: seed, script: Script { bytes: script.into(), at: 0 } }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        if let Some(number) = self.script.take::<8>() {
            return number;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, nearly uniform.
    ///
    /// # Panics
    /// When `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "no number is below 0");
        let scripted = match end {
            ..=0x100 => self.script.take::<1>(),
            0x101..=0x1_0000 => self.script.take::<2>(),
            _ => None,
        };
        if let Some(number) = scripted {
            return number % end;
        }
        ((u128::from(self.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// True `numerator` times out of `denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// One of the items.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        // The published test vector of SplitMix64 for the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_script_decides_as_long_as_it_reaches() {
        let mut rng = Rng::scripted(&[7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 3, 9], 5);
        assert_eq!((rng.below(5), rng.below(300)), (2, 256));
        assert_eq!((rng.next_u64(), rng.below(2)), (3, 1));
        assert_eq!(rng.next_u64(), Rng::new(5).next_u64());
    }

    #[test]
    fn numbers_below_reach_every_value() {
        let mut rng = Rng::new(7);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[rng.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
