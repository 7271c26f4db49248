//! A value may hold whole records, byte for byte. None of them is ever taken for one.

use crate::samples::{self, put};
use caskade_codec::ids::Seqno;
use caskade_codec::record::{self, Draft, Flags, Frame, HEADER_LEN, Kind};
use caskade_codec::segment;

const INNER_VALUE: &[u8] = b"a whole record inside a value";

fn inner() -> Draft<'static> {
    put(1_000_000, b"inner", INNER_VALUE)
}

/// A value that holds the inner frame at `at` of its file (behind some filling, so that it is
/// aligned), encoded with `seed`.
fn value_with_inner(value_start: usize, seed: u32) -> (Vec<u8>, usize) {
    let at = value_start.next_multiple_of(8);
    let mut value = vec![0xEE; at - value_start];
    let start = value.len();
    value.resize(start + inner().frame_len(), 0);
    inner().encode(seed, &mut value[start..]);
    (value, at)
}

/// Where the value of the second record begins.
fn value_start(file: &[u8], key: &[u8]) -> usize {
    file.len() + HEADER_LEN + key.len()
}

fn file_holding(seed_of: impl Fn(usize) -> u32) -> (Vec<u8>, usize, usize) {
    let header = samples::log_header();
    let mut file = samples::write(&header, &[put(1, b"first", b"value")]);
    let start = value_start(&file, b"outer");
    let (value, inner_at) = value_with_inner(start, seed_of(start.next_multiple_of(8)));
    let outer_at = file.len();
    samples::append(&mut file, header.salt, &put(2, b"outer", &value));
    samples::append(&mut file, header.salt, &put(3, b"last", b"value"));
    (file, outer_at, inner_at)
}

fn check(seed_of: impl Fn(usize) -> u32) {
    let salt = samples::log_header().salt;
    let (mut file, outer_at, inner_at) = file_holding(seed_of);
    let rest = &file[inner_at..];
    assert!(!matches!(record::decode(rest, record::seed(salt, inner_at as u64)), Frame::Record(_)));
    assert_eq!(samples::scan(&file, salt).0.len(), 3);

    // With the outer record's header gone, the next one found is the one behind it.
    for damage in [0, 4, 8, 12] {
        file[outer_at + damage] ^= 0x80;
        assert_eq!(samples::scan(&file, salt).0.len(), 1);
        let found = segment::resync(&file, salt, outer_at as u64, Seqno::NONE);
        let (at, record) = found.expect("the last record is whole");
        assert_eq!((record.key, record.seqno), (&b"last"[..], Seqno(3)));
        assert!(at as usize > inner_at);
        file[outer_at + damage] ^= 0x80;
    }
}

#[test]
fn the_same_segments_from_another_place() {
    let salt = samples::log_header().salt;
    for elsewhere in [64, 72, 4096, 1 << 20, (1 << 35) - 8] {
        check(|at| {
            assert_ne!(at as u64, elsewhere);
            record::seed(salt, elsewhere)
        });
    }
}

#[test]
fn another_segments_from_the_same_place() {
    let salt = samples::log_header().salt;
    for bit in 0..32 {
        check(|at| record::seed(salt ^ 1 << bit, at as u64));
    }
}

#[test]
fn a_journals_or_a_files_without_salt() {
    check(|_| 0);
    check(|_| u32::MAX);
}

/// Moved by any distance, no frame validates: for the same bytes, another seed is another sum.
#[test]
fn a_frame_validates_at_its_own_place_only() {
    let salt = samples::log_header().salt;
    let draft = Draft { flags: Flags::IN_BATCH, kind: Kind::Tombstone, ..put(5, b"key", b"") };
    let mut frame = vec![0; draft.frame_len()];
    draft.encode(record::seed(salt, 4096), &mut frame);
    for offset in (0..1 << 20).step_by(8) {
        let is_record =
            matches!(record::decode(&frame, record::seed(salt, offset)), Frame::Record(_));
        assert_eq!(is_record, offset == 4096, "at {offset}");
    }
}
