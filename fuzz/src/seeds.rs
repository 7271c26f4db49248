//! Inputs to start from: small valid files, and instructions that build some.

use caskade_codec::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use caskade_codec::journal::{self, GroupBuilder, Range};
use caskade_codec::manifest::{Manifest, SegmentEntry, State};
use caskade_codec::meta::StoreMeta;
use caskade_codec::record::{self, BatchPart, Draft, Flags, Kind, Marker};
use caskade_codec::segment::{self, Role, Scanner, Sealed, Tally};
use caskade_codec::snapshot::{self, Position, Segment};
use caskade_codec::{hint, names, record::Frame};

const UUID: StoreUuid = StoreUuid([0x11; 16]);
const SHARD: ShardId = ShardId(3);
const SALT: u32 = 0x0102_0304;

const RAW: u8 = 0;
const MENDED: u8 = 1;
const BUILT: u8 = 2;

/// The inputs of every target, under its name.
#[must_use]
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let files = [Role::Log, Role::Merged].map(segment_file);
    let [log, merged] = &files;
    let hints = [hint_file(Role::Log, log), hint_file(Role::Merged, merged)];
    let sealed = [sealed(log), sealed(merged)];
    let frame = &log[segment::HEADER_LEN..];
    let at = (segment::HEADER_LEN / 8) as u32;
    let place = [SALT.to_le_bytes(), at.to_le_bytes()].concat();
    vec![
        ("record", both(&place, &place, &[frame, &frame[..60]])),
        (
            "segment_scan",
            both(
                &SALT.to_le_bytes(),
                &[SALT.to_le_bytes().as_slice(), &[0]].concat(),
                &[log, merged],
            ),
        ),
        ("hint", both(&[], &[], &[&hints[0], &hints[1]])),
        ("manifest", twin(&manifest(&sealed))),
        ("snapshot", both(&[], &[], &[&keydir()])),
        ("store_meta", twin(&store())),
        ("journal", journals(&journal_file(log))),
        ("names", file_names()),
        ("directory", changed_directories()),
        ("operations", choices()),
    ]
}

fn with_head(mode: u8, head: &[u8], rest: &[u8]) -> Vec<u8> {
    [&[mode], head, rest].concat()
}

/// Each file raw and mended, behind what the harness reads first; and instructions.
fn both(raw_head: &[u8], mended_head: &[u8], files: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut inputs = instructions();
    for file in files {
        inputs.push(with_head(RAW, raw_head, file));
        inputs.push(with_head(MENDED, mended_head, file));
    }
    inputs
}

/// Each file raw; its payload, undamaged; and instructions.
fn twin(file: &[u8]) -> Vec<Vec<u8>> {
    const UNDAMAGED: [u8; 9] = [0; 9];
    let mut inputs = instructions();
    let payload_len = u32::from_le_bytes(*file[12..].first_chunk().expect("a head")) as usize;
    inputs.push(with_head(RAW, &[], file));
    inputs.push(with_head(MENDED, &UNDAMAGED, &file[16..16 + payload_len]));
    inputs
}

/// Every kind of change to some file of every store, alone and before a flip.
fn changed_directories() -> Vec<Vec<u8>> {
    const STORES: u8 = 4;
    const KINDS: u8 = 12;
    let mut inputs = Vec::new();
    for store in 0..STORES {
        inputs.push(vec![store]);
        for kind in 0..KINDS {
            for file in [0, 3, 5, 8] {
                let change = [kind, file, 70 + file, 0, 3, 5, 6, 7, 1];
                inputs.push([&[store], change.as_slice()].concat());
                inputs.push([&[store], change.as_slice(), &[0, file + 1, 80, 0, 1]].concat());
            }
        }
    }
    inputs
}

/// Long ones: a simulated life draws some hundred numbers.
fn choices() -> Vec<Vec<u8>> {
    (1..12_u64)
        .map(|seed| {
            let mut rng = caskade_shard::storage::sim::Rng::new(seed);
            let mut out = vec![0; 100 * seed as usize];
            rng.fill(&mut out);
            out
        })
        .collect()
}

/// Bytes that mean something to every harness that builds files.
fn instructions() -> Vec<Vec<u8>> {
    let counting: Vec<u8> = (0..200).collect();
    let mixed: Vec<u8> = (0..255).map(|i: u8| i.wrapping_mul(167) ^ (i >> 3)).collect();
    [&[][..], &[1; 40], &counting, &mixed].map(|rest| with_head(BUILT, &[], rest)).to_vec()
}

fn put<'a>(seqno: u64, key: &'a [u8], value: &'a [u8]) -> Draft<'a> {
    let (kind, flags, expiry) = (Kind::Put, Flags::NONE, None);
    Draft { kind, flags, seqno: Seqno(seqno), expiry, key, value }
}

/// Frames of all kinds. A merged segment leaves out the batch and its seqnos have gaps.
fn segment_file(role: Role) -> Vec<u8> {
    let batched = Draft { flags: Flags::IN_BATCH, ..put(5, b"batched", b"one") };
    let part = BatchPart {
        coordinator: SHARD,
        parts: 1,
        ops: 1,
        coordinator_seqno: Seqno(4),
        bytes: batched.frame_len() as u64,
    }
    .encode();
    let marker = Marker { durable: Seqno(5) }.encode();
    let drafts = [
        put(1, b"key", b"value"),
        Draft { expiry: Some(1 << 40), ..put(2, b"expires", b"soon") },
        Draft { kind: Kind::Tombstone, ..put(3, b"key", b"") },
        Draft { kind: Kind::Batch, ..put(4, b"", &part) },
        batched,
        Draft { kind: Kind::Marker, ..put(6, b"", &marker) },
        Draft { flags: Flags::ZSTD, ..put(7, b"packed", b"opaque") },
    ];
    let header = segment::Header { uuid: UUID, shard: SHARD, id: SegmentId(2), role, salt: SALT };
    let mut file = header.encode().to_vec();
    for draft in drafts.iter().filter(|draft| role == Role::Log || draft.kind.has_key()) {
        let draft = match role {
            Role::Log => *draft,
            Role::Merged => Draft { flags: draft.flags.without(Flags::IN_BATCH), ..*draft },
        };
        let at = file.len();
        file.resize(at + draft.frame_len(), 0);
        draft.encode(record::seed(SALT, at as u64), &mut file[at..]);
    }
    file
}

fn records(file: &[u8]) -> impl Iterator<Item = (u64, record::Record<'_>)> {
    let frames = Scanner::new(file, SALT, segment::HEADER_LEN as u64);
    frames.filter_map(|(offset, frame)| match frame {
        Frame::Record(record) => Some((offset, record)),
        _ => None,
    })
}

fn sealed(file: &[u8]) -> Sealed {
    let mut tally = Tally::default();
    records(file).for_each(|(_, record)| tally.push(&record));
    tally.finish()
}

fn hint_file(role: Role, file: &[u8]) -> Vec<u8> {
    let binding = hint::Binding { uuid: UUID, shard: SHARD, id: SegmentId(2), role };
    let mut builder = hint::Builder::new(binding);
    for (offset, record) in records(file) {
        let class = hint::Class::of(record.kind, record.expiry.is_some());
        builder.push(&hint::Entry {
            offset,
            frame_len: record.frame_len as u32,
            class,
            hash: if class == hint::Class::Other {
                0
            } else {
                0x5A5A_0000 + u32::from(record.key[0])
            },
            seqno: record.seqno,
        });
    }
    builder.finish(&sealed(file))
}

fn manifest(sealed: &[Sealed; 2]) -> Vec<u8> {
    let entry = |id, role, state| SegmentEntry { id: SegmentId(id), role, salt: SALT, state };
    let [log, merged] = *sealed;
    Manifest {
        uuid: UUID,
        shard: SHARD,
        generation: 4,
        next_segment: SegmentId(9),
        next_log_seqno: Seqno(8),
        horizon: Seqno(7),
        segments: vec![
            entry(2, Role::Log, State::Sealed(log)),
            entry(3, Role::Log, State::Open),
            entry(4, Role::Merged, State::Sealed(merged)),
            entry(6, Role::Log, State::Open),
        ],
    }
    .encode()
}

fn store() -> Vec<u8> {
    let secret = std::array::from_fn(|index| index as u8);
    StoreMeta { uuid: UUID, shards: 16, secret, created_ms: 1 << 40 }.encode()
}

fn keydir() -> Vec<u8> {
    let segment =
        |slot, id| Segment { slot, id: SegmentId(id), len: 256, live_bytes: 128, live_records: 3 };
    let location = |slot: u64, units: u64| slot << 40 | 1 << 32 | units;
    let leaves: [(u32, &[(u32, u64)]); 3] = [
        (0, &[(5, location(1, 8)), (5, location(300, 9)), (1 << 20, location(1, 70_000))]),
        (1 << 24, &[]),
        (1 << 31, &[(u32::MAX, location(300, 12))]),
    ];
    let header = snapshot::Header {
        uuid: UUID,
        shard: SHARD,
        keys: 4,
        seqno: Seqno(7),
        position: Position { segment: SegmentId(2), offset: 64 },
        leaves: 3,
        segments: vec![segment(1, 2), segment(300, 4)],
    };
    let mut file = header.encode();
    for (index, (first_hash, entries)) in (0..).zip(leaves) {
        snapshot::encode_leaf(index, first_hash, entries, &mut file);
    }
    file
}

fn journal_file(log: &[u8]) -> Vec<u8> {
    let header = journal::Header { uuid: UUID, turn: 2, salt: SALT };
    let mut file = header.encode().to_vec();
    let mut builder = GroupBuilder::new();
    for (number, (from, to)) in (7..).zip([(64, 104), (104, 147)]) {
        for offset in [from, from + 8] {
            let bytes = &log[offset..to];
            let segment = SegmentId(2);
            builder.push(&Range { shard: SHARD, segment, offset: offset as u64, bytes });
        }
        let group = builder.finish(&header, number, file.len() as u64);
        file.extend_from_slice(group);
    }
    file
}

/// The file, and instructions for groups of one range: nothing or a byte behind it, nothing or a byte
/// in its padding.
fn journals(file: &[u8]) -> Vec<Vec<u8>> {
    const HEADER: [u8; 7] = [1, 0, 2, 3, 3, 3, 3];
    const NUMBER: [u8; 2] = [0, 1];
    const RANGES_AND_STEP: [u8; 2] = [1, 0];
    const RANGE_LEN_AT: usize = 4;
    let mut inputs = both(&[], &[], &[file]);
    for (range_len, behind) in [(0, [0, 0]), (0, [1, 0]), (1, [1, 0]), (1, [1, 1])] {
        let mut range_head = [0; journal::RANGE_HEAD_LEN];
        range_head[RANGE_LEN_AT] = range_len;
        let range = [range_head.as_slice(), &behind].concat();
        let body = [&[range.len() as u8], range.as_slice()].concat();
        let head = [HEADER.as_slice(), &NUMBER, &RANGES_AND_STEP].concat();
        inputs.push(with_head(MENDED, &head, &body));
    }
    inputs
}

fn file_names() -> Vec<Vec<u8>> {
    let (small, large) = (SegmentId(7), SegmentId(u64::MAX));
    let final_names = [
        names::STORE.to_owned(),
        names::LOCK.to_owned(),
        names::RESERVE.to_owned(),
        names::MANIFEST.to_owned(),
        names::KEYDIR.to_owned(),
        names::journal(0),
        names::journal(1),
        names::shard(SHARD),
        names::shard(ShardId(255)),
        names::segment(small),
        names::segment(large),
        names::hint(small),
        names::hint(large),
    ];
    let temporary = final_names.clone().map(|name| names::temporary(&name));
    final_names.into_iter().chain(temporary).map(String::into_bytes).collect()
}
