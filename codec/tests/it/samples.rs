//! One small example of every file, the same in all tests.

use caskade_codec::hash::SECRET_LEN;
use caskade_codec::hint::{Binding, Builder, Class, Entry};
use caskade_codec::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use caskade_codec::journal::{self, GroupBuilder, Range};
use caskade_codec::manifest::{Manifest, SegmentEntry, State};
use caskade_codec::meta::StoreMeta;
use caskade_codec::record::{self, BatchPart, Draft, Flags, Frame, Kind, Marker, Record};
use caskade_codec::segment::{self, Role, Scanner, Sealed, Tally};
use caskade_codec::snapshot::{self, Position, Segment};

pub(crate) const UUID: StoreUuid = StoreUuid(*b"caskade-uuid-016");
pub(crate) const SHARD: ShardId = ShardId(3);

pub(crate) fn secret() -> [u8; SECRET_LEN] {
    std::array::from_fn(|index| (index as u8).wrapping_mul(73).wrapping_add(41))
}

pub(crate) fn store() -> StoreMeta {
    StoreMeta { uuid: UUID, shards: 16, secret: secret(), created_ms: 1_760_000_000_123 }
}

pub(crate) fn log_header() -> segment::Header {
    segment::Header {
        uuid: UUID,
        shard: SHARD,
        id: SegmentId(7),
        role: Role::Log,
        salt: 0xC0FF_EE11,
    }
}

pub(crate) fn merged_header() -> segment::Header {
    segment::Header { id: SegmentId(9), role: Role::Merged, salt: 0x0BAD_5EED, ..log_header() }
}

pub(crate) fn put<'a>(seqno: u64, key: &'a [u8], value: &'a [u8]) -> Draft<'a> {
    let (kind, flags, expiry) = (Kind::Put, Flags::NONE, None);
    Draft { kind, flags, seqno: Seqno(seqno), expiry, key, value }
}

/// A put, one that expires, a tombstone, a batch of two, a marker, an empty put, a compressed one.
pub(crate) fn log_file() -> Vec<u8> {
    let batched = Draft { flags: Flags::IN_BATCH, ..put(105, b"batched", b"one") };
    let deleted =
        Draft { kind: Kind::Tombstone, flags: Flags::IN_BATCH, ..put(106, b"and deleted", b"") };
    let part = BatchPart {
        coordinator: ShardId(1),
        parts: 2,
        ops: 2,
        coordinator_seqno: Seqno(4711),
        bytes: (batched.frame_len() + deleted.frame_len()) as u64,
    };
    let marker = Marker { durable: Seqno(106) };
    write(
        &log_header(),
        &[
            put(101, b"hello", b"world"),
            Draft { expiry: Some(1_760_000_060_000), ..put(102, b"session", b"expires") },
            Draft { kind: Kind::Tombstone, ..put(103, b"hello", b"") },
            Draft { kind: Kind::Batch, ..put(104, b"", &part.encode()) },
            batched,
            deleted,
            Draft { kind: Kind::Marker, ..put(107, b"", &marker.encode()) },
            put(108, b"", b""),
            Draft { flags: Flags::LZ4, ..put(109, b"packed", b"opaque to the format") },
        ],
    )
}

pub(crate) fn merged_file() -> Vec<u8> {
    let expiring = Draft { expiry: Some(1_760_000_060_000), ..put(102, b"session", b"expires") };
    let tombstone = Draft { kind: Kind::Tombstone, ..put(103, b"hello", b"") };
    write(
        &merged_header(),
        &[put(105, b"batched", b"one"), expiring, tombstone, put(8, b"old", b"1")],
    )
}

/// A whole segment of these frames.
pub(crate) fn write(header: &segment::Header, drafts: &[Draft<'_>]) -> Vec<u8> {
    let mut file = header.encode().to_vec();
    for draft in drafts {
        append(&mut file, header.salt, draft);
    }
    file
}

pub(crate) fn append(file: &mut Vec<u8>, salt: u32, draft: &Draft<'_>) {
    let at = file.len();
    file.resize(at + draft.frame_len(), 0);
    draft.encode(record::seed(salt, at as u64), &mut file[at..]);
}

/// The records of a segment, and the frame that ended the walk.
pub(crate) fn scan(file: &[u8], salt: u32) -> (Vec<(u64, Record<'_>)>, Option<Frame<'_>>) {
    let mut records = Vec::new();
    for (offset, frame) in Scanner::new(file, salt, segment::HEADER_LEN as u64) {
        match frame {
            Frame::Record(record) => records.push((offset, record)),
            end => return (records, Some(end)),
        }
    }
    (records, None)
}

pub(crate) fn sealed(file: &[u8], salt: u32) -> Sealed {
    let mut tally = Tally::default();
    for (_, record) in scan(file, salt).0 {
        tally.push(&record);
    }
    tally.finish()
}

pub(crate) fn binding(header: &segment::Header) -> Binding {
    Binding { uuid: header.uuid, shard: header.shard, id: header.id, role: header.role }
}

/// What the hint of a segment says. Hashes are made up.
pub(crate) fn entries(file: &[u8], header: &segment::Header) -> Vec<Entry> {
    let entry = |(offset, record): (u64, Record<'_>)| {
        let class = Class::of(record.kind, record.expiry.is_some());
        let hash = if class == Class::Other { 0 } else { 0x1357_0000 | record.seqno.0 as u32 };
        Entry { offset, frame_len: record.frame_len as u32, class, hash, seqno: record.seqno }
    };
    scan(file, header.salt).0.into_iter().map(entry).collect()
}

pub(crate) fn hint(file: &[u8], header: &segment::Header) -> Vec<u8> {
    let mut builder = Builder::new(binding(header));
    for entry in entries(file, header) {
        builder.push(&entry);
    }
    builder.finish(&sealed(file, header.salt))
}

pub(crate) fn manifest() -> Manifest {
    let entry = |header: segment::Header, state| SegmentEntry {
        id: header.id,
        role: header.role,
        salt: header.salt,
        state,
    };
    let [log, merged] = [(log_file(), log_header()), (merged_file(), merged_header())]
        .map(|(file, header)| entry(header, State::Sealed(sealed(&file, header.salt))));
    let open = segment::Header { id: SegmentId(8), salt: 0x1111_2222, ..log_header() };
    Manifest {
        uuid: UUID,
        shard: SHARD,
        generation: 12,
        next_segment: SegmentId(10),
        next_log_seqno: Seqno(110),
        horizon: Seqno(106),
        segments: vec![log, entry(open, State::Open), merged],
    }
}

pub(crate) fn keydir_header() -> snapshot::Header {
    let segment = |slot, id, len| Segment {
        slot,
        id: SegmentId(id),
        len,
        live_bytes: len - 64,
        live_records: len / 40,
    };
    snapshot::Header {
        uuid: UUID,
        shard: SHARD,
        keys: 4,
        seqno: Seqno(109),
        position: Position { segment: SegmentId(8), offset: 64 },
        leaves: 2,
        segments: vec![segment(1, 7, 424), segment(300, 9, 224)],
    }
}

/// First hash and entries of each leaf.
pub(crate) fn leaves() -> [(u32, Vec<(u32, u64)>); 2] {
    let location = |slot: u64, class: u64, units: u64| slot << 40 | class << 32 | units;
    [
        (0, vec![(0x0102_0304, location(1, 1, 8)), (0x0000_0005, location(300, 1, 0x1234))]),
        (0x8000_0000, vec![(0x8000_0000, location(1, 2, 13)), (0x8000_FFFF, location(1, 255, 17))]),
    ]
}

pub(crate) fn keydir() -> Vec<u8> {
    let mut file = keydir_header().encode();
    for (index, (first_hash, entries)) in (0..).zip(leaves()) {
        snapshot::encode_leaf(index, first_hash, &entries, &mut file);
    }
    file
}

pub(crate) fn journal_header() -> journal::Header {
    journal::Header { uuid: UUID, turn: 5, salt: 0x7EA7_0001 }
}

pub(crate) fn ranges(file: &[u8]) -> [Vec<Range<'_>>; 2] {
    let range = |offset: usize, len: usize| Range {
        shard: SHARD,
        segment: SegmentId(7),
        offset: offset as u64,
        bytes: &file[offset..offset + len],
    };
    [vec![range(64, 32), range(96, 48)], vec![range(144, 27)]]
}

/// Two groups, then what an earlier turn left behind.
pub(crate) fn journal() -> Vec<u8> {
    let log = log_file();
    let mut file = journal_header().encode().to_vec();
    let stale = journal::Header { turn: 4, ..journal_header() };
    let [first, second] = ranges(&log);
    let groups =
        [(journal_header(), 0, &first), (journal_header(), 1, &second), (stale, 2, &first)];
    for (header, number, ranges) in groups {
        let mut builder = GroupBuilder::new();
        for range in ranges {
            builder.push(range);
        }
        let group = builder.finish(&header, number, file.len() as u64).to_vec();
        file.extend_from_slice(&group);
    }
    file
}
