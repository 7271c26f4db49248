//! Where a shard's log ends: at clean zeros, at a bad place, or before a batch that is not whole.

use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::segment::{HEADER_LEN, Role};

use super::log_scan::LogScan;
use super::scan::{SealedScan, ShardScan, Source};
use super::{BatchHead, LossKind, RecoveryMode, Request};
use crate::error::{Error, Result};

impl ShardScan {
    /// Walks along the open segments until the log ends, and cuts it at the first bad place.
    pub(super) fn follow_log(&mut self, request: &Request<'_>) -> Result<()> {
        let mut expected = self.manifest.next_log_seqno;
        let mut broken: Option<Break> = None;
        let firsts: Vec<Option<Seqno>> = self
            .open
            .iter()
            .map(|open| open.found.as_ref().and_then(|found| found.scan.first))
            .collect();
        for (index, open) in self.open.iter_mut().enumerate() {
            let Some(found) = &mut open.found else { continue };
            self.report.segments_scanned += 1;
            self.report.bytes_scanned += found.scan.end;
            let scan = &mut found.scan;
            if let Some(broken) = &mut broken {
                broken.see_whole(scan);
                open.is_dropped = true;
                continue;
            }
            if scan.first.is_some_and(|first| first != expected) {
                let mut gap = Break::gap(index, expected);
                gap.see_whole(scan);
                open.is_dropped = true;
                broken = Some(gap);
                continue;
            }
            expected = scan.last.map_or(expected, Seqno::next);
            let incomplete = scan.cut_incomplete_batch(&found.segment);
            if let Some(head) = incomplete {
                expected = head.seqno;
            }
            let fault = scan.rest.fault.take();
            // Numbers without a gap prove that nothing is missing: what stands behind the last
            // record here is what the device held before, and the journal restored the rest.
            if firsts[index + 1..].iter().flatten().next() == Some(&expected)
                && !planted!("rubbish-ends-log")
            {
                continue;
            }
            if let Some(reason) = fault.or_else(|| incomplete.map(|_| "a batch is cut off".into()))
            {
                broken = Some(Break {
                    index,
                    offset: scan.end,
                    expected,
                    reason,
                    bytes: found.file_len - scan.end,
                    vouched: scan.rest.vouched,
                    last_seen: scan.rest.last_seen,
                });
            }
        }
        self.next_seqno = self.next_seqno.max(expected);
        match broken {
            Some(broken) => self.end_at(&broken, request),
            // The log ends cleanly. It must reach as far as it is known to be durable.
            None => self.check_horizon(request, expected),
        }
    }

    /// Ends the log at a bad place. That is an error if it is known that more was durable.
    fn end_at(&mut self, broken: &Break, request: &Request<'_>) -> Result<()> {
        self.next_seqno = self.next_seqno.max(broken.last_seen.map_or(Seqno::NONE, Seqno::next));
        self.is_cut = true;
        let vouched = broken.vouched.filter(|_| !planted!("evidence-ignored"));
        let durable = self.manifest.horizon.max(vouched.unwrap_or(Seqno::NONE));
        let is_corruption = durable >= broken.expected;
        let open = &self.open[broken.index];
        let (segment, offset) = (open.entry.id, broken.offset);
        let kind = if is_corruption { LossKind::Corruption } else { LossKind::Tail };
        let loss = self.loss(kind, segment, offset, broken.bytes, broken.reason.clone());
        self.report.losses.push(loss);
        if is_corruption && request.mode != RecoveryMode::Salvage {
            let reason = format!(
                "{}; records up to {durable} were durable, this is {}",
                broken.reason, broken.expected
            );
            return Err(Error::Corrupt { shard: self.id, segment, offset, reason });
        }
        Ok(())
    }

    fn check_horizon(&mut self, request: &Request<'_>, expected: Seqno) -> Result<()> {
        let horizon = self.manifest.horizon;
        if horizon < expected {
            return Ok(());
        }
        let open = self.open.iter().rev().find(|open| open.found.is_some());
        let segment = open.or(self.open.first()).map_or(SegmentId(0), |open| open.entry.id);
        let offset = open.and_then(|open| open.found.as_ref()).map_or(0, |found| found.scan.end);
        let reason = format!("records {expected} to {horizon} were durable and are missing");
        let loss = self.loss(LossKind::Corruption, segment, offset, 0, reason.clone());
        self.report.losses.push(loss);
        self.is_cut = true;
        if request.mode == RecoveryMode::Salvage {
            return Ok(());
        }
        Err(Error::Corrupt { shard: self.id, segment, offset, reason })
    }

    /// Ends the log before a batch of which other shards lack a part.
    pub(super) fn cut_before_batch(&mut self, head: &BatchHead) {
        self.is_cut = true;
        self.next_seqno = self.next_seqno.max(head.seqno.next());
        let mut lost = 0;
        // Merged segments lie below the horizon, and a batch that does is never cut.
        let is_log = |scan: &&mut SealedScan| scan.entry.role == Role::Log && !scan.is_dropped;
        for scan in self.sealed.iter_mut().filter(is_log) {
            let Some(sealed) = scan.entry.sealed().filter(|s| s.max_seqno >= head.seqno) else {
                continue;
            };
            self.next_seqno = self.next_seqno.max(sealed.max_seqno.next());
            match &mut scan.source {
                Source::Log(log) if scan.entry.id == head.segment => {
                    lost += log.end - head.offset;
                    log.cut(&scan.segment, head.offset, head.seqno);
                    // The batch may have been all there was.
                    scan.is_dropped = head.offset <= HEADER_LEN as u64;
                }
                // Whole segments behind the cut go, however they were read.
                _ => {
                    lost += sealed.len - HEADER_LEN as u64;
                    scan.is_dropped = !planted!("sealed-behind-cut-kept");
                }
            }
        }
        for open in &mut self.open {
            let Some(found) = &mut open.found else { continue };
            if found.scan.last.is_some_and(|last| last >= head.seqno) && !open.is_dropped {
                let behind = found.scan.last.map_or(Seqno::NONE, Seqno::next);
                self.next_seqno = self.next_seqno.max(behind);
                if open.entry.id == head.segment {
                    lost += found.scan.end - head.offset;
                    found.scan.cut(&found.segment, head.offset, head.seqno);
                } else {
                    lost += found.scan.end - HEADER_LEN as u64;
                    open.is_dropped = true;
                }
            }
        }
        let reason = "a batch is not whole in every shard".to_owned();
        let loss = self.loss(LossKind::Batch, head.segment, head.offset, lost, reason);
        self.report.losses.push(loss);
    }
}

/// Where the log stops making sense.
struct Break {
    index: usize,
    offset: u64,
    expected: Seqno,
    reason: String,
    bytes: u64,
    vouched: Option<Seqno>,
    last_seen: Option<Seqno>,
}

impl Break {
    /// Before a segment that does not go on where the one before it ended.
    fn gap(index: usize, expected: Seqno) -> Self {
        Self {
            index,
            offset: HEADER_LEN as u64,
            expected,
            reason: "records before this segment are missing".to_owned(),
            bytes: 0,
            vouched: None,
            last_seen: None,
        }
    }

    /// Takes in a segment that lies wholly behind the break.
    fn see_whole(&mut self, scan: &LogScan) {
        self.bytes += scan.end - HEADER_LEN as u64;
        self.last_seen = self.last_seen.max(scan.last).max(scan.rest.last_seen);
        self.vouched = self.vouched.max(scan.vouched).max(scan.rest.vouched);
    }
}
