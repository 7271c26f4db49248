//! The format, pinned both ways: these values give these bytes, and these bytes these values.
//!
//! The files under `tests/golden/` are dumps: offset and sixteen bytes a line, lines of zeros left
//! out, the length at the end. A change to one of them is a change of the format, unless the samples
//! themselves were changed. They are written anew with `CASKADE_BLESS=1`.

use crate::samples;
use caskade_codec::hash::{KeyHasher, keydir_bits, shard_of};
use caskade_codec::hint::Hint;
use caskade_codec::ids::Seqno;
use caskade_codec::journal::{self, Groups};
use caskade_codec::manifest::{Manifest, State};
use caskade_codec::meta::StoreMeta;
use caskade_codec::record::{self, BatchPart, Flags, Frame, Kind, Marker};
use caskade_codec::segment;
use caskade_codec::snapshot::Snapshot;
use std::fmt::Write as _;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (offset, line) in (0..).step_by(16).zip(bytes.chunks(16)) {
        if line.iter().any(|&byte| byte != 0) {
            write!(text, "{offset:08x} ").expect("a string takes everything");
            for byte in line {
                write!(text, " {byte:02x}").expect("a string takes everything");
            }
            text.push('\n');
        }
    }
    writeln!(text, "{:08x}", bytes.len()).expect("a string takes everything");
    text
}

fn undump(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let offset = words.next().expect("a line begins with its offset");
        bytes.resize(usize::from_str_radix(offset, 16).expect("offsets are hexadecimal"), 0);
        bytes
            .extend(words.map(|word| u8::from_str_radix(word, 16).expect("bytes are hexadecimal")));
    }
    bytes
}

/// Compares with the golden file, and answers what that holds.
fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    let text = dump(encoded);
    if std::env::var_os("CASKADE_BLESS").is_some() {
        std::fs::write(path(name), &text).expect("the golden file is writable");
    }
    let expected = std::fs::read_to_string(path(name)).expect("the golden file exists");
    assert_eq!(text, expected, "{name} would be written differently");
    undump(&expected)
}

#[test]
fn store() {
    let file = golden("store.hex", &samples::store().encode());
    let (meta, copies) = StoreMeta::decode(&file).unwrap();
    assert_eq!(meta, samples::store());
    assert!(copies.are_intact());
}

#[test]
fn manifest() {
    let file = golden("manifest.hex", &samples::manifest().encode());
    let (manifest, copies) = Manifest::decode(&file).unwrap();
    assert_eq!(manifest, samples::manifest());
    assert!(copies.are_intact());
}

#[test]
fn log_segment() {
    let file = golden("segment-log.hex", &samples::log_file());
    let header = segment::Header::decode(&file).unwrap();
    assert_eq!(header, samples::log_header());
    let (records, end) = samples::scan(&file, header.salt);
    assert_eq!(end, Some(Frame::End));
    let kinds: Vec<_> = records.iter().map(|(_, record)| record.kind).collect();
    let [put, gone] = [Kind::Put, Kind::Tombstone];
    assert_eq!(kinds, [put, put, gone, Kind::Batch, put, gone, Kind::Marker, put, put]);
    let seqnos: Vec<_> = records.iter().map(|(_, record)| record.seqno.0).collect();
    assert_eq!(seqnos, (101..=109).collect::<Vec<_>>());
    let record = |index: usize| records[index].1;
    assert_eq!((record(0).key, record(0).value), (&b"melon"[..], &b"green"[..]));
    assert_eq!(record(1).expiry, Some(1_760_000_060_000));
    let part = BatchPart { bytes: 64, ..samples::batch_part() };
    assert_eq!(BatchPart::decode(record(3).value), Some(part));
    assert_eq!(record(4).flags, Flags::IN_BATCH);
    assert_eq!(Marker::decode(record(6).value), Some(Marker { durable: Seqno(106) }));
    assert_eq!((record(7).key, record(7).value), (&b""[..], &b""[..]));
    assert_eq!((record(8).flags, record(8).value), (Flags::LZ4, samples::PACKED));
}

#[test]
fn open_segment() {
    let file = golden("segment-open.hex", &samples::open_file());
    let header = segment::Header::decode(&file).unwrap();
    assert_eq!(header, samples::open_header());
    let (records, end) = samples::scan(&file, header.salt);
    assert_eq!(end, Some(Frame::End));
    let seqnos: Vec<_> = records.iter().map(|(_, record)| record.seqno.0).collect();
    assert_eq!(seqnos, [110, 111, 112]);
}

#[test]
fn merged_segment() {
    let file = golden("segment-merged.hex", &samples::merged_file());
    let header = segment::Header::decode(&file).unwrap();
    assert_eq!(header, samples::merged_header());
    let (records, end) = samples::scan(&file, header.salt);
    assert_eq!(end, Some(Frame::End));
    let seqnos: Vec<_> = records.iter().map(|(_, record)| record.seqno.0).collect();
    assert_eq!(seqnos, [95, 52, 60, 8]);
}

#[test]
fn hints() {
    for (name, header, segment) in [
        ("hint-log.hex", samples::log_header(), samples::log_file()),
        ("hint-merged.hex", samples::merged_header(), samples::merged_file()),
    ] {
        let file = golden(name, &samples::hint(&segment, &header));
        let hint = Hint::open(&file).unwrap();
        assert_eq!(hint.header().binding, samples::binding(&header));
        assert_eq!(hint.header().sealed, samples::sealed(&segment, header.salt));
        let entries = hint.entries().collect::<Result<Vec<_>, _>>();
        assert_eq!(entries, Ok(samples::entries(&segment, &header)));
    }
}

#[test]
fn keydir() {
    let file = golden("keydir.hex", &samples::keydir());
    let snapshot = Snapshot::open(&file).unwrap();
    assert_eq!(snapshot.header(), &samples::keydir_header());
    let leaves: Vec<_> = snapshot.leaves().map(Result::unwrap).collect();
    let leaves: Vec<_> =
        leaves.into_iter().map(|leaf| (leaf.first_hash, leaf.entries(&file))).collect();
    assert_eq!(leaves, samples::leaves());
}

#[test]
fn journal() {
    let file = golden("journal.hex", &samples::journal());
    let header = journal::Header::decode(&file).unwrap();
    assert_eq!(header, samples::journal_header());
    let groups: Vec<_> = Groups::new(&file, header).map(|g| (g.number, g.ranges())).collect();
    let open = samples::open_file();
    let expected = samples::ranges(&open);
    assert_eq!(groups.len(), expected.len());
    for ((number, ranges), (index, expected)) in groups.into_iter().zip((0..).zip(expected)) {
        assert_eq!((number, ranges.collect::<Vec<_>>()), (index, expected));
    }
}

/// The journal alone restores the open segment, where the space behind it is zeros.
#[test]
fn the_journal_holds_the_open_segment() {
    let (file, open) = (samples::journal(), samples::open_file());
    let header = journal::Header::decode(&file).unwrap();
    let mut restored = vec![0; open.len()];
    for range in Groups::new(&file, header).flat_map(|group| group.ranges()) {
        assert_eq!((range.shard, range.segment), (samples::SHARD, samples::open_header().id));
        restored[range.offset as usize..][..range.bytes.len()].copy_from_slice(range.bytes);
    }
    assert_eq!(restored, open);
}

/// Manifest, segments and keydir agree with one another.
#[test]
fn the_samples_are_one_shard() {
    let manifest = samples::manifest();
    let header = samples::keydir_header();
    assert!(header.seqno <= manifest.horizon && header.seqno < manifest.next_log_seqno);
    let hasher = KeyHasher::new(&samples::secret());
    let open = (0, samples::open_header(), samples::open_file());
    for (slot, segment, file) in samples::covered().into_iter().chain([open]) {
        let entry = manifest.segments.iter().find(|entry| entry.id == segment.id).unwrap();
        assert_eq!((entry.role, entry.salt), (segment.role, segment.salt));
        if let State::Sealed(sealed) = entry.state {
            assert_eq!(sealed, samples::sealed(&file, segment.salt));
            let row = header.segments.iter().find(|row| row.slot == slot).unwrap();
            assert_eq!((row.id, row.len), (segment.id, sealed.len));
        }
        for (_, record) in samples::scan(&file, segment.salt).0 {
            let is_shards = shard_of(hasher.hash(record.key), samples::store().shards.into());
            assert!(!record.kind.has_key() || is_shards == samples::SHARD, "{record:?}");
        }
    }
    let mut keys = Vec::new();
    for (hash, location) in samples::leaves().into_iter().flat_map(|(_, entries)| entries) {
        let all = samples::covered();
        let (_, segment, file) =
            all.iter().find(|(slot, ..)| u64::from(*slot) == location >> 40).unwrap();
        let offset = (location & u64::from(u32::MAX)) * 8;
        let seed = record::seed(segment.salt, offset);
        let Frame::Record(found) = record::decode(&file[offset as usize..], seed) else {
            panic!("no frame at {offset}")
        };
        assert_eq!((found.kind, samples::hash_bits(found.key)), (Kind::Put, hash));
        keys.push(found.key.escape_ascii().to_string());
    }
    keys.sort_unstable();
    assert_eq!(keys, ["", "avatar", "cherry", "nu", "red", "salt"]);
}

/// Lengths on both sides of every branch of XXH3: key length, hash, shard of 16, keydir bits.
#[test]
fn key_hash() {
    let hasher = KeyHasher::new(&samples::secret());
    let mut text = String::new();
    for len in [0, 1, 3, 4, 8, 9, 16, 17, 100, 128, 129, 240, 241, 1024, 1025, 65_536] {
        let key: Vec<u8> = (0..len).map(|index: u32| (index * 7 + 1) as u8).collect();
        let hash = hasher.hash(&key);
        let (shard, bits) = (shard_of(hash, 16), keydir_bits(hash));
        writeln!(text, "{len} {hash:016x} {shard} {bits:08x}").expect("a string takes everything");
    }
    if std::env::var_os("CASKADE_BLESS").is_some() {
        std::fs::write(path("key-hash.txt"), &text).expect("the golden file is writable");
    }
    let expected = std::fs::read_to_string(path("key-hash.txt")).expect("the golden file exists");
    assert_eq!(text, expected, "keys would be hashed differently");
}
