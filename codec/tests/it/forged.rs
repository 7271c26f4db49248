//! Files with right checksums that say what no store says: they are refused all the same, for the
//! one who reads on would compute with it.

use crate::samples;
use caskade_codec::hint::{self, Hint};
use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::journal::{self, Groups};
use caskade_codec::manifest::Manifest;
use caskade_codec::record::{self, Draft, Kind};
use caskade_codec::snapshot::Snapshot;
use caskade_codec::{Fault, checksum, segment, twin};

/// `file` with other bytes at a place, and the checksum behind the first `len` bytes to match.
fn forged(file: &[u8], len: usize, at: usize, with: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + with.len()].copy_from_slice(with);
    let crc = checksum::of(&file[..len]);
    file[len..len + 4].copy_from_slice(&crc.to_le_bytes());
    file
}

#[test]
fn segment_headers() {
    let file = samples::log_header().encode();
    assert_eq!(segment::Header::decode(&forged(&file, 60, 0, b"")), Ok(samples::log_header()));
    let fault = |at, with: &[u8]| segment::Header::decode(&forged(&file, 60, at, with));
    assert_eq!(fault(12, &256_u16.to_le_bytes()), Err(Fault::Field("shard")));
    assert_eq!(fault(15, &[1]), Err(Fault::Field("reserved")));
    for at in 44..60 {
        assert_eq!(fault(at, &[1]), Err(Fault::Field("reserved")), "byte {at}");
    }
}

#[test]
fn hints() {
    let header = samples::log_header();
    let segment = samples::log_file();
    let file = samples::hint(&segment, &header);
    let fault = |at, with: &[u8]| Hint::open(&forged(&file, 124, at, with)).err();
    assert_eq!(fault(0, b""), None);
    assert_eq!(fault(12, &256_u16.to_le_bytes()), Some(Fault::Field("shard")));
    // Fewer frames than keys and tombstones among them, or more than fit.
    let records = samples::sealed(&segment, header.salt).records;
    let fit = (segment.len() as u64 - 64) / 24;
    for entries in [0, records - 1, fit + 1, fit * 20, u64::MAX] {
        assert_eq!(fault(96, &entries.to_le_bytes()), Some(Fault::Field("entries")), "{entries}");
    }
    assert!(file.len() as u64 <= hint::file_len_max(segment.len() as u64));
}

#[test]
fn facts_of_sealed_segments() {
    let file = samples::hint(&samples::log_file(), &samples::log_header());
    let sealed = samples::sealed(&samples::log_file(), samples::log_header().salt);
    let fault =
        |at: usize, with: u64| Hint::open(&forged(&file, 124, 40 + at, &with.to_le_bytes())).err();
    assert_eq!(fault(0, sealed.len), None);
    let frame_bytes = sealed.len - 64;
    for len in [0, 8, 63, 65, sealed.len + 4, (1 << 35) + 8, u64::MAX] {
        assert_eq!(fault(0, len), Some(Fault::Field("segment length")), "{len}");
    }
    for records in [frame_bytes / 24 + 1, frame_bytes * 2, u64::MAX] {
        assert_eq!(fault(16, records), Some(Fault::Field("records")), "{records}");
    }
    assert_eq!(fault(48, frame_bytes + 1), Some(Fault::Field("tombstone bytes")));
    // The lowest number above the highest, or only one of them missing.
    for (at, seqno) in [(24, sealed.max_seqno.0 + 1), (24, 0), (32, 0)] {
        assert!(matches!(fault(at, seqno), Some(Fault::Field(_))), "{seqno} at {at}");
    }
}

#[test]
fn manifests() {
    let manifest = samples::manifest();
    let magic: [u8; 8] = manifest.encode()[..8].try_into().expect("eight bytes");
    let (file, payload_at) = (manifest.encode(), 16);
    let (payload, _) = twin::decode(magic, &file).expect("decodes");
    let payload = payload.to_vec();
    assert_eq!(file[payload_at..][..payload.len()], payload);
    let fault = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut payload = payload.clone();
        change(&mut payload);
        Manifest::decode(&twin::encode(magic, &payload)).err()
    };
    assert_eq!(fault(&|_| ()), None);
    let count = |with: u32| fault(&move |p| p[20..24].copy_from_slice(&with.to_le_bytes()));
    for with in [0, 2, 4, u32::MAX] {
        assert_eq!(count(with), Some(Fault::Field("segments")), "{with}");
    }
    // The second segment is open: nothing can be known of its end.
    let open = samples::manifest().segments.iter().position(|s| s.id == samples::open_header().id);
    let (head, entry) = (56, (payload.len() - 56) / 3);
    assert_eq!(open, Some(1));
    for at in head + entry + 16..head + 2 * entry {
        assert_eq!(fault(&|p| p[at] = 1), Some(Fault::Field("state")), "byte {at}");
    }
    for at in [18, 19, head + 14, head + 15] {
        assert_eq!(fault(&|p| p[at] = 1), Some(Fault::Field("reserved")), "byte {at}");
    }
}

#[test]
fn sequence_numbers_end_below_two_to_the_fifty_sixth() {
    for (seqno, is_right) in [(1, true), (Seqno::MAX.0, true), (Seqno::MAX.0 + 1, false)] {
        let mut file = Vec::new();
        samples::append(&mut file, 9, &samples::put(5, b"key", b"value"));
        file[12..20].copy_from_slice(&seqno.to_le_bytes());
        let header = record::Header::decode(file.first_chunk().expect("a header"));
        assert_eq!(header.is_ok(), is_right, "{seqno}");
        let manifest = Manifest { next_log_seqno: Seqno(seqno), ..samples::manifest() };
        assert_eq!(manifest.check().is_ok(), is_right, "{seqno}");
        let manifest = Manifest { horizon: Seqno(seqno), ..samples::manifest() };
        assert_eq!(manifest.check().is_ok(), is_right, "{seqno}");
    }
}

#[test]
fn keydirs() {
    let file = samples::keydir();
    let table_end = 72 + 2 * 36;
    let fault = |at, with: &[u8]| Snapshot::open(&forged(&file, table_end, at, with)).err();
    assert_eq!(fault(0, b""), None);
    assert_eq!(fault(12, &256_u16.to_le_bytes()), Some(Fault::Field("shard")));
    // The first slot is none, or beyond all, or not below the second, which is 300.
    for slot in [0, 300, 301, 1 << 24, u32::MAX] {
        let slot = slot.to_le_bytes();
        assert_eq!(fault(72, &slot), Some(Fault::Field("slots")), "{slot:?}");
    }
}

#[test]
fn groups_of_the_journal() {
    let header = samples::journal_header();
    let file = samples::journal();
    let at = journal::BLOCK_LEN;
    let len = u32::from_le_bytes(file[at + 28..at + 32].try_into().expect("four bytes")) as usize;
    let found = |change: &dyn Fn(&mut [u8])| {
        let mut file = file[..at + len].to_vec();
        change(&mut file[at..]);
        let seed = header.salt ^ (at / journal::BLOCK_LEN) as u32;
        let crc = checksum::extend(seed, &file[at + 4..]);
        file[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        Groups::new(&file, header).count()
    };
    assert_eq!(found(&|_| ()), 1);
    let ranges = u32::from_le_bytes(file[at + 24..at + 28].try_into().expect("four bytes"));
    for count in [0, ranges - 1, u32::MAX] {
        assert_eq!(found(&|group| group[24..28].copy_from_slice(&count.to_le_bytes())), 0);
    }
    // A range of a shard that cannot be, with a reserved byte, or beyond the longest segment.
    assert_eq!(found(&|group| group[32..34].copy_from_slice(&256_u16.to_le_bytes())), 0);
    assert_eq!(found(&|group| group[34] = 1), 0);
    for offset in [1 << 50, u64::MAX, u64::MAX - 8] {
        assert_eq!(found(&|group| group[48..56].copy_from_slice(&offset.to_le_bytes())), 0);
    }
}

#[test]
fn a_class_is_a_put_or_not() {
    let header = samples::log_header();
    let segment = samples::log_file();
    let puts = samples::scan(&segment, header.salt).0;
    let puts = puts.iter().filter(|(_, record)| record.kind == Kind::Put).count();
    let entries = samples::entries(&segment, &header);
    assert_eq!(entries.iter().filter(|entry| entry.class.is_put()).count(), puts);
    assert!((1..entries.len()).contains(&puts));
}

#[test]
fn a_header_finds_the_expiry_of_its_frame() {
    for expiry in [None, Some(2), Some(u64::MAX)] {
        let mut file = Vec::new();
        samples::append(&mut file, 9, &Draft { expiry, ..samples::put(5, b"key", b"value") });
        let header = record::Header::decode(file.first_chunk().expect("a header"));
        assert_eq!(header.expect("decodes").expiry(&file), expiry);
    }
}

#[test]
fn ids_are_shown_as_numbers() {
    assert_eq!(SegmentId(17).to_string(), "17");
    assert_eq!(Seqno(4).to_string(), "4");
}

#[test]
fn every_hash_has_one_shard() {
    for shards in [1, 2, 3, 5, 8, 100, 255, 256_u64] {
        for hash in [0, 1, 254, 255, 256, 0x1234_5678_9ABC_DEF0, u64::MAX] {
            let shard = caskade_codec::hash::shard_of(hash, shards);
            assert_eq!(u64::from(shard.0), hash % shards, "{hash} of {shards}");
        }
    }
}
