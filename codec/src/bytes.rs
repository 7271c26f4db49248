//! Reading and writing little-endian integers, in one place.
//!
//! `get_*` and `put_*` serve fixed layouts, whose length the caller has in the type or has checked:
//! they panic out of range, as indexing does. [`Reader`] serves everything of variable length and
//! answers `None` at the end of its input.

/// Copies `N` bytes from `at`.
#[inline]
pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[inline]
pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(get(bytes, at))
}

#[inline]
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

#[inline]
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

#[inline]
pub(crate) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

#[inline]
pub(crate) fn put_u16(out: &mut [u8], at: usize, value: u16) {
    put(out, at, &value.to_le_bytes());
}

#[inline]
pub(crate) fn put_u32(out: &mut [u8], at: usize, value: u32) {
    put(out, at, &value.to_le_bytes());
}

#[inline]
pub(crate) fn put_u64(out: &mut [u8], at: usize, value: u64) {
    put(out, at, &value.to_le_bytes());
}

/// Whether all bytes are zero. Without an early way out, so that it compiles to vector code.
#[inline]
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |any, byte| any | byte) == 0
}

/// Whether two slices of the same length are equal. For short ones, which most keys are, it is
/// quicker than a call.
#[inline(always)]
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    const WORD: usize = 8;
    if a.len() != b.len() {
        return false;
    }
    let Some(last) = a.len().checked_sub(WORD) else { return a == b };
    if a.len() > 4 * WORD {
        return a == b;
    }
    // The last word may overlap the one before.
    let mut differences = get_u64(a, last) ^ get_u64(b, last);
    let mut at = 0;
    while at < last {
        differences |= get_u64(a, at) ^ get_u64(b, at);
        at += WORD;
    }
    differences == 0
}

/// Longest varint: ten groups of seven bits hold a `u64`.
pub(crate) const VARINT_LEN_MAX: usize = 10;

/// Appends a little-endian base-128 varint.
#[inline]
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps small differences of either sign to small numbers.
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// A cursor that never reads past its input.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(head)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// A varint in its shortest form; any other form is refused, so that every value has one
    /// encoding.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().enumerate().take(VARINT_LEN_MAX) {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte < 0x80 {
                let overflows = index == VARINT_LEN_MAX - 1 && byte > 1;
                let padded = index > 0 && byte == 0;
                if overflows || padded {
                    return None;
                }
                self.rest = &self.rest[index + 1..];
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u64; 9] =
        [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, u32::MAX as u64, u64::MAX >> 1, u64::MAX];

    #[test]
    fn varints_round_trip_and_stop_at_the_end() {
        for value in EDGES {
            let mut out = Vec::new();
            push_varint(&mut out, value);
            assert!(out.len() <= VARINT_LEN_MAX);
            assert_eq!(Reader::new(&out).varint(), Some(value));
            assert_eq!(Reader::new(&out[..out.len() - 1]).varint(), None);
        }
    }

    #[test]
    fn a_varint_has_one_form() {
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), None, "padded");
        assert_eq!(Reader::new(&[0xFF; 11]).varint(), None, "endless");
        let mut too_large = [0xFF; 10];
        too_large[9] = 2;
        assert_eq!(Reader::new(&too_large).varint(), None, "beyond 64 bits");
    }

    #[test]
    fn any_byte_makes_a_difference() {
        for len in 0..80 {
            let a: Vec<u8> = (0..len).collect();
            assert!(equal(&a, &a.clone()), "{len}");
            assert!(!equal(&a, &[&a[..], &[0]].concat()), "{len}");
            for at in 0..a.len() {
                let mut b = a.clone();
                b[at] ^= 0x10;
                assert!(!equal(&a, &b), "byte {at} of {len}");
            }
        }
    }

    #[test]
    fn zigzag_round_trips() {
        for value in EDGES {
            assert_eq!(zigzag(unzigzag(value)), value);
        }
        assert_eq!([zigzag(0), zigzag(-1), zigzag(1), zigzag(-2)], [0, 1, 2, 3]);
    }

    #[test]
    fn the_reader_refuses_what_is_not_there() {
        let mut reader = Reader::new(&[1, 0, 0, 0, 2]);
        assert_eq!(reader.u32(), Some(1));
        assert_eq!(reader.u32(), None);
        assert_eq!(reader.take(2), None);
        assert_eq!(reader.take(1), Some(&[2][..]));
        assert!(reader.is_empty());
    }
}
