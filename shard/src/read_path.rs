//! Finding a key's record: keydir, segment, key comparison, checksum. No lock, no system call, but
//! where a leaf of the keydir is still to be made.

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
        if frame.is_intact() { Ok(found) } else { Err(found.damage().error()) }
    }

    #[cold]
    fn damage(&self) -> Damage<'g> {
        Damage { segment: self.segment, offset: self.location.offset(), header: None }
    }
}

/// What was seen of a key's newest record.
#[derive(Debug, Clone, Copy)]
pub enum Glimpse<'g> {
    /// This is it, verified. It does not expire and is not compressed.
    Plain(Found<'g>),
    /// There is none.
    Nothing,
    /// [`Shard::find_guessed`] finds out, probably here.
    Unsure(Location),
}

/// What stands at a location with the hash bits of a key.
#[derive(Debug)]
pub(crate) enum Candidate<'g> {
    /// A put of the key. Its checksum is not verified.
    Record(Found<'g>),
    /// Another key's intact record.
    Another,
    /// Something unreadable: it may be the key's record.
    Damaged(Damage<'g>),
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

#[inline(never)]
fn prefetch_record(segment: &Segment, location: Location) {
    segment.prefetch(location);
}

impl Shard {
    /// What can be said of `key` in a few steps, which is nearly always all.
    ///
    /// What it answers is never put together in memory, and what else there is to do stands elsewhere:
    /// the processor gets on to the next lookup while this one still waits for memory.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see above")]
    pub fn glimpse<'g>(&'g self, guard: &'g Guard<'_>, hash: u64, key: &[u8]) -> Glimpse<'g> {
        let Some(location) = self.keydir.candidates(guard, keydir_bits(hash)).next() else {
            return Glimpse::Nothing;
        };
        let segment = self.segment_of(guard, location);
        if let Some(frame) = segment.plain_put(location, key) {
            return Glimpse::Plain(Found { segment, location, frame });
        }
        prefetch_record(segment, location);
        Glimpse::Unsure(location)
    }

    /// The record at what [`Shard::guess`] answered under the same guard, if it is a plain one of `key`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as for `glimpse`")]
    pub fn glimpse_at<'g>(
        &'g self,
        guard: &'g Guard<'_>,
        location: Location,
        key: &[u8],
    ) -> Option<Found<'g>> {
        let segment = self.segment_of(guard, location);
        let frame = segment.plain_put(location, key)?;
        Some(Found { segment, location, frame })
    }

    /// The newest record of `key`, verified; expired ones too.
    #[inline]
    pub fn find<'g>(
        &'g self,
        guard: &'g Guard<'_>,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'g>>> {
        match self.glimpse(guard, hash, key) {
            Glimpse::Plain(found) => Ok(Some(found)),
            Glimpse::Nothing => Ok(None),
            Glimpse::Unsure(guess) => self.find_guessed(guard, guess, hash, key),
        }
    }

    #[inline(never)]
    fn find_thoroughly<'g>(
        &'g self,
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
            if let Candidate::Damaged(damage) = Self::look_closer(segment, location, key) {
                damaged = Some(damage);
            }
        }
        // A damaged record with the key's hash bits hides nothing newer, but "not there" would be a
        // guess.
        damaged.map_or(Ok(None), |damage| Err(damage.error()))
    }

    /// Where the record of the key with this hash probably is, and asks for its cache lines. Nothing
    /// if no key with this hash is there.
    #[inline]
    pub fn guess(&self, guard: &Guard<'_>, hash: u64) -> Option<Location> {
        let location = self.keydir.candidates(guard, keydir_bits(hash)).next()?;
        self.segment_of(guard, location).prefetch(location);
        Some(location)
    }

    /// As [`Shard::find`], where a glimpse at `guess` was not enough. The guard is the same.
    #[inline(never)]
    pub fn find_guessed<'g>(
        &'g self,
        guard: &'g Guard<'_>,
        guess: Location,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'g>>> {
        match Self::intact(self.segment_of(guard, guess), guess, key) {
            Some(found) => Ok(Some(found)),
            None => self.find_thoroughly(guard, hash, key),
        }
    }

    /// The record at `location`, if it is an intact put of `key`.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    fn intact<'g>(segment: &'g Segment, location: Location, key: &[u8]) -> Option<Found<'g>> {
        let frame = segment.put_of(location.offset(), key)?;
        frame.is_intact_put().then_some(Found { segment, location, frame })
    }

    /// The record at a location that the keydir named under this guard, verified.
    pub fn record_at<'g>(&'g self, guard: &'g Guard<'_>, location: Location) -> Result<Found<'g>> {
        Found::verified(self.segment_of(guard, location), location)
    }

    /// The segment of a location that the keydir named under this guard.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    fn segment_of<'g>(&'g self, guard: &'g Guard<'_>, location: Location) -> &'g Segment {
        self.segments.get(location.slot(), guard).expect(
            "a segment stays in the table for a grace period after the keydir names it no longer",
        )
    }

    /// Looks whether the record at a location that the keydir named under this guard is one of `key`.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub(crate) fn look_at<'g>(
        &'g self,
        guard: &'g Guard<'_>,
        location: Location,
        key: &[u8],
    ) -> Candidate<'g> {
        let segment = self.segment_of(guard, location);
        match segment.put_of(location.offset(), key) {
            Some(frame) => Candidate::Record(Found { segment, location, frame }),
            None => Self::look_closer(segment, location, key),
        }
    }

    /// What stands where no put of the key does.
    #[cold]
    fn look_closer<'g>(segment: &'g Segment, location: Location, key: &[u8]) -> Candidate<'g> {
        let offset = location.offset();
        match segment.frame(offset) {
            Ok(frame) if frame.is_intact() && frame.key() != key => Candidate::Another,
            Ok(_) => Candidate::Damaged(Damage { segment, offset, header: None }),
            Err(fault) => Candidate::Damaged(Damage { segment, offset, header: Some(fault) }),
        }
    }

    /// Asks for the cache lines that a lookup of `hash` needs first.
    #[inline]
    pub fn prefetch_slot(&self, guard: &Guard<'_>, hash: u64) {
        self.keydir.prefetch(guard, keydir_bits(hash));
    }
}
