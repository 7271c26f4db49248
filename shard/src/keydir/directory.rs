//! The directory: which leaf stands for which range of places.
//!
//! # Invariants
//! 1. Each entry holds the word of a live leaf from the moment the directory is published.
//! 2. Entries that a leaf of depth `d` covers all hold its word, but while the writer replaces it.
//! 3. Only the writer stores. A leaf or directory that was replaced is given up only after no
//!    reader that begins later can find it.
#![expect(unsafe_code, reason = "readers follow pointers that the writer replaces")]

use std::ops::Range;

use crate::{
    keydir::{
        deferred::Deferred,
        leaf::{Leaf, OwnedLeaf, Word},
    },
    reclaim::{Guard, Reclaim},
    sync::{AtomicPtr, Ordering},
};

/// Leaves by the leading bits of the place.
pub(super) struct Directory {
    depth: u32,
    entries: Box<[AtomicPtr<super::leaf::Header>]>,
}

impl Directory {
    /// A directory with a word for every place of `depth` bits.
    fn new(depth: u32, words: impl Iterator<Item = Word>) -> Self {
        let entries: Box<[_]> = words.map(AtomicPtr::new).collect();
        assert_eq!(entries.len(), 1 << depth, "a leaf for every place");
        Self { depth, entries }
    }

    #[inline]
    fn index(&self, place: u32) -> usize {
        (u64::from(place) >> (32 - self.depth)) as usize
    }

    #[inline]
    fn word(&self, place: u32) -> Word {
        // Acquire: the leaf was filled before its word was stored.
        self.entries[self.index(place)].load(Ordering::Acquire)
    }

    /// The entries that a leaf of `depth` at `place` has.
    fn covered(&self, depth: u32, place: u32) -> Range<usize> {
        let width = 1 << (self.depth - depth);
        let start = self.index(place) & !(width - 1);
        start..start + width
    }
}

/// The current directory and its leaves.
pub(super) struct Root(AtomicPtr<Directory>);

impl Root {
    /// A table of these leaves, in order, none of them deeper than `depth`.
    pub(super) fn new(depth: u32, leaves: impl Iterator<Item = OwnedLeaf>) -> Self {
        let words = leaves.flat_map(|leaf| {
            let covered = 1 << (depth - leaf.leaf().depth());
            std::iter::repeat_n(leaf.into_word(), covered)
        });
        let directory = Directory::new(depth, words);
        Self(AtomicPtr::new(Box::into_raw(Box::new(directory))))
    }

    /// The leaf for `place`, for as long as the guard and the table live.
    #[inline]
    pub(super) fn leaf<'a>(
        &'a self,
        reclaim: &Reclaim,
        guard: &'a Guard<'_>,
        place: u32,
    ) -> Leaf<'a> {
        assert!(guard.belongs_to(reclaim), "a guard of another store");
        // SAFETY: The directory and the leaf could be found after the guard was entered, so neither
        // is freed before the guard and the table are dropped: both are retired to the guard's `reclaim` (or held
        // for a snapshot and then retired) after they were replaced. The acquire load sees the
        // directory as it was published.
        unsafe { Leaf::new((*self.0.load(Ordering::Acquire)).word(place)) }
    }

    /// The view of the one writer.
    ///
    /// # Safety
    /// The caller is the only writer, and replaces nothing while the view is borrowed.
    pub(super) unsafe fn writer(&self) -> View<'_> {
        // SAFETY: Only the writer replaces a directory.
        View(unsafe { &*self.0.load(Ordering::Relaxed) })
    }

    /// Gives a directory of twice the size its place, and the old one up.
    ///
    /// # Safety
    /// The caller is the only writer.
    pub(super) unsafe fn double(&self, reclaim: &Reclaim) {
        // SAFETY: Passed on from the caller.
        let old = unsafe { self.writer() }.0;
        let words = old.entries.iter().flat_map(|entry| {
            let word = entry.load(Ordering::Relaxed);
            [word, word]
        });
        let new = Box::into_raw(Box::new(Directory::new(old.depth + 1, words)));
        // Release: the entries were written before the directory is found.
        let old = self.0.swap(new, Ordering::AcqRel);
        // SAFETY: It came from a box in `new` or here, and was just unlinked: nobody else frees it.
        reclaim.retire(unsafe { Box::from_raw(old) });
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // SAFETY: Nobody else is left: the table is dropped. The directory came from a box, and each
        // of its leaves from `into_word`; runs of one word are one leaf.
        unsafe {
            let directory = Box::from_raw(self.0.load(Ordering::Acquire));
            let mut last = std::ptr::null_mut();
            for entry in &directory.entries {
                let word = entry.load(Ordering::Acquire);
                if word != last {
                    drop(OwnedLeaf::from_word(word));
                    last = word;
                }
            }
        }
    }
}

/// The directory as the writer sees it.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(&'a Directory);

impl<'a> View<'a> {
    pub(super) fn depth(self) -> u32 {
        self.0.depth
    }

    pub(super) fn bytes(self) -> u64 {
        size_of_val(&*self.0.entries) as u64
    }

    #[inline]
    pub(super) fn leaf(self, place: u32) -> Leaf<'a> {
        // SAFETY: A leaf in the directory lives; it is retired only after the writer replaced it,
        // which `Root::writer` excludes during `'a`.
        unsafe { Leaf::new(self.0.word(place)) }
    }

    /// The leaf at `place` for the place of its own, if a deferred one still stands for it. It is to be
    /// published at once.
    pub(super) fn take_deferred(self, place: u32) -> Option<OwnedLeaf> {
        self.leaf(place).as_deferred().map(Deferred::take)
    }

    /// Puts `leaf` where its depth and `place` say, and gives what was found there first.
    pub(super) fn publish(self, place: u32, leaf: OwnedLeaf) -> Word {
        let covered = self.0.covered(leaf.leaf().depth(), place);
        let old = self.0.word(place);
        let word = leaf.into_word();
        for entry in &self.0.entries[covered] {
            // Release: the leaf's contents come first.
            entry.store(word, Ordering::Release);
        }
        old
    }

    /// Each leaf's word once, with its first place, in order.
    pub(super) fn words(self) -> impl Iterator<Item = (u32, Word)> + 'a {
        let mut last = std::ptr::null_mut();
        let shift = 32 - self.0.depth;
        self.0.entries.iter().enumerate().filter_map(move |(index, entry)| {
            let word = entry.load(Ordering::Relaxed);
            let is_new = word != last;
            last = word;
            is_new.then(|| (((index as u64) << shift) as u32, word))
        })
    }
}
