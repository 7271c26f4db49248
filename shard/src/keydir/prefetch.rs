//! Telling the processor what will be read soon.
#![cfg_attr(
    all(target_arch = "x86_64", not(miri)),
    expect(unsafe_code, reason = "the prefetch instruction takes a raw pointer")
)]

/// Asks for the cache line of `address`. A hint: it never faults, whatever the address.
#[inline]
pub fn prefetch_read<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: A prefetch reads nothing as far as the program can see and ignores addresses that are
    // not mapped; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Asks for `lines` cache lines from `address` on, to be stored to.
#[inline]
pub fn prefetch_to_write<T>(address: *const T, lines: usize) {
    for line in 0..lines {
        let address = address.cast::<u8>().wrapping_add(line * 64);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: A hint, as above; processors that do not know it do nothing.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = address;
    }
}

/// Asks for `lines` cache lines from `address` on.
#[inline]
pub fn prefetch_lines<T>(address: *const T, lines: usize) {
    for line in 0..lines {
        prefetch_read(address.cast::<u8>().wrapping_add(line * 64));
    }
}
