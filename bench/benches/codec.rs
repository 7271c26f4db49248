//! Throughput of the format: one record, bulk scans, hints, keydir snapshots.

use caskade_codec::hint::{self, Binding, Builder, Class, Entry, Hint};
use caskade_codec::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use caskade_codec::record::{self, Draft, Flags, Frame, Header, Kind};
use caskade_codec::segment::{self, Role, Scanner, Tally};
use caskade_codec::snapshot::{self, Position, Snapshot};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const SALT: u32 = 0x5EED_CAFE;
const KEY: [u8; 16] = *b"user:00000001234";

fn draft(seqno: u64, value: &[u8]) -> Draft<'_> {
    let (kind, flags) = (Kind::Put, Flags::NONE);
    Draft { kind, flags, seqno: Seqno(seqno), expiry: None, key: &KEY, value }
}

/// A segment's bytes with `count` puts of this value.
fn segment_of(count: u64, value: &[u8]) -> Vec<u8> {
    let mut file = vec![0; segment::HEADER_LEN];
    for seqno in 1..=count {
        let draft = draft(seqno, value);
        let at = file.len();
        file.resize(at + draft.frame_len(), 0);
        draft.encode(record::seed(SALT, at as u64), &mut file[at..]);
    }
    file
}

fn one_record(c: &mut Criterion) {
    for (name, value_len) in [("16+100", 100), ("16+1024", 1024), ("16+16384", 16_384)] {
        let value = vec![0xA5; value_len];
        let draft = draft(7, &value);
        let seed = record::seed(SALT, 4096);
        let mut frame = vec![0; draft.frame_len()];
        draft.encode(seed, &mut frame);

        let mut group = c.benchmark_group("record");
        group.throughput(Throughput::Bytes(draft.frame_len() as u64));
        group.bench_function(format!("encode/{name}"), |b| {
            b.iter(|| black_box(&draft).encode(black_box(seed), black_box(&mut frame)));
        });
        group.bench_function(format!("decode/{name}"), |b| {
            b.iter(|| match record::decode(black_box(&frame), black_box(seed)) {
                Frame::Record(record) => record.value.len(),
                other => panic!("{other:?}"),
            });
        });
        let header = Header::decode(frame.first_chunk().expect("a frame has a header"));
        let header = header.expect("the frame was encoded above");
        group.bench_function(format!("is_intact/{name}"), |b| {
            b.iter(|| record::frame_is_intact(black_box(&frame), black_box(&header), seed));
        });
        group.finish();
    }
}

fn scan(c: &mut Criterion) {
    let file = segment_of((1 << 20) / 136, &[0xA5; 100]);
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Bytes(file.len() as u64));
    group.bench_function("1MiB of 16+100", |b| {
        b.iter(|| {
            let frames = Scanner::new(black_box(&file), SALT, segment::HEADER_LEN as u64);
            frames.filter(|(_, frame)| matches!(frame, Frame::Record(_))).count()
        });
    });
    group.bench_function("1MiB of 16+100, tallied", |b| {
        b.iter(|| {
            let mut tally = Tally::default();
            for (_, frame) in Scanner::new(black_box(&file), SALT, segment::HEADER_LEN as u64) {
                if let Frame::Record(record) = frame {
                    tally.push(&record);
                }
            }
            tally.finish()
        });
    });
    let zeros = vec![0; 1 << 20];
    group.throughput(Throughput::Bytes(zeros.len() as u64));
    group.bench_function("resync over 1MiB of zeros", |b| {
        b.iter(|| segment::resync(black_box(&zeros), SALT, 0, Seqno::NONE).is_some());
    });
    group.bench_function("resync over 1MiB of records of another segment", |b| {
        b.iter(|| segment::resync(black_box(&file), !SALT, 0, Seqno::NONE).is_some());
    });
    group.finish();
}

fn hint_file(role: Role, count: u64) -> Vec<u8> {
    let mut builder = Builder::new(Binding {
        uuid: StoreUuid([1; 16]),
        shard: ShardId(0),
        id: SegmentId(9),
        role,
    });
    let mut tally = Tally::default();
    let value = [0xA5; 100];
    for seqno in 1..=count {
        let mut frame = vec![0; draft(seqno, &value).frame_len()];
        draft(seqno, &value).encode(SALT, &mut frame);
        let Frame::Record(record) = record::decode(&frame, SALT) else {
            unreachable!("just encoded")
        };
        builder.push(&Entry {
            offset: tally.len(),
            frame_len: record.frame_len as u32,
            class: Class::Put,
            hash: (seqno as u32).wrapping_mul(0x9E37_79B9),
            seqno: record.seqno,
        });
        tally.push(&record);
    }
    builder.finish(&tally.finish())
}

fn hints(c: &mut Criterion) {
    const ENTRIES: u64 = 100_000;
    let mut group = c.benchmark_group("hint");
    group.throughput(Throughput::Elements(ENTRIES));
    for role in [Role::Log, Role::Merged] {
        let file = hint_file(role, ENTRIES);
        group.bench_function(
            format!("decode {role:?}, {} bytes an entry", file.len() / 100_000),
            |b| {
                b.iter(|| {
                    let hint = Hint::open(black_box(&file)).expect("the hint was built above");
                    let entries = hint.entries().map(|entry| entry.expect("a whole hint"));
                    entries
                        .fold(0_u64, |sum, entry: hint::Entry| sum ^ entry.offset ^ entry.seqno.0)
                });
            },
        );
    }
    group.finish();
}

fn snapshots(c: &mut Criterion) {
    const LEAVES: u32 = 128;
    const KEYS: u32 = 600;
    let step = u32::MAX / LEAVES;
    let header = snapshot::Header {
        uuid: StoreUuid([1; 16]),
        shard: ShardId(0),
        keys: u64::from(LEAVES * KEYS),
        seqno: Seqno(1),
        position: Position { segment: SegmentId(1), offset: 64 },
        leaves: LEAVES,
        segments: vec![snapshot::Segment {
            slot: 1,
            id: SegmentId(1),
            len: 1 << 26,
            live_bytes: 0,
            live_records: 0,
        }],
    };
    let mut file = header.encode();
    for index in 0..LEAVES {
        let entries: Vec<_> = (0..KEYS)
            .map(|key| {
                let spread = key.wrapping_mul(0x9E37_79B9);
                (index * step + spread % step, 1 << 40 | 3 << 32 | u64::from(spread >> 9))
            })
            .collect();
        snapshot::encode_leaf(index, index * step, &entries, &mut file);
    }
    let mut group = c.benchmark_group("snapshot");
    group.throughput(Throughput::Elements(header.keys));
    group.bench_function(
        format!("decode, {} bytes a key", file.len() / header.keys as usize),
        |b| {
            b.iter(|| {
                let snapshot =
                    Snapshot::open(black_box(&file)).expect("the snapshot was built above");
                let leaves = snapshot.leaves().map(|leaf| leaf.expect("a whole snapshot"));
                leaves
                    .flat_map(|leaf| leaf.entries(&file))
                    .fold(0, |sum, (hash, location)| sum ^ u64::from(hash) ^ location)
            });
        },
    );
    group.finish();
}

criterion_group!(benches, one_record, scan, hints, snapshots);
criterion_main!(benches);
