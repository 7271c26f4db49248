//! Batches: several changes that a crash leaves all or none of, over any number of shards.

use std::time::Duration;

use crate::options::{ExpiryAt, WriteOptions};

/// Changes to be written together.
///
/// ```
/// # fn main() -> caskade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = caskade::Db::open(dir.path().join("data"))?;
/// let mut batch = caskade::Batch::new();
/// batch.put(b"from", b"60").put(b"to", b"40").delete(b"pending");
/// db.write(&batch)?;
/// # assert_eq!(db.get(b"to")?.unwrap(), b"40");
/// # db.close()
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ops: Vec<BatchOp>,
}

#[derive(Debug, Clone, Copy)]
struct BatchOp {
    key_start: usize,
    value_start: usize,
    end: usize,
    is_delete: bool,
    expiry: Option<ExpiryAt>,
}

/// One change of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a [u8],
    /// None deletes the key.
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) expiry: Option<ExpiryAt>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put. Of several changes to one key the last wins.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.push(key, Some(value), None)
    }

    /// Adds a put that expires after `ttl`, counted from the write of the batch.
    pub fn put_with_ttl(&mut self, key: &[u8], value: &[u8], ttl: Duration) -> &mut Self {
        self.push(key, Some(value), WriteOptions::new().ttl(ttl).expiry)
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8]) -> &mut Self {
        self.push(key, None, None)
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>, expiry: Option<ExpiryAt>) -> &mut Self {
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value_start = self.bytes.len();
        self.bytes.extend_from_slice(value.unwrap_or_default());
        let (end, is_delete) = (self.bytes.len(), value.is_none());
        self.ops.push(BatchOp { key_start, value_start, end, is_delete, expiry });
        self
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Removes all changes and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ops.clear();
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.ops.iter().map(|op| Change {
            key: &self.bytes[op.key_start..op.value_start],
            value: (!op.is_delete).then(|| &self.bytes[op.value_start..op.end]),
            expiry: op.expiry,
        })
    }
}
