//! Reading every record of a shard and checking it.

use std::sync::Arc;

use caskade_codec::ids::Seqno;
use caskade_codec::record::Frame;
use caskade_codec::segment::{HEADER_LEN, Resync, Scanner};

use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::shard::Shard;

/// A segment to be checked, as of when the check began.
#[derive(Debug, Clone)]
pub struct Checked {
    segment: Arc<Segment>,
    end: u64,
}

/// What the check of one segment found.
#[derive(Debug, Default)]
pub struct SegmentCheck {
    /// Records that are whole.
    pub records: u64,
    /// Damaged places.
    pub damage: Vec<Error>,
}

impl Shard {
    /// The segments as of now, each with the length to check.
    pub fn segments_to_check(&self) -> Vec<Checked> {
        let cut = self.cut();
        // What it lists is in the table as long as it is held.
        let manifest = self.catalog.manifest();
        let segments = self.segments.all();
        let sealed = manifest.segments.iter().filter_map(|entry| {
            let segment = segments.iter().find(|segment| segment.id == entry.id)?;
            Some(Checked { segment: Arc::clone(segment), end: entry.sealed()?.len })
        });
        let mut all: Vec<Checked> = sealed.collect();
        for (file, end) in &cut.files {
            if !all.iter().any(|checked| checked.segment.id == file.segment.id) {
                all.push(Checked { segment: Arc::clone(&file.segment), end: *end });
            }
        }
        all
    }
}

impl Checked {
    /// How many bytes there are to check.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Reads all records. `pause` is called now and then with the bytes read since; an error from
    /// it ends the check.
    pub fn check(&self, mut pause: impl FnMut(u64) -> Result<()>) -> Result<SegmentCheck> {
        const STEP: u64 = 1 << 20;
        let mut check = SegmentCheck::default();
        let bytes = self.segment.published(self.end);
        let mut way = self.segment.in_order();
        let mut resync = Resync::new(bytes, self.segment.salt);
        let (mut from, mut told) = (HEADER_LEN as u64, 0);
        if (bytes.len() as u64) < self.end {
            let reason = format!("the file has {} of {} bytes", bytes.len(), self.end);
            check.damage.push(self.segment.corrupt(bytes.len() as u64, reason));
        }
        while from < self.end {
            let mut frames = Scanner::new(bytes, self.segment.salt, from);
            let mut fault = "zeros where records should be".to_owned();
            for (offset, frame) in frames.by_ref() {
                match frame {
                    Frame::Record(_) => check.records += 1,
                    Frame::Corrupt(reason) => fault = reason.to_string(),
                    Frame::Torn => "a record reaches past the end".clone_into(&mut fault),
                    Frame::End => {}
                }
                way.reach(offset);
                if offset - told > STEP {
                    pause(offset - told)?;
                    told = offset;
                }
            }
            let at = frames.offset();
            if at >= self.end {
                break;
            }
            check.damage.push(self.segment.corrupt(at, fault));
            let next = resync.next_behind(at, Seqno::NONE);
            from = next.map_or(self.end, |(offset, _)| offset);
        }
        pause(self.end - told.min(self.end))?;
        Ok(check)
    }
}
