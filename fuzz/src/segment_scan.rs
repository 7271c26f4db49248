//! Segment files: header, scan, tally and resynchronisation.

use crate::input::{Input, Mode};
use crate::record::{OwnedDraft, check_record, encode, mend};
use caskade_codec::ids::Seqno;
use caskade_codec::record::{ALIGNMENT, Flags, Frame, HEADER_LEN, Kind, Record, decode, seed};
use caskade_codec::segment::{self, Digest, Header, Role, Scanner, Tally, resync};

/// Long enough for frames that resynchronisation checks by whole blocks.
const VALUE_LEN_MAX: usize = 6000;
/// Bounds the work of the plain search that resynchronisation is compared with.
const FILE_LEN_MAX: usize = 32 << 10;

/// Scans and resynchronises; compares with the plain search, and with the frames that were built.
pub fn segment_scan(data: &[u8]) {
    let mut input = Input::new(data);
    match input.mode() {
        Mode::Raw => {
            let salt = input.u32();
            let file = input.rest();
            check_header(file);
            check(&file[..file.len().min(FILE_LEN_MAX)], salt, Seqno::NONE);
        }
        Mode::Mended => {
            let (salt, above) = (input.u32(), Seqno(input.u8().into()));
            let rest = input.rest();
            let mut file = rest[..rest.len().min(FILE_LEN_MAX)].to_vec();
            mend_all(&mut file, salt);
            check(&file, salt, above);
        }
        Mode::Built => built(input),
    }
}

/// Sets the checksum of each place right that claims a frame, from the last to the first.
fn mend_all(file: &mut [u8], salt: u32) {
    for at in (0..file.len()).step_by(ALIGNMENT).rev() {
        let _ = mend(&mut file[at..], seed(salt, at as u64));
    }
}

fn check_header(file: &[u8]) {
    if let Ok(header) = Header::decode(file) {
        assert_eq!(header.encode()[..], file[..segment::HEADER_LEN], "a header has one encoding");
    }
}

/// What holds of any bytes.
fn check(file: &[u8], salt: u32, above: Seqno) {
    let (records, end) = scan(file, salt);
    assert!(!matches!(end, Frame::Record(_)));
    check_tally(&records);
    check_resync(file, salt, above);
}

/// The records and what ended the walk.
fn scan(file: &[u8], salt: u32) -> (Vec<(u64, Record<'_>)>, Frame<'_>) {
    let mut scanner = Scanner::new(file, salt, segment::HEADER_LEN as u64);
    let mut records = Vec::new();
    let mut expected_offset = segment::HEADER_LEN as u64;
    let end = loop {
        let (offset, frame) = scanner.next().expect("a walk says what ended it");
        assert_eq!(offset, expected_offset);
        match frame {
            Frame::Record(record) => {
                check_record(&file[offset as usize..], seed(salt, offset), &record);
                expected_offset += record.frame_len as u64;
                assert!(expected_offset <= file.len() as u64);
                assert_eq!(scanner.offset(), expected_offset);
                records.push((offset, record));
            }
            end => break end,
        }
    };
    assert_eq!(scanner.offset(), expected_offset, "the walk ends behind the last record");
    assert_eq!((scanner.next(), scanner.next()), (None, None), "a walk ends once");
    (records, end)
}

/// A tally says of the records what counting them does.
fn check_tally(records: &[(u64, Record<'_>)]) {
    let (mut tally, mut digest) = (Tally::default(), Digest::default());
    assert!(tally.is_empty());
    for (_, record) in records {
        tally.push(record);
        digest.push(record.crc);
        assert!(!tally.is_empty());
    }
    let all = || records.iter().map(|(_, record)| record);
    let sealed = tally.finish();
    let frame_bytes = |records: &mut dyn Iterator<Item = &Record<'_>>| {
        records.map(|record| record.frame_len as u64).sum::<u64>()
    };
    assert_eq!(tally.len(), sealed.len);
    assert_eq!(sealed.len, segment::HEADER_LEN as u64 + frame_bytes(&mut all()));
    assert_eq!(sealed.digest, digest.finish());
    assert_eq!(sealed.records, all().filter(|record| record.kind.has_key()).count() as u64);
    assert_eq!(sealed.min_seqno, all().map(|record| record.seqno).min().unwrap_or_default());
    assert_eq!(sealed.max_seqno, all().map(|record| record.seqno).max().unwrap_or_default());
    let mut tombstones = all().filter(|record| record.kind == Kind::Tombstone);
    assert_eq!(sealed.tombstone_bytes, frame_bytes(&mut tombstones));
    let puts = all().filter(|record| record.kind == Kind::Put);
    let expiry_max = puts.map(|record| record.expiry.unwrap_or(u64::MAX)).max();
    assert_eq!(sealed.expiry_max, expiry_max.unwrap_or(0));
    let of_batch =
        |record: &Record<'_>| record.kind == Kind::Batch || record.flags.contains(Flags::IN_BATCH);
    assert_eq!(sealed.has_batch, all().any(of_batch));
}

/// Resynchronisation finds what decoding every place finds, from one find to the next.
fn check_resync(file: &[u8], salt: u32, above: Seqno) {
    let mut from = 0;
    loop {
        let found = resync(file, salt, from, above);
        assert_eq!(found, plain_resync(file, salt, from, above));
        let Some((offset, record)) = found else { break };
        assert!(offset > from && record.seqno > above);
        from = offset;
    }
    for far in [file.len() as u64, u64::MAX] {
        assert_eq!(resync(file, salt, far, above), None);
    }
}

fn plain_resync(file: &[u8], salt: u32, from: u64, above: Seqno) -> Option<(u64, Record<'_>)> {
    let first = (from as usize + 1).next_multiple_of(ALIGNMENT);
    let mut places = (first..file.len()).step_by(ALIGNMENT);
    places.find_map(|at| match decode(&file[at..], seed(salt, at as u64)) {
        Frame::Record(record) if record.seqno > above => Some((at as u64, record)),
        _ => None,
    })
}

/// A frame as it was appended.
struct Placed {
    offset: u64,
    frame: Vec<u8>,
}

/// Builds a segment, checks that it reads back, then damages it.
fn built(mut input: Input<'_>) {
    let header = Header {
        uuid: input.uuid(),
        shard: input.shard(),
        id: input.segment_id(),
        role: input.role(),
        salt: input.u32(),
    };
    assert_eq!(Header::decode(&header.encode()), Ok(header));
    let mut file = header.encode().to_vec();
    let placed = append_frames(&mut input, &header, &mut file);
    let (records, end) = scan(&file, header.salt);
    assert_eq!(end, Frame::End);
    assert!(records.iter().map(|(offset, _)| *offset).eq(placed.iter().map(|p| p.offset)));
    check_tally(&records);
    let good_len = file.len() as u64;

    append_rubbish(&mut input, &header, &placed, &mut file);
    let (records, _) = scan(&file, header.salt);
    assert_eq!(records.len(), placed.len(), "rubbish behind the end adds nothing");
    assert!(records.last().is_none_or(|(at, last)| at + last.frame_len as u64 == good_len));

    damage(&mut input, &mut file);
    let (records, _) = scan(&file, header.salt);
    let undamaged = placed.iter().take_while(|placed| {
        let range = placed.offset as usize..placed.offset as usize + placed.frame.len();
        file[range] == placed.frame
    });
    assert_eq!(records.len(), undamaged.count(), "the walk ends before the damage");
    let above = Seqno(input.u8().into());
    check(&file, header.salt, above);
}

/// Appends frames with the seqnos that the segment's role calls for.
fn append_frames(input: &mut Input<'_>, header: &Header, file: &mut Vec<u8>) -> Vec<Placed> {
    let mut placed = Vec::new();
    let mut seqno = Seqno(input.seqno().0 >> 1).max(Seqno::FIRST);
    for _ in 0..input.u8() % 24 {
        let owned = OwnedDraft::read(input, VALUE_LEN_MAX);
        if header.role == Role::Merged {
            seqno = input.seqno();
        }
        let draft = owned.draft(seqno);
        if file.len() + draft.frame_len() > FILE_LEN_MAX {
            break;
        }
        let offset = file.len() as u64;
        let frame = encode(&draft, seed(header.salt, offset));
        file.extend_from_slice(&frame);
        placed.push(Placed { offset, frame });
        if header.role == Role::Log {
            seqno = seqno.next();
        }
    }
    placed
}

/// Appends what is no continuation: zeros, a frame of this file at a place that is not its own, or
/// the first half of a frame.
fn append_rubbish(input: &mut Input<'_>, header: &Header, placed: &[Placed], file: &mut Vec<u8>) {
    let kind = input.u8() % 4;
    let place = file.len() as u64;
    match (kind, placed.first()) {
        (1, Some(stale)) => file.extend_from_slice(&stale.frame),
        (2, Some(stale)) => {
            file.extend_from_slice(&[0; 64]);
            file.extend_from_slice(&stale.frame);
        }
        (3, _) => {
            let owned = OwnedDraft::read(input, VALUE_LEN_MAX);
            let frame = encode(&owned.draft(Seqno::FIRST), seed(header.salt, place));
            file.extend_from_slice(&frame[..HEADER_LEN.max(frame.len() / 2)]);
        }
        _ => file.resize(file.len() + usize::from(input.u8()) * ALIGNMENT, 0),
    }
}

/// Overwrites one place behind the header, or zeroes a sector.
fn damage(input: &mut Input<'_>, file: &mut [u8]) {
    let kind = input.u8() % 3;
    let (place, mask) = (usize::from(input.u16()), input.u8());
    let body_len = file.len() - segment::HEADER_LEN;
    if kind == 0 || body_len == 0 {
        return;
    }
    let at = segment::HEADER_LEN + place % body_len;
    if kind == 1 {
        file[at] ^= mask;
    } else {
        let sector = at / 512 * 512;
        let end = file.len().min(sector + 512);
        file[sector.max(segment::HEADER_LEN)..end].fill(0);
    }
}
