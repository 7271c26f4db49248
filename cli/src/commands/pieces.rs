//! A segment file that is read piece by piece: it may be larger than the memory.
//!
//! It is not mapped, for a writer may cut it meanwhile.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use caskade_codec::Seqno;
use caskade_codec::record::{self, Frame};
use caskade_codec::segment::resync;

use crate::fault::{Fault, Outcome};

/// Bytes that are read at once, unless a record is longer.
const PIECE: usize = 1 << 20;

/// The file, and the piece that is in memory.
#[derive(Debug)]
pub(super) struct Pieces {
    path: PathBuf,
    file: File,
    at: u64,
    bytes: Vec<u8>,
}

impl Pieces {
    pub(super) fn new(path: &Path) -> Outcome<Self> {
        let file = File::open(path).map_err(|source| Fault::system("open", path, source))?;
        Ok(Self { path: path.to_owned(), file, at: 0, bytes: Vec::new() })
    }

    /// How long the file is.
    pub(super) fn len(&self) -> Outcome<u64> {
        let meta = self.file.metadata();
        meta.map(|meta| meta.len()).map_err(|source| Fault::system("measure", &self.path, source))
    }

    /// The bytes from `offset` on: at least `len`, or all that there are.
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> Outcome<&[u8]> {
        let is_there = offset >= self.at && {
            let end = self.at + self.bytes.len() as u64;
            offset + len as u64 <= end
        };
        if !is_there {
            let left = self.len()?.saturating_sub(offset);
            self.bytes.resize(len.max(PIECE).min(usize::try_from(left).unwrap_or(usize::MAX)), 0);
            self.at = offset;
            let mut done = 0;
            while done < self.bytes.len() {
                let read = self.file.read_at(&mut self.bytes[done..], offset + done as u64);
                match read.map_err(|source| Fault::system("read", &self.path, source))? {
                    0 => self.bytes.truncate(done),
                    read => done += read,
                }
            }
        }
        Ok(&self.bytes[(offset - self.at) as usize..])
    }

    /// What stands at `offset`.
    pub(super) fn frame(&mut self, offset: u64, salt: u32) -> Outcome<Frame<'_>> {
        let head = self.bytes(offset, record::HEADER_LEN)?.first_chunk();
        let len = head.and_then(|head| record::Header::decode(head).ok());
        let len = len.map_or(record::HEADER_LEN, |header| header.frame_len());
        Ok(record::decode(self.bytes(offset, len)?, record::seed(salt, offset)))
    }

    /// Where the next record behind the bad place at `offset` begins. Takes the whole file into memory.
    pub(super) fn next_behind(&mut self, offset: u64, salt: u32) -> Outcome<Option<u64>> {
        let len = self.len()? as usize;
        let whole = self.bytes(0, len)?;
        Ok(resync(whole, salt, offset, Seqno::NONE).map(|(next, _)| next))
    }
}
