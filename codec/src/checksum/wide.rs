//! The checksum by carry-less multiplication, where the processor can multiply so.
//!
//! The usual way, an instruction a word, each waiting for the one before, is as quick when the bytes
//! are at hand. When they are on their way from memory it is not: the instructions fill the
//! processor's queue meanwhile, so that it can't begin the next lookup. Here a few multiplications
//! wait, which depend on nothing but their own bytes.
//!
//! # Why it is right
//! A message is a polynomial over bits, the first bit of the first byte its highest term. A checksum
//! is, but for how it starts and ends, the remainder of the message times `x^32`. So each word
//! may be replaced by something of the same remainder: a word that `j` others follow, `w * x^64j`, by
//! its product with the remainder of `x^64j`, which is short enough to be added up in 128 bits. The
//! sum has the remainder of the whole message, and so its checksum.
//!
//! All words here have their highest term in the lowest bit. The processor's product of two such words
//! is, read the same way as two words, the product of the polynomials times `x`: hence the factors are
//! those of `x^(64j - 1)`.
//!
//! What the checksum starts from is added to the first four bytes.
#![expect(unsafe_code, reason = "calls functions that not every processor can run; vector loads")]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_crc32_u64, _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_extract_epi64,
    _mm_set_epi64x, _mm_xor_si128, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_xor_si256, _mm512_broadcast_i32x4, _mm512_castsi512_si256, _mm512_clmulepi64_epi128,
    _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_maskz_loadu_epi32, _mm512_setzero_si512,
    _mm512_ternarylogic_epi64, _mm512_xor_si512, _mm512_zextsi128_si512,
};
use std::sync::atomic::{AtomicU8, Ordering};

use super::{MIDDLE_LEN_MIN, ONE, POLYNOMIAL, short, times_x};

/// As [`super::extend`]; nothing if others are as quick, or the processor can't.
#[inline(always)]
#[expect(clippy::inline_always, reason = "one call is enough")]
pub(super) fn extend(crc: u32, bytes: &[u8]) -> Option<u32> {
    match ABILITY.load(Ordering::Relaxed) {
        // SAFETY: The processor has what it takes, found `extend_first`.
        BY_VECTORS => Some(unsafe { by_folding(crc, bytes) }),
        BY_WORDS if bytes.len() < MIDDLE_LEN_MIN => {
            // SAFETY: As above.
            Some(unsafe { short::by_instruction(crc, bytes) })
        }
        UNKNOWN => extend_first(crc, bytes),
        _ => None,
    }
}

/// What this processor can. Asked for once: asking takes longer than a short checksum.
static ABILITY: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const NOTHING: u8 = 1;
/// The checksum's own instruction.
const BY_WORDS: u8 = 2;
/// That and products of vectors.
const BY_VECTORS: u8 = 3;

#[cold]
fn extend_first(crc: u32, bytes: &[u8]) -> Option<u32> {
    // Whoever has AVX-512 has the older features.
    let ability = if is_x86_feature_detected!("vpclmulqdq") && is_x86_feature_detected!("avx512f") {
        BY_VECTORS
    } else if is_x86_feature_detected!("sse4.2") {
        BY_WORDS
    } else {
        NOTHING
    };
    ABILITY.store(ability, Ordering::Relaxed);
    extend(crc, bytes)
}

/// The same without vectors, whatever the processor can.
#[cfg(test)]
pub(super) fn extend_by_words(crc: u32, bytes: &[u8]) -> Option<u32> {
    // SAFETY: The processor was just asked for the one feature that the function needs.
    is_x86_feature_detected!("sse4.2").then(|| unsafe { short::by_instruction(crc, bytes) })
}

/// Words in a vector.
const LANES: usize = 8;
/// Vectors that are summed up side by side.
const ROW: usize = 4;
/// Words that are multiplied by factors of their own: those of a row, and of what is less than one.
const WORDS: usize = 2 * ROW * LANES;

/// The factors of the last words of a message that ends with a whole one, in the words' order.
static EVEN: Factors = Factors::new(0);
/// The same where half a word follows the last whole one.
static ODD: Factors = Factors::new(1);

#[repr(align(64))]
struct Factors([u64; WORDS]);

impl Factors {
    const fn new(halves: usize) -> Self {
        let mut all = [0; WORDS];
        let mut behind = 0;
        while behind < WORDS {
            all[WORDS - 1 - behind] = factor(2 * behind + halves);
            behind += 1;
        }
        Self(all)
    }
}

/// What a word is multiplied by that so many half words follow.
const fn factor(halves: usize) -> u64 {
    // One over x: whatever times x is one.
    let mut power = (ONE ^ POLYNOMIAL) << 1 | 1;
    let mut times = 32 * halves;
    while times > 0 {
        power = times_x(power);
        times -= 1;
    }
    (power as u64) << 32
}

/// The vectors are loaded from nowhere but the bytes, not even under a mask: a line beside them would
/// be waited for.
#[target_feature(enable = "avx512f,vpclmulqdq,sse4.2")]
fn by_folding(crc: u32, bytes: &[u8]) -> u32 {
    let odd = bytes.len() % 4;
    if bytes.len() < 64 || odd != 0 {
        return odd_part(crc, bytes, odd);
    }
    let (vectors, rest) = bytes.as_chunks::<64>();
    let halves = rest.len() / 4;
    let factors = if halves % 2 == 0 { &EVEN.0 } else { &ODD.0 };
    let factors = &factors[..WORDS - halves / 2];
    let zero = _mm512_setzero_si512();
    let start = _mm512_zextsi128_si512(_mm_cvtsi32_si128((!crc).cast_signed()));
    let sum = if vectors.len() < 2 * ROW {
        products(start, vectors, factors, zero)
    } else {
        let (rows, vectors) = vectors.as_chunks();
        let (of_row, of_vectors) = factors.split_at(factors.len() - LANES * vectors.len());
        let of_row = of_row[of_row.len() - ROW * LANES..].as_chunks().0;
        let sum = row_of(start, rows)
            .into_iter()
            .zip(of_row)
            .fold(zero, |sum, (vector, factors)| multiplied(vector, load_words(factors), sum));
        products(zero, vectors, of_vectors, sum)
    };
    // Not before the rows: it may lie in another page, which they need not wait for.
    let last = bytes.last_chunk::<64>().expect("there are as many");
    let mask = ((1_u32 << halves) - 1) << (16 - halves);
    // SAFETY: As many bytes as are read, at any address.
    let rest = unsafe { _mm512_maskz_loadu_epi32(mask as u16, last.as_ptr().cast()) };
    let of_rest = EVEN.0.last_chunk().expect("there are more");
    let sum = multiplied(rest, load_words(of_rest), sum);

    let half = _mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
    let sum = _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    !remainder(sum)
}

/// What is too short for a vector, or is no number of half words.
#[target_feature(enable = "avx512f,vpclmulqdq,sse4.2")]
#[inline(never)]
fn odd_part(crc: u32, bytes: &[u8], odd: usize) -> u32 {
    if bytes.len() < 64 + odd {
        return short::by_instruction(crc, bytes);
    }
    let (odd, words) = bytes.split_at(odd);
    by_folding(short::by_instruction(crc, odd), words)
}

/// Adds the products of the vectors and the last factors to `sum`. `start` is added to the first
/// vector.
#[target_feature(enable = "avx512f,vpclmulqdq")]
#[inline]
fn products(
    mut start: __m512i,
    vectors: &[[u8; 64]],
    factors: &[u64],
    mut sum: __m512i,
) -> __m512i {
    let factors = &factors[factors.len() - LANES * vectors.len()..];
    for (vector, factors) in vectors.iter().zip(factors.as_chunks().0) {
        let vector = _mm512_xor_si512(load(vector), start);
        start = _mm512_setzero_si512();
        sum = multiplied(vector, load_words(factors), sum);
    }
    sum
}

/// A row that has the remainder of all these rows.
#[target_feature(enable = "avx512f,vpclmulqdq")]
#[inline]
fn row_of(start: __m512i, rows: &[[[u8; 64]; ROW]]) -> [__m512i; ROW] {
    const NEXT: [u64; 2] = [factor(2 * (ROW * LANES + 1)), factor(2 * ROW * LANES)];
    let next = _mm512_broadcast_i32x4(pair(NEXT));
    let zero = _mm512_setzero_si512();
    // Before the first row is nothing but the start, which is to end up in its first word.
    let mut sums = [zero; ROW];
    let mut start = start;
    for row in rows {
        for (sum, vector) in sums.iter_mut().zip(row) {
            *sum = multiplied(*sum, next, _mm512_xor_si512(load(vector), start));
            start = zero;
        }
    }
    sums
}

/// The products of the vector's words and the factors, added up by two, and added to `sum`.
#[target_feature(enable = "avx512f,vpclmulqdq")]
#[inline]
fn multiplied(vector: __m512i, factors: __m512i, sum: __m512i) -> __m512i {
    let even = _mm512_clmulepi64_epi128::<0x00>(vector, factors);
    let odd = _mm512_clmulepi64_epi128::<0x11>(vector, factors);
    _mm512_ternarylogic_epi64::<0x96>(even, odd, sum)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: As many bytes as are read, at any address.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_words(words: &[u64; LANES]) -> __m512i {
    // SAFETY: As many bytes as are read, at any address.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[target_feature(enable = "sse2")]
#[inline]
fn pair([first, second]: [u64; 2]) -> __m128i {
    _mm_set_epi64x(second.cast_signed(), first.cast_signed())
}

/// The checksum register after these bytes, started from zero.
#[target_feature(enable = "sse4.2")]
#[inline]
fn remainder(bytes: __m128i) -> u32 {
    let first = _mm_crc32_u64(0, _mm_cvtsi128_si64(bytes).cast_unsigned());
    _mm_crc32_u64(first, _mm_extract_epi64::<1>(bytes).cast_unsigned()) as u32
}
