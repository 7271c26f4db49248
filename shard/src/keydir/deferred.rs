//! Leaves that are made when somebody first looks into them.
//!
//! What an open finds in a snapshot is checked, but left as it lies there: the directory gets deferred
//! leaves. To a lookup, such a leaf is one bucket without an entry and without room; at its end, where a
//! lookup in any other leaf never gets, it makes the leaf, and goes on there. Of two who do so at once, one has
//! worked for nothing. The writer puts the leaf into the directory before it changes anything in it, and
//! all others, one by one, when the background asks for it.
//!
//! # Invariants
//! 1. `made` is null until the leaf is made, and then its word for good.
//! 2. While there is a `source`, the made leaf belongs to the `Deferred`, and nobody changes it. The writer
//!    takes both away, and puts the leaf into the directory at once. From then on the leaf lives at least as
//!    long as anybody can find the `Deferred`: that was unlinked first, so that a reader's guard keeps
//!    both; and both were born in the same generation, so that a snapshot that sees the one sees the other.
#![expect(unsafe_code, reason = "a leaf is published by a pointer, and changes its owner")]

use std::sync::Arc;

use crate::{
    keydir::{
        geometry::{class_for_expected, stored},
        leaf::{Bucket, Header, OwnedLeaf, Word},
        memory::LeafMemory,
    },
    location::Location,
    sync::{AtomicPtr, Mutex, Ordering, lock},
};

/// Where the entries of deferred leaves come from.
pub trait Source: Send + Sync {
    /// The entries of a leaf, as many as were said when it was deferred. The same every time.
    fn entries(&self, leaf: u32) -> Vec<(u32, Location)>;
}

/// A leaf that may not be made yet. It begins as any other.
#[repr(C, align(64))]
pub(super) struct Deferred {
    header: Header,
    _bucket: Bucket,
    /// Until the leaf is taken: a snapshot may hold on to what is left for long.
    source: Mutex<Option<Arc<dyn Source>>>,
    made: AtomicPtr<Header>,
    /// Which of the source's leaves it is.
    index: u32,
    class: u8,
}

impl Deferred {
    /// The leaf `index` of `source`, which has `count` entries.
    pub(super) fn new(
        source: Arc<dyn Source>,
        index: u32,
        count: u32,
        memory: Arc<LeafMemory>,
        depth: u32,
        born: u64,
    ) -> Self {
        let class = class_for_expected(count.into());
        Self {
            header: Header::deferred(memory, count, depth, born),
            _bucket: Bucket::dead(),
            source: Mutex::new(Some(source)),
            made: AtomicPtr::new(std::ptr::null_mut()),
            index,
            class: u8::try_from(class).expect("a class has six bits"),
        }
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// The class of the leaf once it is made.
    pub(super) fn class(&self) -> usize {
        self.class.into()
    }

    /// What the leaf is made of, unless it was taken.
    pub(super) fn source(&self) -> Option<Arc<dyn Source>> {
        lock(&self.source).clone()
    }

    /// The leaf, made now if need be.
    pub(super) fn word(&self) -> Word {
        loop {
            // Acquire: the leaf was filled before its word was stored.
            let found = self.made.load(Ordering::Acquire);
            if !found.is_null() {
                return found;
            }
            // If it was taken in between, it is made.
            if let Some(source) = self.source() {
                return self.make(&*source);
            }
        }
    }

    fn make(&self, source: &dyn Source) -> Word {
        let header = &self.header;
        let leaf = OwnedLeaf::new(header.memory(), self.class(), header.depth(), header.born());
        let entries = source.entries(self.index);
        assert_eq!(entries.len(), header.count() as usize, "a leaf has room for what was promised");
        let entries = entries.into_iter().map(|(hash, location)| (stored(hash), location));
        leaf.leaf().fill(entries, &mut Vec::new());
        let word = leaf.into_word();
        // Release: the leaf was filled before. Acquire: or the other one was.
        let (null, success, failure) = (std::ptr::null_mut(), Ordering::Release, Ordering::Acquire);
        match self.made.compare_exchange(null, word, success, failure) {
            Ok(_) => word,
            Err(first) => {
                // SAFETY: It came from `into_word` above, and nobody else has seen it.
                drop(unsafe { OwnedLeaf::from_word(word) });
                first
            }
        }
    }

    /// The leaf, to be put in the place of this. For the writer alone, which does so at once.
    pub(super) fn take(&self) -> OwnedLeaf {
        let word = self.word();
        let source = lock(&self.source).take();
        assert!(source.is_some(), "a leaf is taken over once");
        // SAFETY: The word came from `into_word`, and it is taken back here alone: `drop` leaves it from
        // now on.
        unsafe { OwnedLeaf::from_word(word) }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let word = self.made.load(Ordering::Acquire);
        if !word.is_null() && self.source().is_some() {
            // SAFETY: The word came from `into_word`, and only `take`, which was not called, takes it back.
            drop(unsafe { OwnedLeaf::from_word(word) });
        }
    }
}
