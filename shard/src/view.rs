//! A shard as it was at one moment: a keydir snapshot, and the segments that it needs.

use std::sync::Arc;

use crate::error::Result;
use crate::keydir::Snapshot;
use crate::location::Location;
use crate::read_path::Found;
use crate::segment::Segment;
use crate::write_path::Locked;

/// A consistent view. It keeps its segments' space until it is dropped.
#[derive(Debug)]
pub struct View {
    keydir: Snapshot,
    /// By slot.
    segments: Vec<Option<Arc<Segment>>>,
}

impl Locked<'_> {
    /// The shard as it is now.
    pub fn view(&mut self) -> View {
        let segments = self.segments();
        View { keydir: self.snapshot_keydir(), segments }
    }
}

impl View {
    /// Number of keys.
    pub fn len(&self) -> u64 {
        self.keydir.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of leaves.
    pub fn leaves(&self) -> usize {
        self.keydir.leaves()
    }

    /// Puts the locations of a leaf's records in place of what `out` held.
    pub fn leaf(&self, index: usize, out: &mut Vec<(u32, Location)>) {
        self.keydir.leaf(index, out);
    }

    /// Has the kernel begin to read what is not in memory, unless it is too much to stay there until
    /// it is needed.
    pub fn will_need(&self) {
        const BYTES_MAX: u64 = 1 << 30;
        let segments = || self.segments.iter().flatten();
        if segments().map(|segment| segment.readable()).sum::<u64>() > BYTES_MAX {
            return;
        }
        for segment in segments() {
            segment.map().will_need(0, segment.readable());
        }
    }

    /// Asks for the cache lines of a record.
    pub fn prefetch(&self, location: Location) {
        self.segment(location).prefetch(location);
    }

    /// The record at a location of this view, verified.
    pub fn record(&self, location: Location) -> Result<Found<'_>> {
        Found::verified(self.segment(location), location)
    }

    /// The segment of a location of this view.
    pub fn segment(&self, location: Location) -> &Arc<Segment> {
        let segment = self.segments.get(location.slot() as usize).and_then(Option::as_ref);
        segment.expect("a view holds every segment that it names")
    }
}
