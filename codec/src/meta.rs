//! `STORE`: what a store is. Written once, when it is created.

pub use crate::fault::Fault;
pub use crate::twin::Copies;

use crate::bytes;
use crate::hash::SECRET_LEN;
use crate::ids::StoreUuid;
use crate::{names, twin};
use std::fmt;

/// The first bytes of each copy.
pub const MAGIC: [u8; 8] = *b"CSKDSTO1";

const UUID_AT: usize = 0;
const CREATED_MS_AT: usize = UUID_AT + 16;
const SHARDS_AT: usize = CREATED_MS_AT + 8;
const ZERO_AT: usize = SHARDS_AT + 2;
const SECRET_AT: usize = ZERO_AT + 6;
const PAYLOAD_LEN: usize = SECRET_AT + SECRET_LEN;
const _: () = assert!(PAYLOAD_LEN == 224);

/// A store's constants.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreMeta {
    /// The store's identity, which all its files repeat.
    pub uuid: StoreUuid,
    /// Number of shards, 1 to 256.
    pub shards: u16,
    /// The key hash's secret.
    pub secret: [u8; SECRET_LEN],
    /// When the store was created, Unix time in milliseconds. For people only.
    pub created_ms: u64,
}

impl StoreMeta {
    /// The whole file.
    ///
    /// # Panics
    /// If the number of shards is impossible.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a store's constants are valid before they are written");
        let mut payload = [0; PAYLOAD_LEN];
        bytes::put(&mut payload, UUID_AT, &self.uuid.0);
        bytes::put_u64(&mut payload, CREATED_MS_AT, self.created_ms);
        bytes::put_u16(&mut payload, SHARDS_AT, self.shards);
        bytes::put(&mut payload, SECRET_AT, &self.secret);
        twin::encode(MAGIC, &payload)
    }

    /// Decodes the whole file.
    pub fn decode(file: &[u8]) -> Result<(Self, Copies), Fault> {
        let (payload, copies) = twin::decode(MAGIC, file)?;
        let b: &[u8; PAYLOAD_LEN] = payload.try_into().map_err(|_| Fault::Field("payload"))?;
        if !bytes::all_zero(&b[ZERO_AT..SECRET_AT]) {
            return Err(Fault::Field("reserved"));
        }
        let meta = Self {
            uuid: StoreUuid(bytes::get(b, UUID_AT)),
            shards: bytes::get_u16(b, SHARDS_AT),
            secret: bytes::get(b, SECRET_AT),
            created_ms: bytes::get_u64(b, CREATED_MS_AT),
        };
        meta.check()?;
        Ok((meta, copies))
    }

    fn check(&self) -> Result<(), Fault> {
        let is_possible = (1..=names::SHARDS_MAX).contains(&self.shards);
        if is_possible { Ok(()) } else { Err(Fault::Field("shards")) }
    }
}

/// The secret stays out of logs.
impl fmt::Debug for StoreMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreMeta")
            .field("uuid", &self.uuid)
            .field("shards", &self.shards)
            .field("created_ms", &self.created_ms)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_within_its_limits() {
        let meta = StoreMeta {
            uuid: StoreUuid([9; 16]),
            shards: 256,
            secret: [3; SECRET_LEN],
            created_ms: 1_700_000_000_000,
        };
        let (decoded, copies) = StoreMeta::decode(&meta.encode()).unwrap();
        assert_eq!(decoded, meta);
        assert!(copies.are_intact());
        assert!(!format!("{meta:?}").contains("secret"));

        for shards in [0_u16, 257] {
            let mut payload = [0; PAYLOAD_LEN];
            bytes::put_u16(&mut payload, SHARDS_AT, shards);
            let file = twin::encode(MAGIC, &payload);
            assert_eq!(StoreMeta::decode(&file), Err(Fault::Field("shards")));
        }
        let file = twin::encode(MAGIC, &[0; PAYLOAD_LEN + 1]);
        assert_eq!(StoreMeta::decode(&file), Err(Fault::Field("payload")));
    }
}
