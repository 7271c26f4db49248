//! Where a record lies, in one word.

use std::num::NonZeroU64;

const OFFSET_BITS: u32 = 32;
const CLASS_BITS: u32 = 8;
const SLOT_SHIFT: u32 = OFFSET_BITS + CLASS_BITS;

/// Classes from 0 to this one stand for exactly as many times eight bytes.
const EXACT_MAX: usize = 191;
/// Each class beyond stands for up to so many bytes more.
const STEP: usize = 256;

/// Where a record lies: the segment's slot, the offset in it, and how long it is, or about so.
///
/// From high to low: slot (24 bits), size class (8), offset / 8 (32). The slot is never 0, so that
/// the zero word can mean "no record".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(NonZeroU64);

impl Location {
    /// The greatest slot.
    pub const SLOT_MAX: u32 = (1 << 24) - 1;
    /// The greatest offset.
    pub const OFFSET_MAX: u64 = (u32::MAX as u64) * 8;

    /// The location of a frame of `frame_len` bytes at `offset` of the segment in `slot`.
    ///
    /// # Panics
    /// If the slot is 0 or above [`Self::SLOT_MAX`], or the offset is no multiple of 8 or above
    /// [`Self::OFFSET_MAX`].
    #[must_use]
    #[inline]
    pub fn new(slot: u32, offset: u64, frame_len: usize) -> Self {
        assert!(slot <= Self::SLOT_MAX, "slot {slot} does not fit a location");
        assert!(
            offset.is_multiple_of(8) && offset <= Self::OFFSET_MAX,
            "offset {offset} does not fit a location"
        );
        let class = if frame_len <= EXACT_MAX * 8 {
            frame_len.div_ceil(8)
        } else {
            (EXACT_MAX + frame_len.div_ceil(STEP)).min(255)
        } as u64;
        let slot = NonZeroU64::new(u64::from(slot) << SLOT_SHIFT).expect("slots begin at 1");
        Self(slot | (class << OFFSET_BITS) | (offset / 8))
    }

    /// The segment's slot.
    #[must_use]
    #[inline]
    pub fn slot(self) -> u32 {
        (self.0.get() >> SLOT_SHIFT) as u32
    }

    /// The frame's offset in its segment.
    #[must_use]
    #[inline]
    pub fn offset(self) -> u64 {
        (self.0.get() & u64::from(u32::MAX)) * 8
    }

    #[inline]
    fn class(self) -> usize {
        ((self.0.get() >> OFFSET_BITS) & 0xFF) as usize
    }

    /// The frame's length, if it is a short one. A hint: who made the location may have been wrong.
    #[must_use]
    #[inline]
    pub fn short_len(self) -> Option<usize> {
        let class = self.class();
        if class <= EXACT_MAX { Some(class * 8) } else { None }
    }

    /// About how long the frame is: exactly so if short, else up to 255 bytes shorter; 16 KiB stands
    /// for all that are longer. A hint, too.
    #[must_use]
    #[inline]
    pub fn len_about(self) -> usize {
        self.short_len().unwrap_or_else(|| (self.class() - EXACT_MAX) * STEP)
    }

    /// The word itself.
    #[must_use]
    #[inline]
    pub fn raw(self) -> u64 {
        self.0.get()
    }

    /// The location that `raw` holds, if its slot is not 0.
    #[must_use]
    #[inline]
    pub fn from_raw(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw) {
            Some(word) if raw >> SLOT_SHIFT != 0 => Some(Self(word)),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Location({}:{}, about {} bytes)", self.slot(), self.offset(), self.len_about())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_comes_back() {
        for slot in [1, 2, 77, Location::SLOT_MAX] {
            for offset in [0, 8, 64, 1 << 30, Location::OFFSET_MAX] {
                for (len, short, about) in [
                    (0, Some(0), 0),
                    (24, Some(24), 24),
                    (1528, Some(1528), 1528),
                    (1536, None, 1536),
                    (1544, None, 1792),
                    (16 << 10, None, 16 << 10),
                    (1 << 30, None, 16 << 10),
                ] {
                    let location = Location::new(slot, offset, len);
                    assert_eq!(location.slot(), slot);
                    assert_eq!(location.offset(), offset);
                    assert_eq!(location.short_len(), short);
                    assert_eq!(location.len_about(), about);
                    assert_eq!(Location::from_raw(location.raw()), Some(location));
                }
            }
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        assert_eq!(Location::new(3, 0x50, 136).raw(), (3 << 40) | (17 << 32) | 0x0A);
    }

    #[test]
    fn a_word_without_slot_is_no_location() {
        assert_eq!(Location::from_raw(0), None);
        assert_eq!(Location::from_raw(u64::MAX >> 24), None);
    }

    #[test]
    #[should_panic(expected = "slots begin at 1")]
    fn slot_zero_is_refused() {
        let _ = Location::new(0, 8, 8);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn an_unaligned_offset_is_refused() {
        let _ = Location::new(1, 4, 8);
    }
}
