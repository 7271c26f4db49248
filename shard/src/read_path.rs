//! Finding a key's record: keydir, segment, key comparison, checksum. No lock, no system call.

use caskade_codec::hash::keydir_bits;
use caskade_codec::record::HeaderFault;

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
        Damage { segment: self.segment, offset: self.location.offset(), header: None }.error()
    }
}

/// What a location with the right hash bits turned out to be.
pub(crate) enum Probe<'g> {
    /// The key's record. Only its key was compared.
    Match(Found<'g>),
    /// Another key's intact record.
    Other,
    /// Unreadable: it may be the key's record.
    Damaged(Damage<'g>),
}

/// Where a record is damaged. The error for it is made only where somebody asks.
#[derive(Debug, Clone, Copy)]
pub struct Damage<'g> {
    segment: &'g Segment,
    offset: u64,
    header: Option<HeaderFault>,
}

impl Damage<'_> {
    /// What users are told.
    #[cold]
    pub fn error(&self) -> Error {
        match self.header {
            Some(fault) => self.segment.corrupt(self.offset, fault),
            None => self.segment.corrupt(self.offset, "the record does not match its checksum"),
        }
    }
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
                Probe::Damaged(place) => {
                    damage = Some(place);
                    false
                }
            }
        });
        // A damaged record with the key's hash bits hides nothing newer, but "not there" would be
        // a guess.
        match (found, damage) {
            (None, Some(damage)) => Err(damage.error()),
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
        let offset = location.offset();
        match segment.frame(offset) {
            Ok(frame) if frame.key() == key => Probe::Match(Found { segment, location, frame }),
            Ok(frame) if frame.is_intact() => Probe::Other,
            Ok(_) => Probe::Damaged(Damage { segment, offset, header: None }),
            Err(fault) => Probe::Damaged(Damage { segment, offset, header: Some(fault) }),
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
