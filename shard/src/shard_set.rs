//! Sets of shards.

use caskade_codec::ids::ShardId;

/// A set of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSet([u64; 4]);

impl ShardSet {
    /// The set of the shards below `count`.
    pub fn below(count: u16) -> Self {
        (0..count).map(ShardId).collect()
    }

    /// Adds one.
    pub fn insert(&mut self, shard: ShardId) {
        self.0[usize::from(shard.0 / 64)] |= 1 << (shard.0 % 64);
    }

    /// Takes one out.
    pub fn remove(&mut self, shard: ShardId) {
        self.0[usize::from(shard.0 / 64)] &= !(1 << (shard.0 % 64));
    }

    /// Whether it is in.
    pub fn contains(&self, shard: ShardId) -> bool {
        self.0[usize::from(shard.0 / 64)] >> (shard.0 % 64) & 1 == 1
    }

    /// Both sets.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        self
    }

    /// Whether nothing is in.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ShardId> + use<> {
        let words = self.0;
        (0..256u16).map(ShardId).filter(move |shard| Self(words).contains(*shard))
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        let mut set = Self::default();
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}
