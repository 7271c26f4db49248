//! Memory from the system, apart from any allocator.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
};

use memmap2::{MmapMut, MmapRaw};

/// Bytes of a large page, where processors have small ones of 4 KB.
pub(crate) const LARGE_PAGE: usize = 2 << 20;

/// Memory that is zero until it is written to. It does not move.
pub(crate) struct Pages {
    map: MmapRaw,
    /// Where in the map it begins.
    begin: usize,
    len: usize,
    are_large: bool,
}

impl Pages {
    /// Takes `len` bytes. `are_large` says whether they are worth large pages, which the system gives
    /// if it has any, and begins where one can begin; otherwise memory is taken as it is touched, a small
    /// page at a time, and the system is told to leave it at that.
    pub(crate) fn map(len: usize, are_large: bool) -> io::Result<Self> {
        let mut map = MmapRaw::from(MmapMut::map_anon(len)?);
        let mut begin = 0;
        // Newer systems begin a map of this size where a large page can, and place maps side by side:
        // one that is longer is rarely needed.
        if are_large && !map.as_ptr().addr().is_multiple_of(LARGE_PAGE) {
            drop(map);
            map = MmapRaw::from(MmapMut::map_anon(len + LARGE_PAGE)?);
            let address = map.as_ptr().addr();
            begin = address.next_multiple_of(LARGE_PAGE) - address;
        }
        let pages = Self { map, begin, len, are_large };
        pages.advise();
        Ok(pages)
    }

    /// The first byte.
    pub(crate) fn as_mut_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.begin)
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether they were said to be worth large pages.
    pub(crate) fn are_large(&self) -> bool {
        self.are_large
    }

    /// Whatever the system answers, the memory serves.
    fn advise(&self) {
        #[cfg(not(miri))]
        {
            use memmap2::Advice::{HugePage, NoHugePage};
            let advice = if self.are_large { HugePage } else { NoHugePage };
            let _ = self.map.advise_range(advice, self.begin, self.len);
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Bytes that are wanted for a while, in memory that goes back to the system with them. An allocator
/// might keep it.
pub(crate) struct Buffer {
    map: MmapMut,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(len.max(1))?;
        #[cfg(not(miri))]
        {
            // For as much of it as fills large pages.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map, len })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.map[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_large_pages_begins_where_one_can() {
        let all: Vec<_> = (1..9)
            .map(|number| Pages::map(number % 3 * LARGE_PAGE + 4096, number % 2 == 0).unwrap())
            .collect();
        for pages in &all {
            assert!(!pages.are_large || pages.as_mut_ptr().addr().is_multiple_of(LARGE_PAGE));
            assert!(pages.begin + pages.len() <= pages.map.len());
        }
    }

    #[test]
    fn a_buffer_has_as_many_zeros_as_were_asked_for() {
        for len in [0, 1, 5000, LARGE_PAGE, LARGE_PAGE + 1] {
            let mut buffer = Buffer::zeroed(len).unwrap();
            assert_eq!((buffer.len(), buffer.iter().all(|&byte| byte == 0)), (len, true));
            buffer.fill(7);
        }
        for len in [usize::MAX, usize::MAX - LARGE_PAGE, isize::MAX as usize] {
            assert!(Buffer::zeroed(len).is_err());
        }
    }

    /// What the system says of the mapping at this address.
    #[cfg(not(miri))]
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_here = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let number = |digits| usize::from_str_radix(digits, 16).ok();
            if let Some((begin, end)) = range.and_then(|(a, b)| Some((number(a)?, number(b)?))) {
                is_here = (begin..end).contains(&address);
            } else if is_here && let Some(flags) = line.strip_prefix("VmFlags:") {
                return format!("{flags} ");
            }
        }
        panic!("no mapping there");
    }

    #[test]
    #[cfg(not(miri))]
    fn large_pages_are_asked_for_or_refused() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            eprintln!("skipped: this system has no large pages");
            return;
        }
        for are_large in [true, false] {
            let pages = Pages::map(2 * LARGE_PAGE, are_large).unwrap();
            for address in [pages.as_mut_ptr().addr(), pages.as_mut_ptr().addr() + pages.len() - 1]
            {
                let flags = flags(address);
                assert_eq!(
                    (flags.contains(" hg "), flags.contains(" nh ")),
                    (are_large, !are_large)
                );
            }
        }
    }
}
