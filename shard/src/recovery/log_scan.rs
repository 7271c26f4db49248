//! Reading one segment record by record.

use caskade_codec::hash::KeyHasher;
use caskade_codec::hash::keydir_bits;
use caskade_codec::ids::Seqno;
use caskade_codec::record::{BatchPart, Flags, Frame, Kind, Marker, Record};
use caskade_codec::segment::{HEADER_LEN, Resync, Scanner, Tally, resync};

use super::BatchHead;
use super::candidates::Candidate;
use crate::location::Location;
use crate::segment::Segment;

/// What a segment's log holds, up to the first place that is not a good frame.
#[derive(Debug, Default)]
pub(super) struct LogScan {
    pub(super) candidates: Vec<Candidate>,
    pub(super) batches: Vec<BatchHead>,
    pub(super) tally: Tally,
    /// Where the good frames end.
    pub(super) end: u64,
    /// First and last sequence number of the good frames.
    pub(super) first: Option<Seqno>,
    pub(super) last: Option<Seqno>,
    /// Greatest durable sequence number that a marker among the good frames vouches for.
    pub(super) vouched: Option<Seqno>,
    /// What stands behind the good frames.
    pub(super) rest: Rest,
}

/// What stands behind the last good frame.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Why the scan stopped, if not at clean zeros.
    pub(super) fault: Option<String>,
    /// Greatest sequence number of a valid frame behind the fault.
    pub(super) last_seen: Option<Seqno>,
    /// Greatest durable sequence number that a frame behind the fault vouches for.
    pub(super) vouched: Option<Seqno>,
}

/// Which sequence numbers a scan accepts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// Dense, as in the log.
    Dense,
    /// Any, as in a merged segment.
    Any,
}

/// Reads the frames of `segment`, whose file begins with `bytes`.
pub(super) fn scan(segment: &Segment, bytes: &[u8], order: Order, hasher: &KeyHasher) -> LogScan {
    let mut scan = LogScan { end: HEADER_LEN as u64, ..LogScan::default() };
    let mut frames = Scanner::new(bytes, segment.salt, HEADER_LEN as u64);
    let fault = loop {
        match frames.next() {
            Some((offset, Frame::Record(record))) => {
                let follows = scan.last.is_none_or(|last| record.seqno == last.next());
                if matches!(order, Order::Dense) && !follows {
                    break Some("the sequence numbers have a gap".to_owned());
                }
                if matches!(order, Order::Dense) && !scan.is_in_place(offset, &record) {
                    break Some("a batch and its records do not fit".to_owned());
                }
                scan.take(segment, offset, &record, hasher);
            }
            Some((_, Frame::Corrupt(reason))) => break Some(reason.to_string()),
            Some((_, Frame::Torn)) => break Some("a frame is cut off".to_owned()),
            Some((_, Frame::End)) | None => break None,
        }
    };
    scan.look_behind(segment, bytes, fault);
    scan
}

/// Goes on behind a damaged place of a sealed segment, and answers where.
pub(super) fn resume(scan: &mut LogScan, segment: &Segment, len: u64, hasher: &KeyHasher) -> u64 {
    let bytes = segment.published(len);
    let Some((next, _)) = resync(bytes, segment.salt, scan.end, Seqno::NONE) else {
        scan.end = len;
        return len;
    };
    for (offset, frame) in Scanner::new(bytes, segment.salt, next) {
        match frame {
            Frame::Record(record) => scan.take(segment, offset, &record, hasher),
            Frame::Corrupt(reason) => scan.rest.fault = Some(reason.to_string()),
            Frame::Torn => scan.rest.fault = Some("a frame is cut off".to_owned()),
            Frame::End => {}
        }
    }
    next
}

impl LogScan {
    /// Whether a record stands in a batch if and only if it says so. What was taken back, or was
    /// only partly written over, may look like the log's next record.
    fn is_in_place(&self, offset: u64, record: &Record<'_>) -> bool {
        let end = offset + record.frame_len as u64;
        let head = self.batches.last().filter(|head| offset < head.end);
        head.is_some() == record.flags.contains(Flags::IN_BATCH)
            && head.is_none_or(|head| end <= head.end)
    }

    fn take(&mut self, segment: &Segment, offset: u64, record: &Record<'_>, hasher: &KeyHasher) {
        self.tally.push(record);
        self.first.get_or_insert(record.seqno);
        self.last = Some(record.seqno);
        self.end = offset + record.frame_len as u64;
        match record.kind {
            Kind::Put | Kind::Tombstone => self.candidates.push(Candidate::new(
                keydir_bits(hasher.hash(record.key)),
                record.seqno,
                record.kind == Kind::Put,
                Location::new(segment.slot, offset, record.frame_len),
                record.frame_len as u32,
            )),
            Kind::Batch => {
                // The codec accepts a batch head only with a payload that decodes.
                if let Some(part) = BatchPart::decode(record.value) {
                    self.batches.push(BatchHead {
                        coordinator: part.coordinator,
                        coordinator_seqno: part.coordinator_seqno,
                        parts: part.parts,
                        seqno: record.seqno,
                        segment: segment.id,
                        offset,
                        end: offset + record.frame_len as u64 + part.bytes,
                    });
                }
            }
            Kind::Marker => {
                let durable = Marker::decode(record.value).map(|marker| marker.durable);
                self.vouched = self.vouched.max(durable);
            }
        }
    }

    /// If the last batch part is cut off, forgets it, and answers its head.
    pub(super) fn cut_incomplete_batch(&mut self, segment: &Segment) -> Option<BatchHead> {
        let head = *self.batches.last()?;
        if head.end <= self.end || planted!("half-batch-kept") {
            return None;
        }
        let last = self.last;
        self.cut(segment, head.offset, head.seqno);
        self.rest.last_seen = self.rest.last_seen.max(last);
        Some(head)
    }

    /// Finds out whether something valid follows the first bad place.
    fn look_behind(&mut self, segment: &Segment, bytes: &[u8], fault: Option<String>) {
        let rest = bytes.get(self.end as usize..).unwrap_or(&[]);
        let is_dirty = rest.iter().any(|byte| *byte != 0);
        let fault = fault.or_else(|| is_dirty.then(|| "bytes follow a gap of zeros".to_owned()));
        self.rest = Rest { fault, last_seen: None, vouched: None };
        if !is_dirty {
            return;
        }
        // Only frames that come later in the log tell something; stale ones have lower numbers.
        let above = self.last.unwrap_or(Seqno::NONE);
        let mut from = self.end;
        let mut resync = Resync::new(bytes, segment.salt);
        while let Some((offset, record)) = resync.next_behind(from, above) {
            self.rest.see(&record);
            from = offset + record.frame_len as u64 - 1;
        }
    }

    /// Forgets everything from `offset` on.
    pub(super) fn cut(&mut self, segment: &Segment, offset: u64, seqno: Seqno) {
        self.candidates.retain(|candidate| candidate.seqno() < seqno);
        self.batches.retain(|batch| batch.seqno < seqno);
        self.last = self.first.filter(|first| *first < seqno).map(|_| Seqno(seqno.0 - 1));
        self.first = self.first.filter(|first| *first < seqno);
        self.tally = Tally::default();
        let bytes = segment.published(offset);
        let mut next = Some(HEADER_LEN as u64);
        // A salvage goes on behind what is damaged.
        while let Some(from) = next {
            let mut end = from;
            for (offset, frame) in Scanner::new(bytes, segment.salt, from) {
                if let Frame::Record(record) = frame {
                    self.tally.push(&record);
                    end = offset + record.frame_len as u64;
                }
            }
            next = resync(bytes, segment.salt, end, Seqno::NONE).map(|(next, _)| next);
        }
        self.end = offset;
    }
}

impl Rest {
    pub(super) fn see(&mut self, record: &Record<'_>) {
        self.last_seen = self.last_seen.max(Some(record.seqno));
        if record.kind == Kind::Marker {
            let durable = Marker::decode(record.value).map(|marker| marker.durable);
            self.vouched = self.vouched.max(durable);
        }
    }
}
