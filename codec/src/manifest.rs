//! `MANIFEST`: a shard's list of live segments. Replaced as a whole.
//!
//! Invariants:
//! - segments are sorted by id, without duplicates, and all ids are below `next_segment`;
//! - an open segment is a log segment, and no sealed log segment comes after it;
//! - sealed lengths and counts are possible ones.

pub use crate::fault::Fault;
pub use crate::segment::Sealed;
pub use crate::twin::Copies;

use crate::bytes::{self, Reader};
use crate::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use crate::segment::Role;
use crate::{names, twin};

/// The first bytes of each copy.
pub const MAGIC: [u8; 8] = *b"CSKDMAN1";

const UUID_AT: usize = 0;
const SHARD_AT: usize = UUID_AT + 16;
const HEAD_ZERO_AT: usize = SHARD_AT + 2;
const COUNT_AT: usize = HEAD_ZERO_AT + 2;
const GENERATION_AT: usize = COUNT_AT + 4;
const NEXT_SEGMENT_AT: usize = GENERATION_AT + 8;
const NEXT_LOG_SEQNO_AT: usize = NEXT_SEGMENT_AT + 8;
const HORIZON_AT: usize = NEXT_LOG_SEQNO_AT + 8;
const HEAD_LEN: usize = HORIZON_AT + 8;
const _: () = assert!(HEAD_LEN == 56);

const ID_AT: usize = 0;
const SALT_AT: usize = ID_AT + 8;
const ROLE_AT: usize = SALT_AT + 4;
const STATE_AT: usize = ROLE_AT + 1;
const ENTRY_ZERO_AT: usize = STATE_AT + 1;
const SEALED_AT: usize = ENTRY_ZERO_AT + 2;
const ENTRY_LEN: usize = SEALED_AT + Sealed::ENCODED_LEN;
const _: () = assert!(ENTRY_LEN == 72);

const STATE_OPEN: u8 = 1;
const STATE_SEALED: u8 = 2;

/// The most segments a shard's manifest holds.
pub const SEGMENTS_MAX: usize = (twin::PAYLOAD_LEN_MAX - HEAD_LEN) / ENTRY_LEN;

/// The most that a generation or a segment id may be.
const COUNT_MAX: u64 = u64::MAX / 2;

/// Whether a segment may still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Written to, or prepared for it.
    Open,
    /// Never written to again.
    Sealed(Sealed),
}

/// One segment of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its number.
    pub id: SegmentId,
    /// How it came to be.
    pub role: Role,
    /// Its salt, as in its header.
    pub salt: u32,
    /// Whether it may still grow.
    pub state: State,
}

impl SegmentEntry {
    /// The facts of a sealed segment.
    #[must_use]
    pub const fn sealed(&self) -> Option<&Sealed> {
        match &self.state {
            State::Open => None,
            State::Sealed(sealed) => Some(sealed),
        }
    }

    fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        bytes::put_u64(&mut out, ID_AT, self.id.0);
        bytes::put_u32(&mut out, SALT_AT, self.salt);
        out[ROLE_AT] = self.role as u8;
        match &self.state {
            State::Open => out[STATE_AT] = STATE_OPEN,
            State::Sealed(sealed) => {
                out[STATE_AT] = STATE_SEALED;
                bytes::put(&mut out, SEALED_AT, &sealed.encode());
            }
        }
        out
    }

    fn decode(b: &[u8; ENTRY_LEN]) -> Result<Self, Fault> {
        if !bytes::all_zero(&b[ENTRY_ZERO_AT..SEALED_AT]) {
            return Err(Fault::Field("reserved"));
        }
        let sealed = bytes::get(b, SEALED_AT);
        let state = match b[STATE_AT] {
            STATE_OPEN if bytes::all_zero(&sealed) => State::Open,
            STATE_SEALED => State::Sealed(Sealed::decode(&sealed)?),
            _ => return Err(Fault::Field("state")),
        };
        Ok(Self {
            id: SegmentId(bytes::get_u64(b, ID_AT)),
            role: Role::decode(b[ROLE_AT])?,
            salt: bytes::get_u32(b, SALT_AT),
            state,
        })
    }
}

/// A shard's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The store that the shard belongs to.
    pub uuid: StoreUuid,
    /// The shard.
    pub shard: ShardId,
    /// Raised by one with every replacement.
    pub generation: u64,
    /// The id that the next created segment takes.
    pub next_segment: SegmentId,
    /// The seqno that the first frame of the first open segment must carry.
    pub next_log_seqno: Seqno,
    /// Everything at or below is durable, and its batches are resolved.
    pub horizon: Seqno,
    /// The live segments, sorted by id.
    pub segments: Vec<SegmentEntry>,
}

impl Manifest {
    /// The whole file.
    ///
    /// # Panics
    /// If [`Self::check`] refuses the manifest: such a file could not be opened again.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a manifest is valid before it is written");
        let mut payload = vec![0; HEAD_LEN + self.segments.len() * ENTRY_LEN];
        let (head, entries) = payload.split_at_mut(HEAD_LEN);
        bytes::put(head, UUID_AT, &self.uuid.0);
        bytes::put_u16(head, SHARD_AT, self.shard.0);
        bytes::put_u32(head, COUNT_AT, self.segments.len() as u32);
        bytes::put_u64(head, GENERATION_AT, self.generation);
        bytes::put_u64(head, NEXT_SEGMENT_AT, self.next_segment.0);
        bytes::put_u64(head, NEXT_LOG_SEQNO_AT, self.next_log_seqno.0);
        bytes::put_u64(head, HORIZON_AT, self.horizon.0);
        for (out, entry) in entries.chunks_exact_mut(ENTRY_LEN).zip(&self.segments) {
            out.copy_from_slice(&entry.encode());
        }
        twin::encode(MAGIC, &payload)
    }

    /// Decodes the whole file.
    pub fn decode(file: &[u8]) -> Result<(Self, Copies), Fault> {
        let (payload, copies) = twin::decode(MAGIC, file)?;
        let mut reader = Reader::new(payload);
        let head: &[u8; HEAD_LEN] = reader.array().ok_or(Fault::Field("payload"))?;
        if !bytes::all_zero(&head[HEAD_ZERO_AT..COUNT_AT]) {
            return Err(Fault::Field("reserved"));
        }
        let count = bytes::get_u32(head, COUNT_AT) as usize;
        if count > SEGMENTS_MAX || payload.len() != HEAD_LEN + count * ENTRY_LEN {
            return Err(Fault::Field("segments"));
        }
        let mut segments = Vec::with_capacity(count);
        while let Some(entry) = reader.array() {
            segments.push(SegmentEntry::decode(entry)?);
        }
        let manifest = Self {
            uuid: StoreUuid(bytes::get(head, UUID_AT)),
            shard: ShardId(bytes::get_u16(head, SHARD_AT)),
            generation: bytes::get_u64(head, GENERATION_AT),
            next_segment: SegmentId(bytes::get_u64(head, NEXT_SEGMENT_AT)),
            next_log_seqno: Seqno(bytes::get_u64(head, NEXT_LOG_SEQNO_AT)),
            horizon: Seqno(bytes::get_u64(head, HORIZON_AT)),
            segments,
        };
        manifest.check()?;
        Ok((manifest, copies))
    }

    /// Whether the manifest keeps its invariants.
    pub fn check(&self) -> Result<(), Fault> {
        if self.shard.0 >= names::SHARDS_MAX {
            return Err(Fault::Field("shard"));
        }
        if self.segments.len() > SEGMENTS_MAX {
            return Err(Fault::Field("segments"));
        }
        // Counted up by one, they never come near.
        if self.generation > COUNT_MAX {
            return Err(Fault::Field("generation"));
        }
        if self.next_segment.0 > COUNT_MAX
            || self.segments.last().is_some_and(|last| last.id >= self.next_segment)
        {
            return Err(Fault::Field("next segment"));
        }
        if !(Seqno::FIRST..=Seqno::MAX).contains(&self.next_log_seqno) {
            return Err(Fault::Field("next log seqno"));
        }
        if self.horizon > Seqno::MAX {
            return Err(Fault::Field("horizon"));
        }
        if !self.segments.is_sorted_by(|a, b| a.id < b.id) {
            return Err(Fault::Field("segment order"));
        }
        let mut open_seen = false;
        for entry in &self.segments {
            match (entry.role, &entry.state) {
                (Role::Merged, State::Open) => return Err(Fault::Field("state")),
                (Role::Log, State::Sealed(_)) if open_seen => {
                    return Err(Fault::Field("state"));
                }
                (Role::Log, State::Open) => open_seen = true,
                (_, State::Sealed(sealed)) => sealed.check()?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(len: u64) -> State {
        State::Sealed(Sealed {
            len,
            digest: 7,
            records: 2,
            min_seqno: Seqno(1),
            max_seqno: Seqno(9),
            expiry_max: u64::MAX,
            tombstone_bytes: 24,
            has_batch: true,
        })
    }

    fn entry(id: u64, role: Role, state: State) -> SegmentEntry {
        SegmentEntry { id: SegmentId(id), role, salt: 5, state }
    }

    fn manifest(segments: Vec<SegmentEntry>) -> Manifest {
        Manifest {
            uuid: StoreUuid([1; 16]),
            shard: ShardId(2),
            generation: 3,
            next_segment: SegmentId(10),
            next_log_seqno: Seqno(10),
            horizon: Seqno(9),
            segments,
        }
    }

    #[test]
    fn round_trips() {
        for segments in [
            vec![],
            vec![entry(1, Role::Log, State::Open)],
            vec![
                entry(1, Role::Log, sealed(4096)),
                entry(4, Role::Log, State::Open),
                entry(5, Role::Merged, sealed(128)),
                entry(6, Role::Log, State::Open),
            ],
        ] {
            let manifest = manifest(segments);
            let (decoded, copies) = Manifest::decode(&manifest.encode()).unwrap();
            assert_eq!(decoded, manifest);
            assert!(copies.are_intact());
        }
    }

    #[test]
    fn broken_invariants_are_refused() {
        let open = |id| entry(id, Role::Log, State::Open);
        let wrong = [
            ("segment order", vec![open(2), open(1)]),
            ("segment order", vec![open(1), open(1)]),
            ("next segment", vec![open(10)]),
            ("state", vec![entry(1, Role::Merged, State::Open)]),
            ("state", vec![open(1), entry(2, Role::Log, sealed(128))]),
            ("segment length", vec![entry(1, Role::Log, sealed(56))]),
            ("segment length", vec![entry(1, Role::Log, sealed(132))]),
            ("segment length", vec![entry(1, Role::Log, sealed((1 << 35) + 8))]),
            ("seqno range", vec![entry(1, Role::Log, State::Sealed(empty_but_numbered()))]),
        ];
        for (field, segments) in wrong {
            assert_eq!(manifest(segments.clone()).check(), Err(Fault::Field(field)));
            let file = twin::encode(MAGIC, &unchecked_payload(&manifest(segments)));
            assert_eq!(Manifest::decode(&file), Err(Fault::Field(field)));
        }
    }

    #[test]
    fn counts_that_have_nowhere_to_go_are_refused() {
        let mut last = manifest(vec![]);
        (last.generation, last.next_segment) = (COUNT_MAX, SegmentId(COUNT_MAX));
        assert_eq!(last.check(), Ok(()));
        let beyond = Manifest { generation: COUNT_MAX + 1, ..last.clone() };
        assert_eq!(beyond.check(), Err(Fault::Field("generation")));
        let beyond = Manifest { next_segment: SegmentId(COUNT_MAX + 1), ..last };
        assert_eq!(beyond.check(), Err(Fault::Field("next segment")));
    }

    fn empty_but_numbered() -> Sealed {
        Sealed {
            len: 64,
            digest: 0,
            records: 0,
            min_seqno: Seqno(1),
            max_seqno: Seqno(1),
            expiry_max: 0,
            tombstone_bytes: 0,
            has_batch: false,
        }
    }

    fn unchecked_payload(manifest: &Manifest) -> Vec<u8> {
        let file = Manifest { segments: vec![], ..manifest.clone() }.encode();
        let (payload, _) = twin::decode(MAGIC, &file).unwrap();
        let mut payload = payload.to_vec();
        bytes::put_u32(&mut payload, COUNT_AT, manifest.segments.len() as u32);
        payload.extend(manifest.segments.iter().flat_map(SegmentEntry::encode));
        payload
    }
}
