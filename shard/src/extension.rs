//! Room in the active segment, made ahead of its need.
//!
//! Allocating space and having its pages in memory takes many times as long as a put. So the writer
//! asks for the room behind what it begins to fill; the maintenance thread makes it,
//! without the writer lock; and the writer takes it over when it gets there. Whoever comes first
//! does the work: a writer that finds its wish not yet begun makes the room itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caskade_codec::ids::SegmentId;

use crate::segment::Segment;
use crate::storage::File;

/// A range behind the allocated part of a segment's file.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn File>,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Room {
    /// Allocates it. Its bytes are zero, and behind everything that anybody reads or writes.
    pub(crate) fn make(&self) -> std::io::Result<()> {
        self.file.allocate_ahead(self.from, self.to - self.from)?;
        // One call instead of a page fault for every few records.
        self.segment.map().populate_write(self.from, self.to - self.from);
        Ok(())
    }
}

/// What a shard's writer wants to have ready. Taken inside the writer lock; nothing is taken inside.
#[derive(Debug, Default)]
pub(crate) struct Extension(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    wanted: Option<Room>,
    /// A segment, and up to where it is allocated now.
    made: Option<(SegmentId, u64)>,
}

impl Extension {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a room; what was asked for before is forgotten.
    pub(crate) fn want(&self, room: Room) {
        *self.state() = State { wanted: Some(room), made: None };
    }

    /// Makes what was asked for. Whoever needs it meanwhile waits. A failure is the writer's to
    /// find, should it still be there when the room is needed.
    pub(crate) fn make(&self) {
        let mut state = self.state();
        if let Some(room) = state.wanted.take()
            && room.make().is_ok()
        {
            state.made = Some((room.segment.id, room.to));
        }
    }

    /// Up to where the segment was allocated, if that was done. A wish of it that was not begun is
    /// withdrawn: afterwards nobody else changes the length of its file.
    pub(crate) fn take(&self, id: SegmentId) -> Option<u64> {
        let mut state = self.state();
        if state.wanted.as_ref().is_some_and(|room| room.segment.id == id) {
            state.wanted = None;
        }
        state.made.take_if(|(made, _)| *made == id).map(|(_, to)| to)
    }
}
