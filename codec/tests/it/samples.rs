//! One small example of every file, the same in all tests. All of them belong to one store, as it
//! stands at one moment: after a power cut, before it is opened again.
//!
//! Of the store's 16 shards this is number 6; what the other ones hold is not shown.
//!
//! | file | what |
//! |---|---|
//! | segment 7 | log, sealed: seqnos 101 to 109 |
//! | segment 8 | log, open: seqnos 110 to 112. Space behind them is allocated |
//! | segment 9 | merged from segments below 7, which are gone |
//! | hints | of 7 and 9. A writer removes them once `KEYDIR` stands; they may as well still be there |
//! | `MANIFEST` | lists the three segments; the horizon is at 109 |
//! | `KEYDIR` | as of seqno 109: points into 7 and 9 |
//! | `JOURNAL-0` | two groups with all of segment 8, then what an earlier turn left behind, on purpose |

use caskade_codec::hash::{KeyHasher, SECRET_LEN, keydir_bits};
use caskade_codec::hint::{Binding, Builder, Class, Entry};
use caskade_codec::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use caskade_codec::journal::{self, GroupBuilder, Range};
use caskade_codec::manifest::{Manifest, SegmentEntry, State};
use caskade_codec::meta::StoreMeta;
use caskade_codec::record::{self, BatchPart, Draft, Flags, Frame, Kind, Marker, Record};
use caskade_codec::segment::{self, Role, Scanner, Sealed, Tally};
use caskade_codec::snapshot::{self, Position, Segment};
use std::collections::BTreeMap;

pub(crate) const UUID: StoreUuid = StoreUuid(*b"caskade-uuid-016");
pub(crate) const SHARD: ShardId = ShardId(6);

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

pub(crate) fn open_header() -> segment::Header {
    segment::Header { id: SegmentId(8), salt: 0x1111_2222, ..log_header() }
}

pub(crate) fn merged_header() -> segment::Header {
    segment::Header { id: SegmentId(9), role: Role::Merged, salt: 0x0BAD_5EED, ..log_header() }
}

pub(crate) fn put<'a>(seqno: u64, key: &'a [u8], value: &'a [u8]) -> Draft<'a> {
    let (kind, flags, expiry) = (Kind::Put, Flags::NONE, None);
    Draft { kind, flags, seqno: Seqno(seqno), expiry, key, value }
}

/// `abc` ten times over, compressed: the length of the original, then an LZ4 block by hand. Three
/// literals, a match of 22 bytes at distance 3, five literals.
pub(crate) const PACKED: &[u8] = b"\x1E\0\0\0\x3Fabc\x03\0\x03\x50bcabc";

fn batch_operations() -> [Draft<'static>; 2] {
    [
        Draft { flags: Flags::IN_BATCH, ..put(105, b"cherry", b"one") },
        Draft { kind: Kind::Tombstone, flags: Flags::IN_BATCH, ..put(106, b"island", b"") },
    ]
}

/// The other part is in shard 1, whose horizon is above 4711.
pub(crate) fn batch_part() -> BatchPart {
    BatchPart {
        coordinator: ShardId(1),
        parts: 2,
        ops: 2,
        coordinator_seqno: Seqno(4711),
        bytes: batch_operations().iter().map(|draft| draft.frame_len() as u64).sum(),
    }
}

/// A put, one that expires, a tombstone, a batch of two, a marker, an empty put, a compressed one.
pub(crate) fn log_file() -> Vec<u8> {
    let [batched, deleted] = batch_operations();
    let marker = Marker { durable: Seqno(106) };
    write(
        &log_header(),
        &[
            put(101, b"melon", b"green"),
            Draft { expiry: Some(1_760_000_060_000), ..put(102, b"avatar", b"expires") },
            Draft { kind: Kind::Tombstone, ..put(103, b"melon", b"") },
            Draft { kind: Kind::Batch, ..put(104, b"", &batch_part().encode()) },
            batched,
            deleted,
            Draft { kind: Kind::Marker, ..put(107, b"", &marker.encode()) },
            put(108, b"", b""),
            Draft { flags: Flags::LZ4, ..put(109, b"salt", PACKED) },
        ],
    )
}

/// Three frames, and space that was allocated ahead.
pub(crate) fn open_file() -> Vec<u8> {
    let mut file = write(
        &open_header(),
        &[
            put(110, b"melon", b"ripe"),
            Draft { expiry: Some(1_760_000_090_000), ..put(111, b"north", b"cold") },
            Draft { kind: Kind::Tombstone, ..put(112, b"red", b"") },
        ],
    );
    file.resize(512, 0);
    file
}

/// Of its records the log has deleted `island` since, and `mu` is a tombstone.
pub(crate) fn merged_file() -> Vec<u8> {
    let expiring = Draft { expiry: Some(1_760_000_070_000), ..put(52, b"nu", b"expires") };
    let tombstone = Draft { kind: Kind::Tombstone, ..put(60, b"mu", b"") };
    write(
        &merged_header(),
        &[put(95, b"red", b"apple"), expiring, tombstone, put(8, b"island", b"1")],
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

/// The hash bits of a key of the sample store.
pub(crate) fn hash_bits(key: &[u8]) -> u32 {
    keydir_bits(KeyHasher::new(&secret()).hash(key))
}

/// What the hint of a segment says.
pub(crate) fn entries(file: &[u8], header: &segment::Header) -> Vec<Entry> {
    let entry = |(offset, record): (u64, Record<'_>)| {
        let class = Class::of(record.kind, record.expiry.is_some());
        let hash = if class == Class::Other { 0 } else { hash_bits(record.key) };
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
    Manifest {
        uuid: UUID,
        shard: SHARD,
        generation: 12,
        next_segment: SegmentId(10),
        next_log_seqno: Seqno(110),
        horizon: Seqno(109),
        segments: vec![log, entry(open_header(), State::Open), merged],
    }
}

/// The segments that the keydir points into, with their slots.
pub(crate) fn covered() -> [(u32, segment::Header, Vec<u8>); 2] {
    [(1, log_header(), log_file()), (300, merged_header(), merged_file())]
}

/// Hash bits, location and frame length of every key's newest record, if that is a put.
fn live() -> Vec<(u32, u64, u64)> {
    let files = covered();
    let mut newest = BTreeMap::new();
    for (slot, header, file) in &files {
        for (offset, record) in scan(file, header.salt).0 {
            let is_newer = newest
                .get(record.key)
                .is_none_or(|(_, _, other): &(_, _, Record<'_>)| other.seqno < record.seqno);
            if record.kind.has_key() && is_newer {
                newest.insert(record.key, (u64::from(*slot), offset, record));
            }
        }
    }
    let puts = newest.into_values().filter(|(_, _, record)| record.kind == Kind::Put);
    puts.map(|(slot, offset, record)| {
        let len = record.frame_len as u64;
        let class = if len <= 1528 { len / 8 } else { (191 + len.div_ceil(256)).min(255) };
        (hash_bits(record.key), slot << 40 | class << 32 | (offset / 8), len)
    })
    .collect()
}

pub(crate) fn keydir_header() -> snapshot::Header {
    let live = live();
    let segment = |(slot, header, file): (u32, segment::Header, Vec<u8>)| {
        let lens = live.iter().filter(|(_, location, _)| location >> 40 == u64::from(slot));
        Segment {
            slot,
            id: header.id,
            len: file.len() as u64,
            live_bytes: lens.clone().map(|(_, _, len)| len).sum(),
            live_records: lens.count() as u64,
        }
    };
    snapshot::Header {
        uuid: UUID,
        shard: SHARD,
        keys: live.len() as u64,
        seqno: Seqno(109),
        position: Position { segment: SegmentId(9), offset: merged_file().len() as u64 },
        leaves: 2,
        segments: covered().map(segment).into(),
    }
}

/// First hash and entries of each leaf.
pub(crate) fn leaves() -> [(u32, Vec<(u32, u64)>); 2] {
    let (low, high) = live()
        .into_iter()
        .map(|(hash, location, _)| (hash, location))
        .partition(|(hash, _)| *hash < 0x8000_0000);
    [(0, low), (0x8000_0000, high)]
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

/// The open segment in three ranges: its header with the first frame, the second frame, and the
/// third one without its padding, for a range is any run of bytes.
pub(crate) fn ranges(file: &[u8]) -> [Vec<Range<'_>>; 2] {
    let range = |offset: usize, end: usize| Range {
        shard: SHARD,
        segment: open_header().id,
        offset: offset as u64,
        bytes: &file[offset..end],
    };
    [vec![range(0, 96), range(96, 136)], vec![range(136, 136 + 23)]]
}

/// Two groups, then one that an earlier turn of this file left behind: it ends the journal.
pub(crate) fn journal() -> Vec<u8> {
    let (open, log) = (open_file(), log_file());
    let mut file = journal_header().encode().to_vec();
    let earlier = journal::Header { turn: 3, salt: 0x7EA7_0000, ..journal_header() };
    let [first, second] = ranges(&open);
    let old = Range { shard: SHARD, segment: log_header().id, offset: 64, bytes: &log[64..96] };
    let groups =
        [(journal_header(), 0, &first), (journal_header(), 1, &second), (earlier, 2, &vec![old])];
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
