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

impl<'g> Found<'g> {
    /// The record at `location` of `segment`, whoever's it is.
    pub(crate) fn verified(segment: &'g Segment, location: Location) -> Result<Self> {
        let offset = location.offset();
        let frame = segment.frame(offset).map_err(|fault| segment.corrupt(offset, fault))?;
        let found = Self { segment, location, frame };
        if frame.is_intact() { Ok(found) } else { Err(found.damage()) }
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
        let mut damaged = None;
        for location in self.keydir.candidates(guard, keydir_bits(hash)) {
            let segment = self.segment_of(guard, location);
            segment.prefetch(location);
            if let Some(found) = Self::intact(segment, location, key) {
                return Ok(Some(found));
            }
            if Self::is_another(segment, location, key) != Match::No {
                damaged = Some((segment, location));
            }
        }
        match damaged {
            None => Ok(None),
            // A damaged record with the key's hash bits hides nothing newer, but "not there" would
            // be a guess.
            Some((segment, location)) => match Self::frame_in(segment, location, key) {
                Ok(found) => Err(found.damage()),
                Err(damage) => Err(damage.error()),
            },
        }
    }

    /// Where the record of the key with this hash probably is, and asks for its cache lines. Nothing
    /// if no key with this hash is there.
    #[inline]
    pub fn guess(&self, guard: &Guard<'_>, hash: u64) -> Option<Location> {
        let location = self.keydir.candidates(guard, keydir_bits(hash)).next()?;
        self.segment_of(guard, location).prefetch(location);
        Some(location)
    }

    /// As [`Shard::find`], with what [`Shard::guess`] answered under the same guard.
    #[inline]
    pub fn find_guessed<'g>(
        &self,
        guard: &'g Guard<'_>,
        location: Location,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'g>>> {
        match Self::intact(self.segment_of(guard, location), location, key) {
            Some(found) => Ok(Some(found)),
            None => self.find(guard, hash, key),
        }
    }

    /// The record at `location`, if it is an intact put of `key`.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    fn intact<'g>(segment: &'g Segment, location: Location, key: &[u8]) -> Option<Found<'g>> {
        let frame = segment.intact_put(location.offset(), key)?;
        Some(Found { segment, location, frame })
    }

    /// The record at a location that the keydir named under this guard, verified.
    pub fn record_at<'g>(&self, guard: &'g Guard<'_>, location: Location) -> Result<Found<'g>> {
        Found::verified(self.segment_of(guard, location), location)
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
        Self::is_another(segment, location, key)
    }

    /// Whether a record with the key's hash bits really is of another key.
    #[cold]
    fn is_another(segment: &Segment, location: Location, key: &[u8]) -> Match {
        match segment.frame(location.offset()) {
            Ok(frame) if frame.is_intact() && frame.key() != key => Match::No,
            _ => Match::Damaged,
        }
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
        Self::frame_in(self.segment_of(guard, location), location, key)
    }

    fn frame_in<'g>(
        segment: &'g Segment,
        location: Location,
        key: &[u8],
    ) -> std::result::Result<Found<'g>, Damage<'g>> {
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
}
