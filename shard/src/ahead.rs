//! The log's next segment: made before it is needed, so that a rotation waits for no disk.
//!
//! Its id is listed in the manifest before its file is there.

use std::collections::VecDeque;
use std::sync::Arc;

use caskade_codec::ids::SegmentId;
use caskade_codec::names;
use caskade_codec::segment::{HEADER_LEN, Header, Role, SEGMENT_LEN_MAX};

use crate::catalog::list_ahead;
use crate::error::{At, Error, Result};
use crate::log_file::LogFile;
use crate::segment::{Sizes, Tail};
use crate::shard::{Active, Shard};

/// What is ready for the next rotation.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Ids that the manifest lists and that no file has yet, in the order of their use.
    pub(crate) ids: VecDeque<(SegmentId, u32)>,
    pub(crate) ready: Option<Active>,
    /// The store was closed: no file is made any more, for the directory may be somebody else's.
    pub(crate) is_over: bool,
}

impl Shard {
    /// The next segment: the one made ready, or a new one.
    pub(crate) fn take_ahead(&self, len: u64, spare: bool) -> Result<Active> {
        loop {
            let mut ahead = self.ahead();
            if ahead.is_over {
                return Err(Error::Closed);
            }
            if let Some(active) = ahead.ready.take() {
                if active.tail.fits(len, spare) {
                    return Ok(active);
                }
                self.discard(&active);
            }
            if let Some(active) = self.create_log_segment(&mut ahead, len)? {
                return Ok(active);
            }
            drop(ahead);
            self.list_ids()?;
        }
    }

    /// Makes the next segment ready, if it is not.
    pub fn prepare_ahead(&self) -> Result<()> {
        self.ctx.poison.check()?;
        loop {
            let mut ahead = self.ahead();
            if ahead.ready.is_some() || ahead.is_over {
                return Ok(());
            }
            if let Some(active) = self.create_log_segment(&mut ahead, 0)? {
                active.tail.segment().map().populate_write(0, active.tail.allocated());
                ahead.ready = Some(active);
                return Ok(());
            }
            drop(ahead);
            self.list_ids()?;
        }
    }

    /// Lists segment ids in the manifest if there are none left.
    fn list_ids(&self) -> Result<()> {
        let _listing = self.listing();
        let is_wanted = {
            let ahead = self.ahead();
            ahead.ids.is_empty() && !ahead.is_over
        };
        if is_wanted {
            let listed = self.catalog.publish(&self.ctx, |m| list_ahead(&self.ctx, m, 0))?;
            self.ahead().ids.extend(listed);
        }
        Ok(())
    }

    /// Removes the segment that was made ready and not used. None is made from now on.
    pub fn discard_ahead(&self) {
        // Whoever lists ids ends first.
        let _listing = self.listing();
        let mut ahead = self.ahead();
        ahead.is_over = true;
        if let Some(active) = ahead.ready.take() {
            self.discard(&active);
        }
    }

    pub(crate) fn discard(&self, active: &Active) {
        let segment = active.tail.segment();
        self.segments.release(segment.slot);
        // Should this fail, the next open removes the file.
        let _ = self.ctx.storage.remove(&segment.path);
    }

    /// A new segment. None if no listed id is left for it.
    fn create_log_segment(&self, ahead: &mut Ahead, len: u64) -> Result<Option<Active>> {
        let sizes = self.sizes(len)?;
        let (id, salt, path, file) = loop {
            let Some(&(id, salt)) = ahead.ids.front() else { return Ok(None) };
            let path = self.dir.join(names::segment(id));
            match self.ctx.storage.create(&path) {
                // Something that is not ours has the name. It stays, and the id is never used.
                Err(fault) if fault.kind() == std::io::ErrorKind::AlreadyExists => {
                    ahead.ids.pop_front();
                }
                answer => break (id, salt, path.clone(), answer.at("create", &path)?),
            }
        };
        let header = Header { uuid: self.ctx.uuid, shard: self.id, id, role: Role::Log, salt };
        let slot = self.segments.reserve();
        match Tail::create(file, &header, slot, path.clone(), sizes) {
            Ok(tail) => {
                ahead.ids.pop_front();
                let file = Arc::clone(tail.file());
                let file = Arc::new(LogFile::new(Arc::clone(tail.segment()), file, false));
                Ok(Some(Active { tail, file }))
            }
            Err(error) => {
                self.segments.release(slot);
                let _ = self.ctx.storage.remove(&path);
                Err(error)
            }
        }
    }

    /// Capacity of a segment that is made now: in step with the shard's size.
    pub(crate) fn ordinary_segment_bytes(&self) -> u64 {
        let config = &self.ctx.config;
        let wanted = (self.total_bytes() / 8).next_power_of_two();
        wanted.clamp(config.segment_bytes_min, config.segment_bytes_max)
    }

    /// Sizes for a segment that must take a record of `len` bytes: in step with the shard's.
    fn sizes(&self, len: u64) -> Result<Sizes> {
        let ordinary = self.ordinary_segment_bytes();
        let headroom = (ordinary / 64).min(16 << 10);
        let capacity = ordinary.max(HEADER_LEN as u64 + len + headroom);
        if capacity > SEGMENT_LEN_MAX {
            return Err(Error::BatchTooLarge { bytes: len, limit: SEGMENT_LEN_MAX - (1 << 20) });
        }
        let chunk = (capacity / 16).next_multiple_of(4096).clamp(64 << 10, 4 << 20).min(capacity);
        Ok(Sizes { capacity, chunk, headroom })
    }
}
