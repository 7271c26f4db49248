//! Memory for small values, reused by the thread that drops them.
//!
//! Most values are looked at and dropped before the same thread reads the next one. Keeping the
//! last one's memory saves the allocator's work, a good part of a whole read.

use std::cell::Cell;
use std::ops::Deref;

/// Longer buffers go back to the allocator.
const SPARE_MAX: usize = 4096;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes of its own.
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// A copy of `bytes`.
    #[inline]
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        // A thread that is ending has none.
        let mut spare = SPARE.try_with(Cell::take).unwrap_or_default();
        spare.clear();
        spare.extend_from_slice(bytes);
        Self(spare)
    }

    /// The bytes, which are the caller's from now on.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if (1..=SPARE_MAX).contains(&self.0.capacity()) {
            let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.0)));
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::copied(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_serves_the_next_copy() {
        let first = Buffer::copied(b"a long first value");
        let at = first.as_ptr();
        let second = Buffer::copied(b"second");
        assert_ne!(second.as_ptr(), at, "two at once are apart");
        drop(first);
        let third = Buffer::copied(b"third");
        assert_eq!((third.as_ptr(), &*third), (at, &b"third"[..]));
        assert_eq!((&*second, &*second.clone()), (&b"second"[..], &b"second"[..]));
    }

    #[test]
    fn an_empty_buffer_takes_no_place() {
        let kept = Buffer::copied(b"some bytes");
        let at = kept.as_ptr();
        drop(kept);
        drop(Buffer::from(Vec::new()));
        assert_eq!(Buffer::copied(b"others").as_ptr(), at);
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        drop(Buffer::from(vec![0; SPARE_MAX + 1]));
        assert_eq!(SPARE.with(Cell::take).capacity(), 0);
    }
}
