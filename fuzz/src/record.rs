//! The record frame.

use crate::input::{Input, Mode};
use caskade_codec::checksum;
use caskade_codec::ids::{Seqno, ShardId};
use caskade_codec::record::{
    ALIGNMENT, BatchPart, Draft, FRAME_LEN_MIN, Flags, Frame, HEADER_LEN, Header, HeaderFault,
    Kind, Marker, Reason, Record, decode, frame_is_intact, seed,
};

/// Decodes frames and compares with the steps of `FORMAT.md`; encodes drafts and reads them back.
pub fn record(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.mode();
    let seed = seed(input.u32(), u64::from(input.u32()) * ALIGNMENT as u64);
    match mode {
        Mode::Raw => check(input.rest(), seed),
        Mode::Mended => {
            let mut bytes = input.rest().to_vec();
            mend(&mut bytes, seed);
            check(&bytes, seed);
        }
        Mode::Built => built(input, seed),
    }
}

/// Sets the checksum of the frame at the start of `bytes` right, if there is a whole one.
pub(crate) fn mend(bytes: &mut [u8], seed: u32) -> Option<usize> {
    let header = Header::decode(bytes.first_chunk()?).ok()?;
    let crc = checksum::extend(seed, bytes.get(4..header.frame_len())?);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    Some(header.frame_len())
}

fn check(bytes: &[u8], seed: u32) {
    let frame = decode(bytes, seed);
    check_outcome(bytes, seed, frame);
    if let Frame::Record(record) = frame {
        check_record(bytes, seed, &record);
    }
}

/// The steps of `FORMAT.md`, "Decoding a frame".
fn check_outcome(bytes: &[u8], seed: u32, frame: Frame<'_>) {
    let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
        let is_zero = bytes.iter().all(|&byte| byte == 0);
        return assert_eq!(frame, if is_zero { Frame::End } else { Frame::Torn });
    };
    let header = match Header::decode(head) {
        Ok(header) => header,
        Err(HeaderFault::Empty) => {
            assert_eq!((*head, frame), ([0; HEADER_LEN], Frame::End));
            return;
        }
        Err(fault) => {
            assert_ne!(*head, [0; HEADER_LEN], "an empty header is the end");
            return assert_eq!(frame, Frame::Corrupt(Reason::Header(fault)));
        }
    };
    if header.frame_len() > bytes.len() {
        return assert_eq!(frame, Frame::Torn);
    }
    let whole = &bytes[..header.frame_len()];
    let sum_fits = checksum::extend(seed, &whole[4..]) == header.crc;
    let part_fits = header.kind != Kind::Batch || part_fits(&whole[header.value_range()]);
    let expected = match (sum_fits, part_fits) {
        (false, _) => Some(Reason::Checksum),
        (true, false) => Some(Reason::BatchPart),
        (true, true) => None,
    };
    match (expected, frame) {
        (Some(reason), Frame::Corrupt(found)) => assert_eq!(reason, found),
        (None, Frame::Record(_)) => (),
        (expected, found) => panic!("expected {expected:?}, found {found:?}"),
    }
    assert_eq!(frame_is_intact(whole, &header, seed), expected.is_none());
}

/// The rules of `FORMAT.md` for a batch part's value, said once more.
fn part_fits(value: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        value[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    let (coordinator, parts, ops) = (number(0, 2), number(2, 2), number(4, 4));
    let (coordinator_seqno, bytes) = (number(8, 8), number(16, 8));
    coordinator < 256
        && (1..=256).contains(&parts)
        && coordinator_seqno > 0
        && bytes % 8 == 0
        && (24 * ops..=1 << 35).contains(&bytes)
}

/// What holds of every record that decodes from the start of `bytes`.
pub(crate) fn check_record(bytes: &[u8], seed: u32, record: &Record<'_>) {
    let len = record.frame_len;
    assert!((FRAME_LEN_MIN..=bytes.len()).contains(&len) && len.is_multiple_of(ALIGNMENT));
    let frame = &bytes[..len];
    let encoded = encode(&draft_of(record), seed);
    assert_eq!(encoded.len(), len);
    let header = Header::decode(frame.first_chunk().expect("a record has a header"))
        .expect("a record's header is valid");
    let unpadded = &frame[..header.unpadded_len()];
    if frame[unpadded.len()..].iter().all(|&byte| byte == 0) {
        assert_eq!(encoded, frame, "one record has one encoding");
    } else {
        assert_eq!(encoded[4..unpadded.len()], unpadded[4..], "which ends before its padding");
    }
    assert!(record.seqno != Seqno::NONE);
    assert_eq!(record.expiry.is_some(), record.flags.contains(Flags::EXPIRY));

    assert_eq!(&frame[header.key_range()], record.key);
    assert_eq!(&frame[header.value_range()], record.value);
    assert!(!frame_is_intact(&frame[..len - ALIGNMENT], &header, seed));

    // The frame is valid by itself, torn when shorter, and another frame's elsewhere.
    assert_eq!(decode(frame, seed), Frame::Record(*record));
    for cut in [HEADER_LEN, len - ALIGNMENT, len - 1] {
        assert_eq!(decode(&frame[..cut], seed), Frame::Torn);
    }
    for other in [seed ^ 1, !seed, seed.wrapping_add(1)] {
        assert_eq!(decode(bytes, other), Frame::Corrupt(Reason::Checksum));
    }
    match record.kind {
        Kind::Put => (),
        Kind::Tombstone => assert!(record.value.is_empty() && record.expiry.is_none()),
        Kind::Batch => {
            let part = BatchPart::decode(record.value).expect("a batch part keeps its rules");
            assert_eq!(part.encode(), record.value);
        }
        Kind::Marker => {
            let marker = Marker::decode(record.value).expect("any number is a marker's");
            assert_eq!(marker.encode(), record.value);
        }
    }
}

pub(crate) fn draft_of<'a>(record: &Record<'a>) -> Draft<'a> {
    let Record { kind, flags, seqno, expiry, key, value, .. } = *record;
    Draft { kind, flags, seqno, expiry, key, value }
}

pub(crate) fn encode(draft: &Draft<'_>, seed: u32) -> Vec<u8> {
    let mut out = vec![0xEE; draft.frame_len()];
    draft.encode(seed, &mut out);
    out
}

/// The parts of a draft that the input picks, owned.
#[derive(Debug, Clone)]
pub(crate) struct OwnedDraft {
    pub(crate) kind: Kind,
    flags: Flags,
    expiry: Option<u64>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl OwnedDraft {
    /// A draft that keeps the rules of its kind.
    pub(crate) fn read(input: &mut Input<'_>, value_len_max: usize) -> Self {
        let shape = input.u8();
        let is_batched = shape & 4 != 0;
        let batch = if is_batched { Flags::IN_BATCH } else { Flags::NONE };
        let plain = Self {
            kind: Kind::Put,
            flags: Flags::NONE,
            expiry: None,
            key: Vec::new(),
            value: Vec::new(),
        };
        match shape & 3 {
            0 => {
                let packed =
                    [Flags::NONE, Flags::LZ4, Flags::ZSTD, Flags::NONE][usize::from(shape >> 6)];
                let expiry = (shape & 8 != 0).then(|| input.u64());
                let key = input.short().to_vec();
                let is_long = shape & 16 != 0;
                let value =
                    if is_long { input.long(value_len_max) } else { input.short().to_vec() };
                Self { flags: batch | packed, expiry, key, value, ..plain }
            }
            1 => Self { kind: Kind::Tombstone, flags: batch, key: input.short().to_vec(), ..plain },
            2 => {
                let any = BatchPart {
                    coordinator: ShardId(input.u16()),
                    parts: input.u16(),
                    ops: input.u32(),
                    coordinator_seqno: Seqno(input.u64()),
                    bytes: input.u64(),
                };
                let value = any.encode();
                assert_eq!(BatchPart::decode(&value), part_fits(&value).then_some(any));
                let ops = any.ops % (1 << 30);
                let part = BatchPart {
                    coordinator: ShardId(any.coordinator.0 % 256),
                    parts: any.parts % 256 + 1,
                    ops,
                    coordinator_seqno: any.coordinator_seqno.max(Seqno::FIRST),
                    bytes: u64::from(ops) * 24 + any.bytes % (1 << 32) * 8 % (1 << 30),
                };
                assert_eq!(BatchPart::decode(&part.encode()), Some(part));
                Self { kind: Kind::Batch, value: part.encode().to_vec(), ..plain }
            }
            _ => {
                let marker = Marker { durable: Seqno(input.u64()) };
                Self { kind: Kind::Marker, value: marker.encode().to_vec(), ..plain }
            }
        }
    }

    pub(crate) fn draft(&self, seqno: Seqno) -> Draft<'_> {
        Draft {
            kind: self.kind,
            flags: self.flags,
            seqno,
            expiry: self.expiry,
            key: &self.key,
            value: &self.value,
        }
    }
}

/// Encodes a draft among other bytes, reads it back, and flips one bit of it.
fn built(mut input: Input<'_>, seed: u32) {
    let owned = OwnedDraft::read(&mut input, 9000);
    let draft = owned.draft(input.seqno());
    let flipped_bit = input.u32() as usize;
    let mut bytes = encode(&draft, seed);
    let len = bytes.len();
    bytes.extend_from_slice(input.rest());
    let Frame::Record(record) = decode(&bytes, seed) else { panic!("a draft decodes") };
    check_record(&bytes, seed, &record);
    assert_eq!(record.frame_len, len);
    assert_eq!((record.kind, record.seqno, record.expiry), (draft.kind, draft.seqno, draft.expiry));
    assert_eq!((record.key, record.value), (draft.key, draft.value));
    assert_eq!(record.flags.without(Flags::EXPIRY), draft.flags);

    let bit = flipped_bit % (len * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    match decode(&bytes, seed) {
        // A length may reach into what follows, where a checksum may fit by chance.
        Frame::Record(found) => assert!(changes_the_length(bit) && found.frame_len > 0),
        found => assert_ne!(found, Frame::End),
    }
}

/// Whether a bit of the header decides how long the frame is: key and value length and the flag of
/// the expiry.
fn changes_the_length(bit: usize) -> bool {
    bit == 4 * 8 + 3 || (5 * 8..12 * 8).contains(&bit)
}
