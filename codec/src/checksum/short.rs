//! The checksum of short inputs, by the processor's own instruction where it has one.
//!
//! Most records are about a hundred bytes long: there, setting up several streams costs more than
//! it saves.
#![cfg_attr(
    all(target_arch = "x86_64", not(miri)),
    expect(unsafe_code, reason = "calls a function that not every processor can run")
)]

/// As [`super::extend`].
#[inline(always)]
#[expect(clippy::inline_always, reason = "one call is enough")]
pub(super) fn extend(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: The processor was just asked for the one feature that the function needs.
        return unsafe { by_instruction(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "sse4.2")]
fn by_instruction(crc: u32, bytes: &[u8]) -> u32 {
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
