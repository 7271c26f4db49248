//! Finding the next valid frame behind a bad one.
//!
//! Every multiple of 8 may be a frame's beginning. Zeros are skipped a block at a time, and a place
//! whose header makes no sense costs a few comparisons. What remains needs a checksum, and an
//! adversary can make every place claim a frame as long as the rest of the file. Such long frames
//! are checked by checksums of whole blocks, computed once: the work stays proportional to the
//! input, and no frame is missed.

use crate::bytes;
use crate::checksum::Prefixes;
use crate::ids::Seqno;
use crate::record::{self, ALIGNMENT, CHECKED_FROM, Frame, HEADER_LEN, Header, KIND_AT, Record};

/// Zeros are skipped in steps of this.
const ZERO_BLOCK_LEN: usize = 512;
/// Longer frames are checked by the checksums of whole blocks.
const DIRECT_LEN_MAX: usize = 4096;

/// Looks for frames behind bad ones. It keeps the checksums of blocks from one to the next.
#[derive(Debug)]
pub struct Resync<'a> {
    bytes: &'a [u8],
    salt: u32,
    prefixes: Option<Prefixes<'a>>,
}

impl<'a> Resync<'a> {
    /// `bytes` are the segment's readable bytes from its start.
    #[must_use]
    pub fn new(bytes: &'a [u8], salt: u32) -> Self {
        Self { bytes, salt, prefixes: None }
    }

    /// The next frame that begins behind `from_offset`, validates, and has a seqno above `above`.
    pub fn next_behind(&mut self, from_offset: u64, above: Seqno) -> Option<(u64, Record<'a>)> {
        let (bytes, salt) = (self.bytes, self.salt);
        let mut at = usize::try_from(from_offset).ok()?.checked_add(1)?;
        at = at.checked_next_multiple_of(ALIGNMENT)?;
        loop {
            let rest = bytes.get(at..)?;
            let head = rest.first_chunk::<HEADER_LEN>()?;
            if bytes::get_u64(head, 0) == 0
                && rest.first_chunk::<ZERO_BLOCK_LEN>().is_some_and(|block| bytes::all_zero(block))
            {
                at += ZERO_BLOCK_LEN;
                continue;
            }
            if record::names_a_kind(head[KIND_AT])
                && let Ok(header) = Header::decode(head)
                && header.seqno > above
                && header.frame_len() <= rest.len()
                && self.may_validate(at, &header)
                && let Frame::Record(record) = record::decode(rest, record::seed(salt, at as u64))
            {
                return Some((at as u64, record));
            }
            at += ALIGNMENT;
        }
    }

    /// Whether a frame is short enough to be decoded, or its checksum is right.
    fn may_validate(&mut self, at: usize, header: &Header) -> bool {
        if header.frame_len() <= DIRECT_LEN_MAX {
            return true;
        }
        let checked = at + CHECKED_FROM..at + header.frame_len();
        let prefixes = self.prefixes.get_or_insert_with(|| Prefixes::new(self.bytes));
        prefixes.extend(record::seed(self.salt, at as u64), checked) == header.crc
    }
}

/// As [`Resync::next_behind`], where only one is looked for.
#[must_use]
pub fn resync(
    bytes: &[u8],
    salt: u32,
    from_offset: u64,
    above: Seqno,
) -> Option<(u64, Record<'_>)> {
    Resync::new(bytes, salt).next_behind(from_offset, above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Draft, Flags, Kind};

    const SALT: u32 = 0x1234_5678;

    fn frame_at(at: usize, seqno: u64, value: &[u8]) -> Vec<u8> {
        let draft = Draft {
            kind: Kind::Put,
            flags: Flags::NONE,
            seqno: Seqno(seqno),
            expiry: None,
            key: b"key",
            value,
        };
        let mut out = vec![0; draft.frame_len()];
        draft.encode(record::seed(SALT, at as u64), &mut out);
        out
    }

    fn place(bytes: &mut [u8], at: usize, seqno: u64, value: &[u8]) {
        let frame = frame_at(at, seqno, value);
        bytes[at..at + frame.len()].copy_from_slice(&frame);
    }

    fn found(bytes: &[u8], from: u64, above: u64) -> Option<(u64, u64)> {
        resync(bytes, SALT, from, Seqno(above)).map(|(at, record)| (at, record.seqno.0))
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes there")]
    fn finds_the_next_one_above() {
        let mut bytes = vec![0; 1 << 16];
        place(&mut bytes, 64, 1, b"one");
        place(&mut bytes, 5000, 2, b"two");
        place(&mut bytes, 30_000, 3, &vec![7; 20_000]);
        assert_eq!(found(&bytes, 0, 0), Some((64, 1)));
        assert_eq!(found(&bytes, 64, 0), Some((5000, 2)));
        assert_eq!(found(&bytes, 64, 2), Some((30_000, 3)), "a long frame");
        assert_eq!(found(&bytes, 64, 3), None);
        assert_eq!(found(&bytes, 30_000, 0), None);
        assert_eq!(found(&bytes, u64::MAX, 0), None);
        bytes[40_000] ^= 1;
        assert_eq!(found(&bytes, 5000, 0), None);
    }

    #[test]
    fn one_long_frame_is_found_behind_the_other() {
        let mut bytes = vec![0; 1 << 16];
        let places: Vec<usize> = (0..10).map(|i| 8 + i * 6000).collect();
        for (seqno, at) in (1..).zip(&places) {
            place(&mut bytes, *at, seqno, &[7; 5000]);
        }
        bytes[places[3] + 2000] ^= 1;
        let mut resync = Resync::new(&bytes, SALT);
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some((at, record)) = resync.next_behind(from, Seqno::NONE) {
            found.push(at as usize);
            from = at + record.frame_len as u64 - 1;
        }
        assert_eq!(found, [&places[..3], &places[4..]].concat());
    }

    #[test]
    fn a_long_frame_is_found_at_every_place_and_length() {
        for at in [8, 1016, 1024, 1032, 4088] {
            for len in [4080, 4081, 5119, 5120, 9000] {
                let mut bytes = vec![0xFF; 16_384];
                place(&mut bytes, at, 5, &vec![1; len]);
                assert_eq!(found(&bytes, 0, 0), Some((at as u64, 5)), "{at} {len}");
            }
        }
    }

    #[test]
    fn hostile_headers_cost_little() {
        // Every place claims a frame that reaches to the end.
        let mut bytes = vec![0; if cfg!(miri) { 1 << 12 } else { 1 << 20 }];
        let len = bytes.len();
        for at in (0..len - 32).step_by(8) {
            bytes[at + 4] = 1;
        }
        for at in (0..len - 32).step_by(32) {
            let value_len = (len - at - HEADER_LEN) as u32;
            bytes[at + 8..at + 12].copy_from_slice(&value_len.to_le_bytes());
            bytes[at + 12] = 1;
        }
        assert_eq!(found(&bytes, 0, 0), None);
    }
}
