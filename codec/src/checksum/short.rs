//! The checksum of short inputs, by the processor's own instruction.
//!
//! Most records are about a hundred bytes long: there, setting up several streams costs more than
//! it saves.

/// As [`super::extend`].
#[target_feature(enable = "sse4.2")]
pub(super) fn by_instruction(crc: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};

    let mut register = !crc;
    let mut rest = bytes;
    // Half a word first: in a record's frame the words behind it are aligned.
    if bytes.len() & 4 != 0
        && let Some((half, behind)) = bytes.split_first_chunk::<4>()
    {
        register = _mm_crc32_u32(register, u32::from_le_bytes(*half));
        rest = behind;
    }
    let (words, rest) = rest.as_chunks::<8>();
    let register = words.iter().fold(u64::from(register), |register, word| {
        _mm_crc32_u64(register, u64::from_le_bytes(*word))
    });
    !rest.iter().fold(register as u32, |register, &byte| _mm_crc32_u8(register, byte))
}
