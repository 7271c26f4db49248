//! Damage is noticed: every flipped bit, every truncation, every zeroed sector.

use crate::samples::{self, put};
use caskade_codec::Fault;
use caskade_codec::hint::Hint;
use caskade_codec::ids::{Seqno, StoreUuid};
use caskade_codec::journal::{self, Groups};
use caskade_codec::manifest::Manifest;
use caskade_codec::meta::StoreMeta;
use caskade_codec::record::{self, Draft, Frame, Kind};
use caskade_codec::segment;
use caskade_codec::snapshot::Snapshot;

const SALT: u32 = 0x5EED_0001;
const SECTOR_LEN: usize = 512;

/// Key and value lengths of frames up to 4 KiB: padded and not, below, at and across sectors.
const SIZES: [(usize, usize); 10] = [
    (0, 0),
    (1, 0),
    (3, 4),
    (16, 100),
    (16, 476),
    (5, 700),
    (300, 705),
    (16, 2012),
    (1500, 1500),
    (16, 4060),
];

/// A frame at `offset` of a file, followed by others: what a wrong length would reach into.
fn file_with(offset: usize, draft: &Draft<'_>) -> Vec<u8> {
    let mut file = vec![0; offset];
    samples::append(&mut file, SALT, draft);
    for seqno in 10..40 {
        samples::append(&mut file, SALT, &put(seqno, b"one that follows", &[0xF0; 200]));
    }
    file
}

fn decode(file: &[u8], offset: usize) -> Frame<'_> {
    record::decode(&file[offset..], record::seed(SALT, offset as u64))
}

/// Runs `check` on frames of every size, with and without expiry, and on the other kinds.
fn for_each_frame(check: impl Fn(&Draft<'_>)) {
    for (key_len, value_len) in SIZES {
        let (key, value) = (vec![0xAB; key_len], vec![0xCD; value_len]);
        let draft = put(9, &key, &value);
        check(&draft);
        check(&Draft { expiry: Some(0x0102_0304_0506_0708), ..draft });
    }
    check(&Draft { kind: Kind::Tombstone, ..put(9, b"deleted", b"") });
    check(&Draft { kind: Kind::Batch, ..put(9, b"", &samples::batch_part().encode()) });
    check(&Draft { kind: Kind::Marker, ..put(9, b"", &[0x11; 8]) });
}

#[test]
fn every_flipped_bit_of_a_record() {
    for_each_frame(|draft| {
        let mut file = file_with(64, draft);
        let len = draft.frame_len();
        assert!(matches!(decode(&file, 64), Frame::Record(_)));
        for bit in 0..len * 8 {
            let (at, mask) = (64 + bit / 8, 1 << (bit % 8));
            file[at] ^= mask;
            let frame = decode(&file, 64);
            assert!(!matches!(frame, Frame::Record(_) | Frame::End), "bit {bit} of {len}");
            let alone = decode(&file[..64 + len], 64);
            assert!(!matches!(alone, Frame::Record(_) | Frame::End), "bit {bit} of {len}, alone");
            file[at] ^= mask;
        }
    });
}

#[test]
fn every_truncation_of_a_record() {
    for_each_frame(|draft| {
        let file = file_with(64, draft);
        let len = draft.frame_len();
        for cut in 0..len {
            let frame = decode(&file[..64 + cut], 64);
            let expected = if cut == 0 { Frame::End } else { Frame::Torn };
            assert_eq!(frame, expected, "cut at {cut} of {len}");
            // The file kept its length, but the rest was never written.
            let mut zeroed = file.clone();
            zeroed[64 + cut..64 + len].fill(0);
            if zeroed != file {
                let frame = decode(&zeroed, 64);
                assert!(!matches!(frame, Frame::Record(_)), "zeros from {cut} of {len}");
            }
        }
    });
}

#[test]
fn every_zeroed_sector_of_a_record() {
    for_each_frame(|draft| {
        let len = draft.frame_len();
        // Sectors meet the frame at different places of it, in the midst of its header too.
        for offset in [64, 496, 504, 512, 1000] {
            let file = file_with(offset, draft);
            for sector in offset / SECTOR_LEN..=(offset + len - 1) / SECTOR_LEN {
                let mut zeroed = file.clone();
                zeroed[sector * SECTOR_LEN..][..SECTOR_LEN].fill(0);
                if zeroed[offset..offset + len] != file[offset..offset + len] {
                    let frame = decode(&zeroed, offset);
                    assert!(!matches!(frame, Frame::Record(_)), "sector {sector}, {offset} {len}");
                }
            }
        }
    });
}

/// Calls `check` with every single-bit flip and every truncation of `file`.
fn for_each_damage(file: &[u8], mut check: impl FnMut(&[u8], usize)) {
    let mut damaged = file.to_vec();
    for bit in 0..file.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(&damaged, bit / 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..file.len() {
        check(&file[..len], len);
    }
}

#[test]
fn segments() {
    let (file, header) = (samples::log_file(), samples::log_header());
    let (records, _) = samples::scan(&file, header.salt);
    let mut faults = 0;
    for_each_damage(&file, |damaged, at| {
        if at < segment::HEADER_LEN {
            assert!(segment::Header::decode(damaged).is_err(), "byte {at}");
            faults += 1;
        } else {
            let (found, _) = samples::scan(damaged, header.salt);
            assert!(found.len() < records.len() && records.starts_with(&found), "byte {at}");
        }
    });
    assert_eq!(faults, 64 * 9);
}

#[test]
fn hints() {
    for (segment, header) in [
        (samples::log_file(), samples::log_header()),
        (samples::merged_file(), samples::merged_header()),
    ] {
        let file = samples::hint(&segment, &header);
        for_each_damage(&file, |damaged, at| {
            assert!(Hint::open(damaged).is_err(), "byte {at}");
        });
    }
}

/// A twin file serves from the other copy, and says so. Without a whole copy it is refused.
fn check_twin<T: PartialEq + std::fmt::Debug>(
    file: &[u8],
    decode: impl Fn(&[u8]) -> Result<(T, caskade_codec::twin::Copies), Fault>,
) {
    let (value, _) = decode(file).expect("the sample is whole");
    let second_at = file.len() / 4096 * 4096;
    let block_len = file.len() - second_at;
    for_each_damage(file, |damaged, at| match decode(damaged) {
        Ok((served, copies)) => {
            assert_eq!(served, value, "byte {at}");
            let is_flip = damaged.len() == file.len();
            assert_eq!(copies.first_is_intact, at >= second_at, "byte {at}, flip {is_flip}");
            assert_eq!(copies.second_is_intact, at < second_at && is_flip, "byte {at}");
        }
        Err(_) => assert!(damaged.len() < block_len, "byte {at}: a whole copy is left"),
    });
    let mut both = file.to_vec();
    for at in 0..block_len {
        both[at] ^= 0x10;
        both[second_at + block_len - 1 - at] ^= 0x10;
        assert!(decode(&both).is_err(), "byte {at} of both copies");
        both[at] ^= 0x10;
        both[second_at + block_len - 1 - at] ^= 0x10;
    }
}

#[test]
fn store() {
    check_twin(&samples::store().encode(), StoreMeta::decode);
}

#[test]
fn manifest() {
    check_twin(&samples::manifest().encode(), Manifest::decode);
}

#[test]
fn keydir() {
    let file = samples::keydir();
    let read = |file: &[u8]| {
        let snapshot = Snapshot::open(file)?;
        snapshot
            .leaves()
            .map(|leaf| leaf.map(|leaf| leaf.entries(file).len()))
            .sum::<Result<usize, Fault>>()
    };
    assert_eq!(read(&file), Ok(6));
    for_each_damage(&file, |damaged, at| {
        assert!(read(damaged).is_err(), "byte {at}");
    });
}

#[test]
fn journal() {
    let file = samples::journal();
    let header = samples::journal_header();
    let starts: Vec<_> = Groups::new(&file, header).map(|group| group.offset as usize).collect();
    assert_eq!(starts, [512, 1024]);
    for_each_damage(&file, |damaged, at| {
        if at < journal::BLOCK_LEN {
            assert!(journal::Header::decode(damaged).is_err(), "byte {at}");
        } else {
            let whole = starts.iter().filter(|&&start| start + 512 <= at).count();
            let found = Groups::new(damaged, header).count();
            assert_eq!(found, whole, "byte {at}");
        }
    });
}

/// A file of another store, shard or segment decodes, and says whose it is.
#[test]
fn files_name_their_owner() {
    let (file, header) = (samples::log_file(), samples::log_header());
    let other = segment::Header { uuid: StoreUuid([1; 16]), ..header };
    assert_ne!(segment::Header::decode(&other.encode()), Ok(header));
    let hint = samples::hint(&file, &other);
    assert_ne!(Hint::open(&hint).unwrap().header().binding, samples::binding(&header));
    // The same frames with another last one: the hint's facts no longer match.
    let mut grown = file.clone();
    samples::append(&mut grown, header.salt, &put(110, b"later", b""));
    let (before, after) = (samples::sealed(&file, SALT), samples::sealed(&grown, SALT));
    assert_eq!(before, after, "neither validates with a foreign salt");
    let (before, after) =
        (samples::sealed(&file, header.salt), samples::sealed(&grown, header.salt));
    assert_ne!(before, after);
    assert_eq!(after.max_seqno, Seqno(110));
}
