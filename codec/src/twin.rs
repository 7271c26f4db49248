//! The envelope of `STORE` and `MANIFEST`: the same block twice in one file.
//!
//! Invariants of a file as written:
//! - a block is magic, version, payload length, payload, checksum of all before;
//! - the first block is padded with zeros to a multiple of 4096, the second ends the file;
//! - both blocks are equal.
//!
//! Either block serves alone; [`Copies`] says which one was damaged, so that the file can be
//! replaced.

pub use crate::fault::Fault;

use crate::FORMAT_VERSION;
use crate::bytes;
use crate::checksum;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const PAYLOAD_LEN_AT: usize = VERSION_AT + 4;
const PAYLOAD_AT: usize = PAYLOAD_LEN_AT + 4;
const CRC_LEN: usize = 4;
const _: () = assert!(PAYLOAD_AT == 16);

/// The second copy begins at a multiple of this.
pub const COPY_ALIGNMENT: usize = 4096;
/// The longest payload.
pub const PAYLOAD_LEN_MAX: usize = 16 << 20;

/// Which copies are as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    /// The first copy and the padding behind it.
    pub first_is_intact: bool,
    /// The second copy, which also ends the file.
    pub second_is_intact: bool,
}

impl Copies {
    /// Whether the file need not be replaced.
    #[must_use]
    pub const fn are_intact(self) -> bool {
        self.first_is_intact && self.second_is_intact
    }
}

/// Builds the file around `payload`.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_LEN_MAX`].
#[must_use]
pub fn encode(magic: [u8; 8], payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_LEN_MAX, "a payload keeps to its limit");
    let mut block = vec![0; PAYLOAD_AT];
    bytes::put(&mut block, MAGIC_AT, &magic);
    bytes::put_u32(&mut block, VERSION_AT, FORMAT_VERSION);
    bytes::put_u32(&mut block, PAYLOAD_LEN_AT, payload.len() as u32);
    block.extend_from_slice(payload);
    block.extend_from_slice(&checksum::of(&block).to_le_bytes());
    let mut file = block.clone();
    file.resize(block.len().next_multiple_of(COPY_ALIGNMENT), 0);
    file.extend_from_slice(&block);
    file
}

/// The payload of the first valid copy.
pub fn decode(magic: [u8; 8], file: &[u8]) -> Result<(&[u8], Copies), Fault> {
    let (block, copies) = match Block::decode(magic, file) {
        Ok(block) => (block, check_around(file, block)),
        Err(fault) => {
            let block = find_second(magic, file).ok_or(fault)?;
            (block, Copies { first_is_intact: false, second_is_intact: true })
        }
    };
    if block.version == FORMAT_VERSION {
        Ok((block.payload, copies))
    } else {
        Err(Fault::Version(block.version))
    }
}

/// Compares everything behind a valid first block with what was written there.
fn check_around(file: &[u8], block: Block<'_>) -> Copies {
    let second_at = block.padded_len();
    let padding = file.get(block.bytes.len()..second_at);
    Copies {
        first_is_intact: padding.is_some_and(bytes::all_zero),
        second_is_intact: file.get(second_at..) == Some(block.bytes),
    }
}

/// Looks for a second copy wherever one may begin. The first, of the same length, fits exactly
/// before it.
fn find_second(magic: [u8; 8], file: &[u8]) -> Option<Block<'_>> {
    (COPY_ALIGNMENT..=BLOCK_LEN_MAX.min(file.len())).step_by(COPY_ALIGNMENT).find_map(|at| {
        let rest = &file[at..];
        let is_plausible = block_len(rest)?.next_multiple_of(COPY_ALIGNMENT) == at;
        if is_plausible { Block::decode(magic, rest).ok() } else { None }
    })
}

const BLOCK_LEN_MAX: usize =
    (PAYLOAD_AT + PAYLOAD_LEN_MAX + CRC_LEN).next_multiple_of(COPY_ALIGNMENT);

/// A valid block, of any version.
#[derive(Debug, Clone, Copy)]
struct Block<'a> {
    version: u32,
    payload: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    fn decode(magic: [u8; 8], bytes: &'a [u8]) -> Result<Self, Fault> {
        let len = block_len(bytes).ok_or(Fault::Length)?;
        if bytes::get(bytes, MAGIC_AT) != magic {
            return Err(Fault::Magic);
        }
        let bytes = bytes.get(..len).ok_or(Fault::Length)?;
        let crc_at = len - CRC_LEN;
        if bytes::get_u32(bytes, crc_at) != checksum::of(&bytes[..crc_at]) {
            return Err(Fault::Checksum);
        }
        let version = bytes::get_u32(bytes, VERSION_AT);
        Ok(Self { version, payload: &bytes[PAYLOAD_AT..crc_at], bytes })
    }

    fn padded_len(&self) -> usize {
        self.bytes.len().next_multiple_of(COPY_ALIGNMENT)
    }
}

/// The length that a block claims, if it is within the limit.
fn block_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<PAYLOAD_AT>()?;
    let payload_len = bytes::get_u32(head, PAYLOAD_LEN_AT) as usize;
    (payload_len <= PAYLOAD_LEN_MAX).then_some(PAYLOAD_AT + payload_len + CRC_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"TESTTWIN";
    const INTACT: Copies = Copies { first_is_intact: true, second_is_intact: true };
    const FIRST_DAMAGED: Copies = Copies { first_is_intact: false, second_is_intact: true };
    const SECOND_DAMAGED: Copies = Copies { first_is_intact: true, second_is_intact: false };

    #[test]
    fn either_copy_serves() {
        for len in [0, 1, 4075, 4076, 4077, 9000] {
            let payload = vec![0x5A; len];
            let file = encode(MAGIC, &payload);
            let second_at = (len + 20).next_multiple_of(4096);
            assert_eq!(decode(MAGIC, &file), Ok((&payload[..], INTACT)));
            for at in [0, 9, 13, 19 + len] {
                let mut first = file.clone();
                first[at] ^= 1;
                assert_eq!(decode(MAGIC, &first), Ok((&payload[..], FIRST_DAMAGED)), "{len} {at}");
                let mut second = file.clone();
                second[second_at + at] ^= 1;
                assert_eq!(decode(MAGIC, &second), Ok((&payload[..], SECOND_DAMAGED)));
                first[second_at + at] ^= 1;
                assert!(decode(MAGIC, &first).is_err(), "{len} {at}");
            }
        }
    }

    #[test]
    fn padding_and_tail_count() {
        let mut file = encode(MAGIC, b"payload");
        file[100] = 1;
        assert_eq!(decode(MAGIC, &file).unwrap().1, FIRST_DAMAGED);
        file[100] = 0;
        file.push(0);
        assert_eq!(decode(MAGIC, &file).unwrap().1, SECOND_DAMAGED);
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut block = encode(MAGIC, b"unknown")[4096..].to_vec();
        block[VERSION_AT] = FORMAT_VERSION as u8 + 1;
        let crc_at = block.len() - CRC_LEN;
        let crc = checksum::of(&block[..crc_at]);
        bytes::put_u32(&mut block, crc_at, crc);
        assert_eq!(decode(MAGIC, &block), Err(Fault::Version(FORMAT_VERSION + 1)));
        let mut only_second = vec![0; 4096];
        only_second.extend_from_slice(&block);
        assert_eq!(decode(MAGIC, &only_second), Err(Fault::Version(FORMAT_VERSION + 1)));
    }

    #[test]
    fn the_fault_is_the_first_copys() {
        assert_eq!(decode(MAGIC, b""), Err(Fault::Length));
        assert_eq!(decode(*b"OTHERONE", &encode(MAGIC, b"")), Err(Fault::Magic));
    }
}
