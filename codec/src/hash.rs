//! The key hash: XXH3-64 with the store's secret.
//!
//! One hash serves the router and the keydir: the remainder by the shard count picks the shard, the
//! upper half is what hints, snapshots and the keydir store.

use crate::ids::ShardId;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_secret;

/// Length of a store's hash secret.
pub const SECRET_LEN: usize = 192;

/// Hashes keys with one store's secret.
#[derive(Clone)]
pub struct KeyHasher {
    secret: [u8; SECRET_LEN],
}

impl KeyHasher {
    /// A hasher with this secret.
    #[must_use]
    pub fn new(secret: &[u8; SECRET_LEN]) -> Self {
        Self { secret: *secret }
    }

    /// The key's hash.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_secret(key, &self.secret)
    }
}

/// The secret stays out of logs: who knows it can make keys collide.
impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

/// The shard that a hash belongs to, among `shards` of them (1 to 256).
#[inline]
#[must_use]
pub fn shard_of(hash: u64, shards: u64) -> ShardId {
    // A lookup waits for this remainder, and a division takes long.
    let mask = shards - 1;
    let remainder = if shards & mask == 0 { hash & mask } else { hash % shards };
    ShardId(remainder as u16)
}

/// The 32 bits that hints, snapshots and the keydir keep of a hash.
#[inline]
#[must_use]
pub fn keydir_bits(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_matters_and_is_not_shown() {
        let [a, b] =
            [3, 5].map(|step| KeyHasher::new(&std::array::from_fn(|index| (index * step) as u8)));
        assert_ne!(a.hash(b"key"), b.hash(b"key"));
        assert_eq!(format!("{a:?}"), "KeyHasher { .. }");
    }

    #[test]
    fn shard_and_bits() {
        assert_eq!(shard_of(0x0000_0007_0000_0102, 256), ShardId(2));
        assert_eq!(keydir_bits(0x0000_0007_0000_0102), 7);
    }
}
