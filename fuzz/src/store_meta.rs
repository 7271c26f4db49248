//! `STORE`.

use crate::input::Input;
use crate::twin::{self, Twin};
use caskade_codec::hash::SECRET_LEN;
use caskade_codec::meta::{Copies, MAGIC, StoreMeta};

/// Decodes `STORE` files with any damage; builds them and reads them back.
pub fn store_meta(data: &[u8]) {
    twin::check_all::<StoreMeta>(data);
}

impl Twin for StoreMeta {
    const MAGIC: [u8; 8] = MAGIC;

    fn encode(&self) -> Vec<u8> {
        Self::encode(self)
    }

    fn decode(file: &[u8]) -> Option<(Self, Copies)> {
        let (meta, copies) = Self::decode(file).ok()?;
        assert!((1..=256).contains(&meta.shards));
        Some((meta, copies))
    }

    fn read(input: &mut Input<'_>) -> Self {
        Self {
            uuid: input.uuid(),
            shards: u16::from(input.u8()) + 1,
            created_ms: input.u64(),
            secret: input.array::<SECRET_LEN>(),
        }
    }
}
