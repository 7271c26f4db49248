//! Comparing the hashes of a bucket, all at once where the processor can.
#![cfg_attr(
    not(any(not(target_arch = "x86_64"), miri, loom, caskade_portable)),
    expect(unsafe_code, reason = "vector loads of memory that other threads write")
)]

use crate::{
    keydir::geometry::SLOTS,
    sync::{AtomicU32, Ordering},
};

/// The lanes of a bucket that hold `hash`; bit `i` stands for lane `i`.
#[inline]
pub(super) fn matching(hashes: &[AtomicU32; SLOTS], hash: u32) -> u32 {
    lanes_with(hashes, hash)
}

/// The lanes of a bucket that were never used.
#[inline]
pub(super) fn unused(hashes: &[AtomicU32; SLOTS]) -> u32 {
    lanes_with(hashes, 0)
}

#[cfg(any(not(target_arch = "x86_64"), miri, loom, caskade_portable))]
use lanes_with_portable as lanes_with;

/// One relaxed load a lane.
#[cfg_attr(
    not(any(not(target_arch = "x86_64"), miri, loom, caskade_portable)),
    cfg_attr(not(test), expect(dead_code, reason = "the vector code stands in for it"))
)]
#[inline]
fn lanes_with_portable(hashes: &[AtomicU32; SLOTS], value: u32) -> u32 {
    let bits = hashes.iter().enumerate().map(|(lane, stored)| {
        let stored = stored.load(Ordering::Relaxed);
        u32::from(stored == value) << lane
    });
    bits.fold(0, |lanes, bit| lanes | bit)
}

/// The same, all at once.
#[cfg(not(any(not(target_arch = "x86_64"), miri, loom, caskade_portable)))]
#[inline]
fn lanes_with(hashes: &[AtomicU32; SLOTS], value: u32) -> u32 {
    use std::arch::x86_64::__m128i;

    let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
    // SAFETY: The reference proves 64 readable bytes, and a bucket aligns them to 64, so the aligned
    // loads do not trap. Nothing is written.
    // Other threads may store to the lanes meanwhile. A vector load written in Rust would be a data
    // race; assembly is judged by what the machine does, and must be something that Rust could have
    // done itself: here, sixteen relaxed atomic loads in some order. That holds as each lane is an
    // aligned doubleword inside one cache line, and x86-64 does not tear such a doubleword, not even
    // where a processor divides a vector load into parts.
    // What remains is that last sentence: the manuals promise atomicity of whole aligned vector
    // loads from AVX on, and say nothing of the lanes of older processors; none is known to tear
    // them. A torn lane would be a wrong hash: a missed entry in a race with its own insertion, or
    // a false match, which the key comparison refuses.
    unsafe {
        std::arch::asm!(
            "movdqa {a}, xmmword ptr [{p}]",
            "movdqa {b}, xmmword ptr [{p} + 16]",
            "movdqa {c}, xmmword ptr [{p} + 32]",
            "movdqa {d}, xmmword ptr [{p} + 48]",
            p = in(reg) hashes.as_ptr(),
            a = out(xmm_reg) a,
            b = out(xmm_reg) b,
            c = out(xmm_reg) c,
            d = out(xmm_reg) d,
            options(readonly, nostack, preserves_flags),
        );
    }
    // SAFETY: SSE2 is part of x86-64.
    unsafe { compare([a, b, c, d], value) }
}

/// Compares sixteen hashes that were loaded.
#[cfg(not(any(not(target_arch = "x86_64"), miri, loom, caskade_portable)))]
#[target_feature(enable = "sse2")]
#[inline]
fn compare([a, b, c, d]: [std::arch::x86_64::__m128i; 4], value: u32) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi32,
    };

    let wanted = _mm_set1_epi32(value.cast_signed());
    // Saturating packs keep 0 and -1 as they are.
    let low = _mm_packs_epi32(_mm_cmpeq_epi32(a, wanted), _mm_cmpeq_epi32(b, wanted));
    let high = _mm_packs_epi32(_mm_cmpeq_epi32(c, wanted), _mm_cmpeq_epi32(d, wanted));
    _mm_movemask_epi8(_mm_packs_epi16(low, high)).cast_unsigned()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[repr(align(64))]
    struct Aligned([AtomicU32; SLOTS]);

    fn both_agree(hashes: &Aligned, value: u32, lanes: u32) {
        assert_eq!(lanes_with(&hashes.0, value), lanes);
        assert_eq!(lanes_with_portable(&hashes.0, value), lanes);
    }

    #[test]
    fn every_lane_is_found_alone_and_in_company() {
        let hashes = Aligned(std::array::from_fn(|_| AtomicU32::new(0)));
        both_agree(&hashes, 7, 0);
        both_agree(&hashes, 0, 0xFFFF);
        for lane in 0..SLOTS {
            for value in [7, 0x8000_0000, u32::MAX] {
                hashes.0[lane].store(value, Ordering::Relaxed);
                both_agree(&hashes, value, 1 << lane);
                both_agree(&hashes, 0, 0xFFFF & !(1 << lane));
                hashes.0[lane].store(0, Ordering::Relaxed);
            }
        }
        for lane in 0..SLOTS {
            hashes.0[lane].store(1 + (lane as u32 & 1), Ordering::Relaxed);
        }
        both_agree(&hashes, 2, 0xAAAA);
        both_agree(&hashes, 0, 0);
    }

    #[test]
    fn halves_of_a_hash_do_not_match() {
        let hashes = Aligned(std::array::from_fn(|_| AtomicU32::new(0x0001_0002)));
        both_agree(&hashes, 0x0001_0000, 0);
        both_agree(&hashes, 0x0002, 0);
    }
}
