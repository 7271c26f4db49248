//! Finding a key's record: keydir, segment, key comparison, checksum. No lock, no system call.

use caskade_codec::hash::keydir_bits;

use crate::error::{Error, Result};
use crate::location::Location;
use crate::reclaim::Guard;
use crate::segment::{FrameRef, Segment};
use crate::shard::Shard;

/// The newest record of a key.
#[derive(Debug, Clone, Copy)]
pub struct Found<'g> {
    /// The segment that holds it.
    pub segment: &'g Segment,
    /// Its place.
    pub location: Location,
    /// The frame.
    pub frame: FrameRef<'g>,
}

impl Found<'_> {
    /// Fails if the record's bytes do not match their checksum.
    #[inline]
    pub fn verify(&self) -> Result<()> {
        if self.frame.is_intact() { Ok(()) } else { Err(self.damage()) }
    }

    #[cold]
    fn damage(&self) -> Error {
        self.segment.corrupt(self.location.offset(), "the record does not match its checksum")
    }
}

/// What a location with the right hash bits turned out to be.
pub(crate) enum Probe<'g> {
    /// The key's record. Only its key was compared.
    Match(Found<'g>),
    /// Another key's intact record.
    Other,
    /// Unreadable: it may be the key's record.
    Damaged(Error),
}

impl Shard {
    /// The newest record of `key`, verified; expired ones too.
    #[inline]
    pub fn find<'g>(
        &self,
        guard: &'g Guard<'_>,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'g>>> {
        let found = self.find_unverified(guard, hash, key)?;
        if let Some(found) = &found {
            found.verify()?;
        }
        Ok(found)
    }

    /// As [`Shard::find`], but only the key was compared.
    #[inline]
    pub fn find_unverified<'g>(
        &self,
        guard: &'g Guard<'_>,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'g>>> {
        let mut found = None;
        let mut damage = None;
        self.keydir.find(guard, keydir_bits(hash), |location| {
            match self.probe(guard, location, key) {
                Probe::Match(record) => {
                    found = Some(record);
                    true
                }
                Probe::Other => false,
                Probe::Damaged(error) => {
                    damage.get_or_insert(error);
                    false
                }
            }
        });
        // A damaged record with the key's hash bits hides nothing newer, but "not there" would be
        // a guess.
        match (found, damage) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    /// The record at a location that the keydir named under this guard, verified.
    pub fn record_at<'g>(&self, guard: &'g Guard<'_>, location: Location) -> Result<Found<'g>> {
        let segment = self.segments.get(location.slot(), guard).expect("named under this guard");
        let offset = location.offset();
        let frame = segment.frame(offset).map_err(|fault| segment.corrupt(offset, fault))?;
        let found = Found { segment, location, frame };
        found.verify()?;
        Ok(found)
    }

    /// Compares the record at `location` with `key`.
    #[inline]
    pub(crate) fn probe<'g>(
        &self,
        guard: &'g Guard<'_>,
        location: Location,
        key: &[u8],
    ) -> Probe<'g> {
        let segment = self.segments.get(location.slot(), guard).expect(
            "a segment stays in the table for a grace period after the keydir names it no longer",
        );
        segment.prefetch(location);
        match segment.frame(location.offset()) {
            Ok(frame) if frame.key() == key => Probe::Match(Found { segment, location, frame }),
            Ok(frame) if frame.is_intact() => Probe::Other,
            Ok(_) => Probe::Damaged(
                segment.corrupt(location.offset(), "the record does not match its checksum"),
            ),
            Err(fault) => Probe::Damaged(segment.corrupt(location.offset(), fault)),
        }
    }

    /// Asks for the cache lines that a lookup of `hash` needs first.
    #[inline]
    pub fn prefetch_slot(&self, guard: &Guard<'_>, hash: u64) {
        self.keydir.prefetch(guard, keydir_bits(hash));
    }

    /// Asks for the cache lines of the record that `hash` probably means.
    #[inline]
    pub fn prefetch_record(&self, guard: &Guard<'_>, hash: u64) {
        self.keydir.find(guard, keydir_bits(hash), |location| {
            if let Some(segment) = self.segments.get(location.slot(), guard) {
                segment.prefetch(location);
            }
            true
        });
    }
}
