//! `MANIFEST`.

use crate::input::Input;
use crate::twin::{self, Twin};
use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::manifest::{Copies, MAGIC, Manifest, SegmentEntry, State};
use caskade_codec::segment::{Role, SEGMENT_LEN_MAX};

/// Decodes `MANIFEST` files with any damage; builds them and reads them back.
pub fn manifest(data: &[u8]) {
    twin::check_all::<Manifest>(data);
}

impl Twin for Manifest {
    const MAGIC: [u8; 8] = MAGIC;

    fn encode(&self) -> Vec<u8> {
        Self::encode(self)
    }

    fn decode(file: &[u8]) -> Option<(Self, Copies)> {
        let (manifest, copies) = Self::decode(file).ok()?;
        assert_eq!(manifest.check(), Ok(()));
        check_segments(&manifest);
        Some((manifest, copies))
    }

    fn read(input: &mut Input<'_>) -> Self {
        let (uuid, shard) = (input.uuid(), input.shard());
        let generation = input.u64() >> 1;
        let next_log_seqno = input.seqno();
        let horizon = input.seqno();
        let open = input.u8() % 4;
        let mut id = 0;
        let mut segments = Vec::new();
        while !input.is_empty() {
            id += 1 + u64::from(input.u8());
            let (role, salt) = (input.role(), input.u32());
            let state = State::Sealed(input.sealed());
            segments.push(SegmentEntry { id: SegmentId(id), role, salt, state });
        }
        for salt in 0..open.into() {
            id += 1;
            let (id, role, state) = (SegmentId(id), Role::Log, State::Open);
            segments.push(SegmentEntry { id, role, salt, state });
        }
        let next_segment = SegmentId(id + 1);
        Self { uuid, shard, generation, next_segment, next_log_seqno, horizon, segments }
    }
}

/// The rules of `FORMAT.md`, said once more.
fn check_segments(manifest: &Manifest) {
    let segments = &manifest.segments;
    assert!(manifest.shard.0 < 256 && manifest.next_log_seqno != Seqno::NONE);
    assert!(segments.is_sorted_by(|a, b| a.id < b.id));
    assert!(segments.iter().all(|entry| entry.id < manifest.next_segment));
    assert!(manifest.generation < 1 << 63 && manifest.next_segment.0 < 1 << 63);
    let logs = segments.iter().filter(|entry| entry.role == Role::Log);
    assert!(logs.is_sorted_by_key(|entry| entry.sealed().is_none()), "open ones come last");
    for entry in segments {
        match entry.sealed() {
            None => assert_eq!(entry.role, Role::Log),
            Some(sealed) => {
                assert!((64..=SEGMENT_LEN_MAX).contains(&sealed.len));
                assert!(sealed.len.is_multiple_of(8) && sealed.tombstone_bytes <= sealed.len - 64);
                assert!(sealed.records <= (sealed.len - 64) / 24);
                assert!(sealed.min_seqno <= sealed.max_seqno);
                assert_eq!(sealed.min_seqno == Seqno::NONE, sealed.len == 64);
            }
        }
    }
}
