//! Compressed values: four bytes of original length, then the compressed bytes.

use caskade_codec::record::{Flags, VALUE_LEN_MAX};

use crate::options::Compression;

/// Why a stored value cannot be expanded.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The codec is not in this build.
    #[cfg_attr(
        all(feature = "lz4", feature = "zstd"),
        expect(dead_code, reason = "both codecs are in this build")
    )]
    NotBuilt(&'static str),
    /// The bytes make no sense.
    Broken(&'static str),
}

const LEN_BYTES: usize = 4;
/// Shorter values are not worth a try.
const TRY_MIN: usize = 64;

/// The bytes to store instead of `value`, and how they are marked. None if it is not smaller.
pub(crate) fn compress(how: Compression, value: &[u8]) -> Option<(Flags, Vec<u8>)> {
    if how == Compression::None || value.len() < TRY_MIN {
        return None;
    }
    let (flags, packed) = pack(how, value)?;
    if packed.len() + LEN_BYTES >= value.len() {
        return None;
    }
    let mut stored = Vec::with_capacity(LEN_BYTES + packed.len());
    stored.extend_from_slice(&(value.len() as u32).to_le_bytes());
    stored.extend_from_slice(&packed);
    Some((flags, stored))
}

fn pack(how: Compression, value: &[u8]) -> Option<(Flags, Vec<u8>)> {
    let _ = value;
    match how {
        Compression::None => None,
        #[cfg(feature = "lz4")]
        Compression::Lz4 => Some((Flags::LZ4, lz4_flex::block::compress(value))),
        #[cfg(feature = "zstd")]
        Compression::Zstd => {
            zstd::bulk::compress(value, 3).ok().map(|packed| (Flags::ZSTD, packed))
        }
    }
}

/// The length of the original value.
pub(crate) fn original_len(flags: Flags, stored: &[u8]) -> Option<usize> {
    if !flags.contains(Flags::LZ4) && !flags.contains(Flags::ZSTD) {
        return Some(stored.len());
    }
    let len = stored.first_chunk::<LEN_BYTES>()?;
    Some(u32::from_le_bytes(*len) as usize)
}

/// The original of a stored value.
pub(crate) fn decompress(flags: Flags, stored: &[u8]) -> Result<Vec<u8>, Fault> {
    let len = original_len(flags, stored).ok_or(Fault::Broken("a compressed value is cut off"))?;
    if len > VALUE_LEN_MAX {
        return Err(Fault::Broken("a compressed value claims an impossible length"));
    }
    unpack(flags, &stored[LEN_BYTES..], len)
}

fn unpack(flags: Flags, packed: &[u8], len: usize) -> Result<Vec<u8>, Fault> {
    let _ = (packed, len);
    if flags.contains(Flags::LZ4) {
        #[cfg(feature = "lz4")]
        return lz4_flex::block::decompress(packed, len)
            .map_err(|_| Fault::Broken("a value does not decompress"))
            .and_then(|value| exactly(value, len));
        #[cfg(not(feature = "lz4"))]
        return Err(Fault::NotBuilt("lz4"));
    }
    #[cfg(feature = "zstd")]
    return zstd::bulk::decompress(packed, len)
        .map_err(|_| Fault::Broken("a value does not decompress"))
        .and_then(|value| exactly(value, len));
    #[cfg(not(feature = "zstd"))]
    return Err(Fault::NotBuilt("zstd"));
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
fn exactly(value: Vec<u8>, len: usize) -> Result<Vec<u8>, Fault> {
    if value.len() == len { Ok(value) } else { Err(Fault::Broken("a value has another length")) }
}
