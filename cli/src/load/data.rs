//! Keys and values that are made from a number, so that every read can be checked.

/// Length of a key.
pub(crate) const KEY_LEN: usize = 16;
/// Length of a value.
pub(crate) const VALUE_LEN: usize = 100;

/// A key: `record:000000042`.
pub(crate) fn key(prefix: [u8; 7], index: u64) -> [u8; KEY_LEN] {
    let mut key = *b"record:000000000";
    key[..7].copy_from_slice(&prefix);
    let mut rest = index;
    for digit in key[7..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// A key that is stored.
pub(crate) fn present(index: u64) -> [u8; KEY_LEN] {
    key(*b"record:", index)
}

/// A key that is not.
pub(crate) fn absent(index: u64) -> [u8; KEY_LEN] {
    key(*b"absent:", index)
}

/// The value of a key after its `version`th write: bytes that do not compress.
pub(crate) fn value(index: u64, version: u64) -> [u8; VALUE_LEN] {
    let mut value = [0; VALUE_LEN];
    let mut state =
        index.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ version.wrapping_mul(0xD1B5_4A32_D192_ED03);
    for chunk in value.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        let bytes = (z ^ z >> 31).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    value
}

/// Every number below `n` once, in an order that looks like chance.
pub(crate) fn shuffled(i: u64, n: u64, round: u64) -> u64 {
    // The prime is larger than any n here, so it has no divisor in common with it.
    (i * 2_654_435_761 + round * 7_919) % n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_hits_every_number_once() {
        for n in [1_000, 4_096, 99_999] {
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                assert!(!std::mem::replace(&mut seen[shuffled(i, n, 3) as usize], true));
            }
        }
    }

    #[test]
    fn values_tell_versions_and_keys_apart() {
        assert_eq!(value(1, 1), value(1, 1));
        assert_ne!(value(1, 1), value(1, 2));
        assert_ne!(value(1, 1), value(2, 1));
        assert_eq!(&present(42), b"record:000000042");
    }
}
