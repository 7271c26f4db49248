//! `JOURNAL-0` and `JOURNAL-1`.

use crate::input::{Input, Mode};
use caskade_codec::checksum;
use caskade_codec::journal::{BLOCK_LEN, GroupBuilder, Groups, Header, Range};
use caskade_codec::segment::SEGMENT_LEN_MAX;

/// A journal that is built ends behind the first group that reaches this.
const FILE_LEN_MAX: usize = 8 << 10;
const BLOCK_LEN_U64: u64 = BLOCK_LEN as u64;

/// Walks journals and builds each group anew; builds journals and reads them back.
pub fn journal(data: &[u8]) {
    let mut input = Input::new(data);
    match input.mode() {
        Mode::Raw => _ = check(input.rest()),
        Mode::Mended => _ = check(&mended(input)),
        Mode::Built => built(input),
    }
}

/// A journal whose groups hold the input's pieces as they are, each with a right head.
fn mended(mut input: Input<'_>) -> Vec<u8> {
    let header = read_header(&mut input);
    let mut file = header.encode().to_vec();
    let mut number = input.positive();
    while !input.is_empty() {
        let (ranges, step) = (u32::from(input.u8()), u64::from(input.u8() >> 6));
        let at = file.len();
        file.extend_from_slice(&[0; 4]);
        file.extend_from_slice(b"CGRP");
        file.extend_from_slice(&header.turn.to_le_bytes());
        file.extend_from_slice(&number.to_le_bytes());
        file.extend_from_slice(&ranges.to_le_bytes());
        let body = input.short();
        let len = (32 + body.len()).next_multiple_of(BLOCK_LEN);
        file.extend_from_slice(&(len as u32).to_le_bytes());
        file.extend_from_slice(body);
        file.resize(at + len, 0);
        let seed = header.salt ^ (at / BLOCK_LEN) as u32;
        let crc = checksum::extend(seed, &file[at + 4..]);
        file[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        number = number.wrapping_add(step.min(1));
    }
    file
}

fn read_header(input: &mut Input<'_>) -> Header {
    Header { uuid: input.uuid(), turn: input.positive(), salt: input.u32() }
}

/// Checks the journal's groups and answers how many there are.
fn check(file: &[u8]) -> usize {
    let Ok(header) = Header::decode(file) else { return 0 };
    assert_eq!(header.encode()[..], file[..BLOCK_LEN], "a header has one encoding");
    let mut groups = Groups::new(file, header);
    let (mut count, mut next_number, mut offset) = (0, None, BLOCK_LEN_U64);
    let mut builder = GroupBuilder::new();
    while let Some(group) = groups.next() {
        assert_eq!(group.offset, offset, "groups follow one another");
        assert!(next_number.is_none_or(|number: u64| number == group.number));
        next_number = Some(group.number.wrapping_add(1));
        offset = groups.offset();
        assert!(offset > group.offset && offset <= file.len() as u64);
        assert!(offset.is_multiple_of(BLOCK_LEN_U64));
        let mut ranges = 0;
        for range in group.ranges() {
            assert!(range.shard.0 < 256);
            builder.push(&range);
            ranges += 1;
        }
        assert!(ranges > 0 && ranges == group.ranges);
        let again = builder.finish(&header, group.number, group.offset);
        assert_eq!(again, &file[group.offset as usize..offset as usize], "one encoding");
        count += 1;
    }
    assert!(groups.next().is_none(), "a walk ends once");
    assert_eq!(groups.offset(), offset);
    count
}

/// Builds groups, of this turn and one of an earlier turn behind them, then damages one place.
fn built(mut input: Input<'_>) {
    let header = read_header(&mut input);
    let (place, mask) = (usize::from(input.u16()), input.u8());
    let first_number = input.positive();
    let stale = Header { turn: header.turn - 1, ..header };
    let mut file = header.encode().to_vec();
    let (mut ends, mut pushed) = (vec![file.len()], Vec::new());
    let mut builder = GroupBuilder::new();
    let mut number = first_number;
    while !input.is_empty() {
        let ranges = read_ranges(&mut input);
        for (range, bytes) in &ranges {
            builder.push(&Range { bytes, ..*range });
        }
        let expected_len = builder.group_len();
        let group = builder.finish(&header, number, file.len() as u64);
        assert_eq!(group.len(), expected_len);
        file.extend_from_slice(group);
        ends.push(file.len());
        number = number.wrapping_add(1);
        pushed.push(ranges);
        if file.len() > FILE_LEN_MAX {
            break;
        }
    }
    let groups: Vec<_> = Groups::new(&file, header).collect();
    assert_eq!(groups.len(), pushed.len());
    for (group, ranges) in groups.iter().zip(&pushed) {
        assert!(group.ranges().eq(ranges.iter().map(|(range, bytes)| Range { bytes, ..*range })));
    }
    builder.push(&Range { shard: caskade_codec::ShardId(0), bytes: b"stale", ..EMPTY_RANGE });
    let group = builder.finish(&stale, number, file.len() as u64);
    file.extend_from_slice(group);
    assert_eq!(check(&file), ends.len() - 1, "an earlier turn's group is none");

    if mask != 0 {
        let at = place % file.len();
        file[at] ^= mask;
        let before = ends.iter().filter(|&&end| end <= at).count();
        assert_eq!(check(&file), before.saturating_sub(1), "the walk ends before the damage");
    }
}

const EMPTY_RANGE: Range<'static> = Range {
    shard: caskade_codec::ShardId(0),
    segment: caskade_codec::SegmentId(1),
    offset: 64,
    bytes: b"",
};

fn read_ranges(input: &mut Input<'_>) -> Vec<(Range<'static>, Vec<u8>)> {
    let count = 1 + input.u8() % 4;
    let range = |_| {
        let (shard, segment) = (input.shard(), input.segment_id());
        // Ranges end within a segment; these are far shorter than half of the longest.
        let offset = input.positive() % (SEGMENT_LEN_MAX / 2);
        let is_long = input.bool();
        let bytes = if is_long { input.long(2000) } else { input.short().to_vec() };
        (Range { shard, segment, offset, bytes: b"" }, bytes)
    };
    (0..count).map(range).collect()
}
