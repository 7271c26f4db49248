//! Reading everything and checking it.

use crate::store::Store;
use crate::{Error, Result};

/// How far a verification has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes read.
    pub bytes_done: u64,
    /// Bytes to read in all.
    pub bytes_total: u64,
    /// Damaged places found so far.
    pub damaged: u64,
}

/// A damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Damage {
    /// The shard.
    pub shard: u16,
    /// The segment.
    pub segment: u64,
    /// Where in the segment's file.
    pub offset: u64,
    /// What does not fit.
    pub reason: String,
}

/// What a verification found.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Whole records.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Every damaged place.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

pub(crate) fn verify(
    store: &Store,
    mut progress: impl FnMut(VerifyProgress) -> bool,
) -> Result<VerifyReport> {
    store.check_open()?;
    let segments: Vec<_> =
        store.shards.iter().flat_map(caskade_shard::shard::Shard::segments_to_check).collect();
    let bytes_total = segments.iter().map(caskade_shard::verify::Checked::bytes).sum();
    let mut now = VerifyProgress { bytes_total, ..VerifyProgress::default() };
    let mut report = VerifyReport::default();
    for segment in &segments {
        let check = segment.check(|bytes| {
            now.bytes_done += bytes;
            store.check_open()?;
            if progress(now) { Ok(()) } else { Err(Error::Stopped) }
        })?;
        report.segments += 1;
        report.records += check.records;
        report.bytes += segment.bytes();
        report.damage.extend(check.damage.into_iter().filter_map(damage));
        now.damaged = report.damage.len() as u64;
    }
    Ok(report)
}

fn damage(error: Error) -> Option<Damage> {
    match error {
        Error::Corrupt { shard, segment, offset, reason } => {
            Some(Damage { shard: shard.0, segment: segment.0, offset, reason })
        }
        _ => None,
    }
}
