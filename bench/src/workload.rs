//! Deterministic keys, values and orders of access.

/// Length of every key.
pub const KEY_LEN: usize = 16;
/// Length of every value.
pub const VALUE_LEN: usize = 100;
/// Key and value together: what a user stores.
pub const LOGICAL_LEN: u64 = (KEY_LEN + VALUE_LEN) as u64;

const POOL_LEN: usize = 1 << 16;

/// A number that looks random, the same for the same input (`SplitMix64`).
#[inline]
#[must_use]
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// The key of number `i`.
#[inline]
#[must_use]
pub fn key(i: u64) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key[..8].copy_from_slice(&mix(i).to_le_bytes());
    key[8..].copy_from_slice(&i.to_be_bytes());
    key
}

/// A key that no [`key`] below 2^63 equals.
#[inline]
#[must_use]
pub fn absent_key(i: u64) -> [u8; KEY_LEN] {
    key(i | 1 << 63)
}

/// Values that do not compress.
#[derive(Debug)]
pub struct Values {
    pool: Vec<u8>,
    len: usize,
}

impl Values {
    /// Values of [`VALUE_LEN`] bytes, the same every time.
    #[must_use]
    pub fn new() -> Self {
        Self::of_len(VALUE_LEN)
    }

    /// Values of `len` bytes.
    #[must_use]
    pub fn of_len(len: usize) -> Self {
        let words = 0..(POOL_LEN.max(2 * len) / 8) as u64;
        Self { pool: words.flat_map(|word| mix(word ^ 0xABCD).to_le_bytes()).collect(), len }
    }

    /// Value `version` of key number `i`.
    #[inline]
    #[must_use]
    pub fn get(&self, i: u64, version: u64) -> &[u8] {
        let start = mix(i ^ version << 40) as usize % (self.pool.len() - self.len);
        &self.pool[start..start + self.len]
    }
}

impl Default for Values {
    fn default() -> Self {
        Self::new()
    }
}

/// Numbers below a bound, uniform.
#[derive(Debug, Clone)]
pub struct Uniform {
    state: u64,
    bound: u64,
}

impl Uniform {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64, bound: u64) -> Self {
        Self { state: mix(seed), bound }
    }

    /// The next number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        ((u128::from(mix(self.state)) * u128::from(self.bound)) >> 64) as u64
    }
}
