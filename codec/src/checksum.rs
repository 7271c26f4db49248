//! The one checksum of the format: CRC-32C (Castagnoli, reflected, initial value and final
//! exclusive-or all ones).

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod short;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod wide;

use std::ops::Range;

/// CRC-32C of `bytes`.
#[inline]
#[must_use]
pub fn of(bytes: &[u8]) -> u32 {
    extend(0, bytes)
}

/// Continues a finished checksum: `extend(of(a), b) == of(a ++ b)`. Any `u32` may stand for the
/// start, which is how a checksum is bound to a place.
#[inline]
#[must_use]
pub fn extend(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if let Some(crc) = wide::extend(crc, bytes) {
        return crc;
    }
    extend_more(crc, bytes)
}

/// Each implementation is quicker than the one before from its length on, and costs more to begin.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const MIDDLE_LEN_MIN: usize = 256;
const LONG_LEN_MIN: usize = 1024;

#[inline(never)]
fn extend_more(crc: u32, bytes: &[u8]) -> u32 {
    if bytes.len() < LONG_LEN_MIN {
        crc32c::crc32c_append(crc, bytes)
    } else {
        extend_long(crc, bytes)
    }
}

fn extend_long(crc: u32, bytes: &[u8]) -> u32 {
    let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
    let mut digest = crc_fast::Digest::new_with_init_state(algorithm, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

/// Checksums of any ranges of the same bytes, each in bounded time.
///
/// The checksum register after `n` more bytes is its old content times `x^8n`, plus what the bytes
/// give from zero. So the register over whole blocks follows from two prefixes' and one product.
#[derive(Debug)]
pub(crate) struct Prefixes<'a> {
    bytes: &'a [u8],
    /// The register after the first `k` blocks, started from zero.
    registers: Vec<u32>,
    /// `x` to the bits of `k` blocks.
    powers: Vec<u32>,
}

/// Length of the blocks whose checksums [`Prefixes`] keeps.
const BLOCK_LEN: usize = 1024;
/// The polynomial without its highest term; like all registers here, the lowest term comes first.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

impl<'a> Prefixes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let blocks = bytes.chunks_exact(BLOCK_LEN);
        let (mut registers, mut powers) = (vec![0], vec![ONE]);
        let (mut register, mut power) = (0, ONE);
        let block_power = advance(ONE, &[0; BLOCK_LEN]);
        for block in blocks {
            register = advance(register, block);
            registers.push(register);
            power = multiply(power, block_power);
            powers.push(power);
        }
        Self { bytes, registers, powers }
    }

    /// The same as `extend(crc, &bytes[range])`.
    pub(crate) fn extend(&self, crc: u32, range: Range<usize>) -> u32 {
        let first = range.start.div_ceil(BLOCK_LEN);
        let end = range.end / BLOCK_LEN;
        if first >= end {
            return extend(crc, &self.bytes[range]);
        }
        let head = !extend(crc, &self.bytes[range.start..first * BLOCK_LEN]);
        let blocks =
            self.registers[end] ^ multiply(self.registers[first] ^ head, self.powers[end - first]);
        extend(!blocks, &self.bytes[end * BLOCK_LEN..range.end])
    }
}

/// The register after `bytes`.
fn advance(register: u32, bytes: &[u8]) -> u32 {
    !extend(!register, bytes)
}

/// The product of two polynomials, modulo [`POLYNOMIAL`].
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..u32::BITS).rev() {
        product ^= b & (a >> bit & 1).wrapping_neg();
        b = times_x(b);
    }
    product
}

/// A polynomial times `x`, modulo [`POLYNOMIAL`].
const fn times_x(a: u32) -> u32 {
    a >> 1 ^ POLYNOMIAL & (a & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_crc_32c() {
        assert_eq!(of(b"123456789"), 0xE306_9283);
        assert_eq!(of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(of(b""), 0);
    }

    #[test]
    fn extends() {
        assert_eq!(extend(of(b"1234"), b"56789"), of(b"123456789"));
    }

    #[test]
    fn all_implementations_agree() {
        let bytes: Vec<u8> = (0..5000_u32).map(|i| (i * 31 % 251) as u8).collect();
        for len in (0..1100).chain([2048, 4095, 4096, 4099]) {
            for (start, crc) in [(0, 0), (1, 1), (7, 0xDEAD_BEEF), (63, u32::MAX)] {
                let bytes = &bytes[start..start + len];
                let sum = crc32c::crc32c_append(crc, bytes);
                let all = [extend(crc, bytes), extend_long(crc, bytes)];
                assert_eq!(all, [sum; 2], "{start} {len} {crc:08x}");
                #[cfg(all(target_arch = "x86_64", not(miri)))]
                assert_eq!(wide::extend_by_words(crc, bytes).unwrap_or(sum), sum, "{len}");
            }
        }
    }

    #[test]
    fn another_start_never_gives_the_same_sum() {
        for bit in 0..32 {
            assert_ne!(extend(0, b"the same bytes"), extend(1 << bit, b"the same bytes"));
        }
    }

    #[test]
    fn prefixes_agree_with_the_plain_sum() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i * 31 % 251) as u8).collect();
        let prefixes = Prefixes::new(&bytes);
        for start in [0, 1, 1023, 1024, 1025, 5000, 9999] {
            for end in [0, 1, 1024, 2047, 2048, 4096, 9216, 9999, 10_000] {
                if start <= end {
                    let plain = extend(0xABCD, &bytes[start..end]);
                    assert_eq!(prefixes.extend(0xABCD, start..end), plain, "{start}..{end}");
                }
            }
        }
    }
}
