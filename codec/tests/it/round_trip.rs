//! What is encoded decodes to the same, whatever it is; and whatever is decoded, nothing panics.

use crate::samples;
use caskade_codec::hash::SECRET_LEN;
use caskade_codec::hint::{Builder, Class, Entry, Hint};
use caskade_codec::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use caskade_codec::journal::{self, GroupBuilder, Groups, Range};
use caskade_codec::manifest::{self, Manifest, SegmentEntry, State};
use caskade_codec::meta::{self, StoreMeta};
use caskade_codec::names::{self, FileName, StoreName};
use caskade_codec::record::{self, BatchPart, Draft, Flags, Frame, Kind, Marker};
use caskade_codec::segment::{self, Role, SEGMENT_LEN_MAX, Sealed};
use caskade_codec::snapshot::{self, Position, Segment, Snapshot};
use caskade_codec::{checksum, twin};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes(len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=len_max)
}

fn flags() -> impl Strategy<Value = Flags> {
    let batch = prop_oneof![Just(Flags::NONE), Just(Flags::IN_BATCH)];
    let packed = prop_oneof![Just(Flags::NONE), Just(Flags::LZ4), Just(Flags::ZSTD)];
    (batch, packed).prop_map(|(batch, packed)| batch | packed)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Log), Just(Role::Merged)]
}

/// Facts of a segment that holds at least one frame.
fn sealed() -> impl Strategy<Value = Sealed> {
    let numbers = (9..=SEGMENT_LEN_MAX / 8, any::<u32>(), any::<u64>(), any::<bool>());
    (numbers, 1..=Seqno::MAX.0, 1..=Seqno::MAX.0, any::<u64>(), any::<u64>()).prop_map(
        |((units, digest, expiry_max, has_batch), a, b, records, tombstone_bytes)| {
            let len = units * 8;
            Sealed {
                len,
                digest,
                records: records % ((len - 64) / 24 + 1),
                min_seqno: Seqno(a.min(b)),
                max_seqno: Seqno(a.max(b)),
                expiry_max,
                tombstone_bytes: tombstone_bytes % (len - 63),
                has_batch,
            }
        },
    )
}

fn classes() -> impl Strategy<Value = Class> {
    let classes = [Class::Put, Class::ExpiringPut, Class::Tombstone, Class::Other];
    (0..4_usize).prop_map(move |index| classes[index])
}

/// Entries that follow one another, as a segment of this role has them.
fn entries() -> impl Strategy<Value = (Role, Vec<Entry>)> {
    let raw = (classes(), 3_u32..1 << 20, any::<u32>(), 1..=Seqno::MAX.0);
    (role(), vec(raw, 0..40), 1_u64..1 << 55).prop_map(|(role, raw, first)| {
        let mut offset = 64;
        let entry = |(index, (class, units, hash, seqno))| {
            let at = offset;
            offset += u64::from(units) * 8;
            Entry {
                offset: at,
                frame_len: units * 8,
                class,
                hash: if class == Class::Other { 0 } else { hash },
                seqno: Seqno(if role == Role::Log { first + index } else { seqno }),
            }
        };
        (role, (0..).zip(raw).map(entry).collect())
    })
}

fn sealed_for(entries: &[Entry]) -> Sealed {
    let seqnos = || entries.iter().map(|entry| entry.seqno);
    Sealed {
        len: 64 + entries.iter().map(|entry| u64::from(entry.frame_len)).sum::<u64>(),
        digest: 0xD16E_5700,
        records: entries.iter().filter(|entry| entry.class != Class::Other).count() as u64,
        min_seqno: seqnos().min().unwrap_or(Seqno::NONE),
        max_seqno: seqnos().max().unwrap_or(Seqno::NONE),
        expiry_max: 0,
        tombstone_bytes: 0,
        has_batch: true,
    }
}

fn hint_of(role: Role, entries: &[Entry]) -> Vec<u8> {
    let header = segment::Header { role, ..samples::log_header() };
    let mut builder = Builder::new(samples::binding(&header));
    for entry in entries {
        builder.push(entry);
    }
    builder.finish(&sealed_for(entries))
}

proptest! {
    #[test]
    fn records(
        flags in flags(),
        seqno in 1..=Seqno::MAX.0,
        expiry in any::<Option<u64>>(),
        key in bytes(300),
        value in bytes(2000),
        salt in any::<u32>(),
        units in any::<u32>(),
    ) {
        let seed = record::seed(salt, u64::from(units) * 8);
        let draft = Draft { kind: Kind::Put, flags, seqno: Seqno(seqno), expiry, key: &key, value: &value };
        let mut out = vec![0xEE; draft.frame_len() + 16];
        let crc = draft.encode(seed, &mut out[..draft.frame_len()]);
        let Frame::Record(record) = record::decode(&out, seed) else {
            return Err(TestCaseError::fail("not a record"));
        };
        prop_assert_eq!((record.key, record.value), (&key[..], &value[..]));
        prop_assert_eq!((record.kind, record.seqno, record.expiry), (Kind::Put, Seqno(seqno), expiry));
        prop_assert_eq!(record.flags.without(Flags::EXPIRY), flags);
        prop_assert_eq!(record.flags.contains(Flags::EXPIRY), expiry.is_some());
        prop_assert_eq!((record.frame_len, record.crc), (draft.frame_len(), crc));
        let header = record::Header::decode(out.first_chunk().unwrap()).unwrap();
        prop_assert_eq!((&out[header.key_range()], &out[header.value_range()]), (&key[..], &value[..]));
        prop_assert!(record::frame_is_intact(&out[..header.frame_len()], &header, seed));
    }

    #[test]
    fn payloads(
        coordinator in 0..names::SHARDS_MAX,
        parts in 1..=names::SHARDS_MAX,
        ops in 0_u32..=1 << 30,
        seqno in 1..=Seqno::MAX.0,
        units in 3_u64 << 30..=SEGMENT_LEN_MAX / 8,
    ) {
        let len = units * 8;
        let part = BatchPart {
            coordinator: ShardId(coordinator),
            parts,
            ops,
            coordinator_seqno: Seqno(seqno),
            bytes: len,
        };
        prop_assert_eq!(BatchPart::decode(&part.encode()), Some(part));
        let marker = Marker { durable: Seqno(len) };
        prop_assert_eq!(Marker::decode(&marker.encode()), Some(marker));
    }

    #[test]
    fn segment_headers(uuid in any::<[u8; 16]>(), shard in 0_u16..256, id in any::<u64>(), role in role(), salt in any::<u32>()) {
        let header =
            segment::Header { uuid: StoreUuid(uuid), shard: ShardId(shard), id: SegmentId(id), role, salt };
        prop_assert_eq!(segment::Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn hints((role, entries) in entries()) {
        let file = hint_of(role, &entries);
        let hint = Hint::open(&file).unwrap();
        prop_assert_eq!(hint.header().sealed, sealed_for(&entries));
        prop_assert_eq!(hint.entries().collect::<Result<Vec<_>, _>>(), Ok(entries));
    }

    #[test]
    fn stores(uuid in any::<[u8; 16]>(), shards in 1_u16..=256, secret in vec(any::<u8>(), SECRET_LEN), created_ms in any::<u64>()) {
        let secret = secret.try_into().unwrap();
        let meta = StoreMeta { uuid: StoreUuid(uuid), shards, secret, created_ms };
        let (decoded, copies) = StoreMeta::decode(&meta.encode()).unwrap();
        prop_assert_eq!(decoded, meta);
        prop_assert!(copies.are_intact());
    }

    #[test]
    fn manifests(
        uuid in any::<[u8; 16]>(),
        shard in 0_u16..256,
        numbers in any::<[u64; 2]>(),
        next_log_seqno in 1..=Seqno::MAX.0,
        raw in vec((1_u64..1000, any::<u32>(), role(), sealed()), 0..60),
        open in 0_usize..3,
    ) {
        let mut id = 0;
        let mut segments: Vec<_> = raw.into_iter().map(|(step, salt, role, sealed)| {
            id += step;
            SegmentEntry { id: SegmentId(id), role, salt, state: State::Sealed(sealed) }
        }).collect();
        for _ in 0..open {
            id += 1;
            segments.push(SegmentEntry { id: SegmentId(id), role: Role::Log, salt: 1, state: State::Open });
        }
        let manifest = Manifest {
            uuid: StoreUuid(uuid),
            shard: ShardId(shard),
            generation: numbers[0] >> 1,
            next_segment: SegmentId(id + 1),
            next_log_seqno: Seqno(next_log_seqno),
            horizon: Seqno(numbers[1] >> 8),
            segments,
        };
        let (decoded, copies) = Manifest::decode(&manifest.encode()).unwrap();
        prop_assert_eq!(decoded, manifest);
        prop_assert!(copies.are_intact());
    }

    #[test]
    fn snapshots(
        slots in proptest::collection::btree_set(1..=snapshot::SLOT_MAX, 1..20),
        leaves in proptest::collection::btree_map(any::<u32>(), vec((any::<u32>(), any::<usize>(), any::<u64>()), 0..50), 0..6),
        numbers in any::<[u64; 3]>(),
    ) {
        let slots: Vec<_> = slots.into_iter().collect();
        let ends: Vec<_> = leaves.keys().skip(1).map(|next| next - 1).chain([u32::MAX]).collect();
        let leaves: Vec<(u32, Vec<(u32, u64)>)> = leaves.into_iter().zip(ends).map(|((first, entries), last)| {
            let entry = |(hash, slot, place): (u32, usize, u64)| {
                let slot = u64::from(slots[slot % slots.len()]);
                (hash.clamp(first, last), slot << 40 | place >> 24)
            };
            (first, entries.into_iter().map(entry).collect())
        }).collect();
        let header = snapshot::Header {
            uuid: samples::UUID,
            shard: samples::SHARD,
            keys: leaves.iter().map(|(_, entries)| entries.len() as u64).sum(),
            seqno: Seqno(numbers[0] >> 8),
            position: Position { segment: SegmentId(numbers[1]), offset: numbers[2] },
            leaves: leaves.len() as u32,
            segments: slots.iter().map(|&slot| Segment {
                slot,
                id: SegmentId(numbers[0]),
                len: numbers[1],
                live_bytes: numbers[2],
                live_records: u64::from(slot),
            }).collect(),
        };
        let mut file = header.encode();
        for (index, (first, entries)) in (0..).zip(&leaves) {
            snapshot::encode_leaf(index, *first, entries, &mut file);
        }
        let snapshot = Snapshot::open(&file).unwrap();
        prop_assert_eq!(snapshot.header(), &header);
        let decoded: Vec<_> = snapshot.leaves().map(|leaf| {
            let leaf = leaf.unwrap();
            (leaf.first_hash, leaf.entries(&file))
        }).collect();
        prop_assert_eq!(decoded, leaves);
    }

    #[test]
    fn journals(
        turn in any::<u64>(),
        salt in any::<u32>(),
        first in 0..u64::MAX / 2,
        groups in vec(vec((0_u16..256, any::<u64>(), 0..1_u64 << 34, bytes(700)), 1..5), 0..5),
    ) {
        let header = journal::Header { uuid: samples::UUID, turn, salt };
        let mut file = header.encode().to_vec();
        let mut builder = GroupBuilder::new();
        let groups: Vec<Vec<Range<'_>>> = groups.iter().map(|ranges| ranges.iter().map(
            |(shard, segment, offset, bytes)| Range {
                shard: ShardId(*shard),
                segment: SegmentId(*segment),
                offset: *offset,
                bytes,
            }).collect()).collect();
        for (number, ranges) in (first..).zip(&groups) {
            for range in ranges {
                builder.push(range);
            }
            let expected = builder.group_len();
            let group = builder.finish(&header, number, file.len() as u64);
            prop_assert_eq!(group.len(), expected);
            file.extend_from_slice(group);
        }
        prop_assert_eq!(journal::Header::decode(&file), Ok(header));
        let mut walk = Groups::new(&file, header);
        let decoded: Vec<_> = walk.by_ref().map(|group| group.ranges().collect::<Vec<_>>()).collect();
        prop_assert_eq!(walk.offset(), file.len() as u64);
        prop_assert_eq!(decoded, groups);
    }

    #[test]
    fn file_names(id in any::<u64>(), text in "[0-9a-zA-Z+. -]{0,24}") {
        let id = SegmentId(id);
        prop_assert_eq!(FileName::parse(names::segment(id).as_ref()), FileName::Segment(id));
        prop_assert_eq!(FileName::parse(names::hint(id).as_ref()), FileName::Hint(id));
        // Whatever parses is spelt in exactly the way that we spell it.
        match FileName::parse(text.as_ref()) {
            FileName::Segment(id) => prop_assert_eq!(names::segment(id), text),
            FileName::Hint(id) => prop_assert_eq!(names::hint(id), text),
            _ => {}
        }
    }

    #[test]
    fn arbitrary_bytes(input in bytes(1200)) {
        decode_everything(&input);
    }

    /// Bytes with the right magic and checksums, so that what lies behind them is reached.
    #[test]
    fn arbitrary_payloads(payload in bytes(400)) {
        let _ = StoreMeta::decode(&twin::encode(meta::MAGIC, &payload));
        let _ = Manifest::decode(&twin::encode(manifest::MAGIC, &payload));
    }

    #[test]
    fn hints_changed_and_summed_anew(
        (role, entries) in entries(),
        changes in vec((12..400_usize, any::<u8>()), 1..5),
    ) {
        let mut file = hint_of(role, &entries);
        let len = file.len();
        for (at, byte) in changes {
            file[at.min(len - 1)] = byte;
        }
        let body_crc = checksum::of(&file[128..]);
        file[120..124].copy_from_slice(&body_crc.to_le_bytes());
        let crc = checksum::of(&file[..124]);
        file[124..128].copy_from_slice(&crc.to_le_bytes());
        if let Ok(hint) = Hint::open(&file) {
            let end = hint.header().sealed.len;
            for entry in hint.entries().map_while(Result::ok) {
                prop_assert!(entry.offset + u64::from(entry.frame_len) <= end);
            }
        }
    }

    #[test]
    fn samples_changed(file in 0_usize..8, changes in vec((any::<usize>(), any::<u8>()), 1..6)) {
        let (log, merged) = (samples::log_file(), samples::merged_file());
        let mut input = match file {
            0 => samples::store().encode(),
            1 => samples::manifest().encode(),
            2 => samples::hint(&log, &samples::log_header()),
            3 => samples::hint(&merged, &samples::merged_header()),
            4 => samples::keydir(),
            5 => samples::journal(),
            6 => log,
            _ => merged,
        };
        let len = input.len();
        for (at, byte) in changes {
            input[at % len] = byte;
        }
        decode_everything(&input);
    }
}

/// Gives the same bytes to every decoder, and reads what they answer.
fn decode_everything(input: &[u8]) {
    let _ = StoreMeta::decode(input);
    let _ = Manifest::decode(input);
    let _ = segment::Header::decode(input);
    if let Ok(hint) = Hint::open(input) {
        hint.entries().for_each(drop);
    }
    if let Ok(snapshot) = Snapshot::open(input) {
        snapshot.leaves().for_each(drop);
    }
    for header in [journal::Header::decode(input).ok(), Some(samples::journal_header())] {
        for group in header.into_iter().flat_map(|header| Groups::new(input, header)) {
            group.ranges().for_each(drop);
        }
    }
    for salt in [0, samples::log_header().salt] {
        let _ = samples::scan(input, salt);
        for from in [0, 3, 64, u64::MAX] {
            let _ = segment::resync(input, salt, from, Seqno::NONE);
        }
    }
    if let Ok(name) = std::str::from_utf8(input) {
        let _ = FileName::parse(name.as_ref());
        let _ = StoreName::parse(name.as_ref());
    }
    let _ = BatchPart::decode(input);
    let _ = Marker::decode(input);
}
