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

/// Whether a location with the right hash bits is the one of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// The key is the stored one.
    Yes,
    /// Another key's intact record.
    No,
    /// Unreadable: it may be the key's record.
    Damaged,
}

/// Where a record is damaged. The error for it is made only where somebody asks.
#[derive(Debug, Clone, Copy)]
pub struct Damage<'g> {
    segment: &'g Segment,
    offset: u64,
    header: Option<HeaderFault>,
}

impl<'g> Damage<'g> {
    pub(crate) fn segment(&self) -> &'g Segment {
        self.segment
    }

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
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
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
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub fn find_unverified<'g>(
        &self,
        guard: &'g Guard<'_>,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'g>>> {
        let mut damaged = None;
        let found = self.keydir.find(guard, keydir_bits(hash), |location| {
            let is_match = self.is_record_of(guard, location, key);
            if is_match == Match::Damaged {
                damaged = Some(location);
            }
            is_match == Match::Yes
        });
        // A damaged record with the key's hash bits hides nothing newer, but "not there" would be
        // a guess.
        match found.or(damaged) {
            None => Ok(None),
            Some(location) => match self.frame_of(guard, location, key) {
                Ok(found) => Ok(Some(found)),
                Err(damage) => Err(damage.error()),
            },
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

    /// The segment of a location that the keydir named under this guard.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    fn segment_of<'g>(&self, guard: &'g Guard<'_>, location: Location) -> &'g Segment {
        self.segments.get(location.slot(), guard).expect(
            "a segment stays in the table for a grace period after the keydir names it no longer",
        )
    }

    /// Compares the key of the record at `location`, and nothing else unless it differs.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub(crate) fn is_record_of(&self, guard: &Guard<'_>, location: Location, key: &[u8]) -> Match {
        let segment = self.segment_of(guard, location);
        segment.prefetch(location);
        if segment.holds_key(location.offset(), key) {
            return Match::Yes;
        }
        Self::is_another(segment, location)
    }

    /// Whether a record with the key's hash bits really is of another key.
    #[cold]
    fn is_another(segment: &Segment, location: Location) -> Match {
        let is_intact = segment.frame(location.offset()).is_ok_and(|frame| frame.is_intact());
        if is_intact { Match::No } else { Match::Damaged }
    }

    /// The record at `location`, which is the one of `key` unless it is damaged.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub(crate) fn frame_of<'g>(
        &self,
        guard: &'g Guard<'_>,
        location: Location,
        key: &[u8],
    ) -> std::result::Result<Found<'g>, Damage<'g>> {
        let segment = self.segment_of(guard, location);
        let offset = location.offset();
        match segment.frame(offset) {
            Ok(frame) if frame.key() == key => Ok(Found { segment, location, frame }),
            Ok(_) => Err(Damage { segment, offset, header: None }),
            Err(fault) => Err(Damage { segment, offset, header: Some(fault) }),
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
