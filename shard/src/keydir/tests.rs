//! The table against a map, with hashes that tell keys apart and hashes that do not.

use std::{collections::HashMap, sync::Arc};

use super::*;

/// A hash of the kind the store uses: every bit depends on every bit of the key.
fn spread(key: u64) -> u32 {
    let mut x = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x >> 32) as u32
}

fn at(place: u64) -> Location {
    Location::new(1 + (place >> 32) as u32, (place & 0xFFFF_FFFF) * 8, 100)
}

#[test]
fn many_entries_are_found_and_absent_ones_are_not() {
    let (mut writer, keydir) = keydir(Arc::new(Reclaim::new()));
    let count = if cfg!(miri) { 2_000 } else { 200_000 };
    for key in 0..count {
        let location = at(key);
        writer.entry(spread(key), |found| found == location).set(location);
    }
    assert_eq!(keydir.len(), count);
    let reclaim = Arc::clone(&keydir.reclaim);
    let guard = reclaim.enter();
    for key in 0..count {
        assert_eq!(keydir.find(&guard, spread(key), |l| l == at(key)), Some(at(key)));
    }
    let mut asked = 0;
    for key in count..2 * count {
        assert_eq!(
            keydir.find(&guard, spread(key), |_| {
                asked += 1;
                false
            }),
            None
        );
    }
    assert!(asked <= 40, "{asked} false matches");
}

#[test]
fn equal_hashes_do_not_split_for_ever() {
    for (hash, count) in [(0, 600), (1, 600), (0x8000_0000, 10_000), (u32::MAX, 600)] {
        let (mut writer, keydir) = keydir(Arc::new(Reclaim::new()));
        let count = if cfg!(miri) { 100 } else { count };
        for key in 0..count {
            writer.insert_unique(hash, at(key));
        }
        let reclaim = Arc::clone(&keydir.reclaim);
        let guard = reclaim.enter();
        for key in (0..count).step_by(97) {
            assert_eq!(keydir.find(&guard, hash, |l| l == at(key)), Some(at(key)));
        }
        assert_eq!(keydir.find(&guard, hash, |_| false), None);
        for key in 0..count {
            let entry = writer.entry(hash, |l| l == at(key));
            assert!(entry.current().is_some());
            entry.remove();
        }
        assert!(keydir.is_empty());
    }
}

#[test]
fn relocation_needs_the_exact_location() {
    let (mut writer, _) = keydir(Arc::new(Reclaim::new()));
    writer.insert_unique(5, at(1));
    assert!(!writer.relocate(5, at(2), at(3)));
    assert!(!writer.relocate(6, at(1), at(3)));
    assert!(writer.relocate(5, at(1), at(3)));
    assert_eq!(writer.find(5, |_| true), Some(at(3)));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let (mut writer, keydir) = keydir(Arc::new(Reclaim::new()));
    let mut model = HashMap::new();
    for key in 0..3000 {
        writer.insert_unique(spread(key), at(key));
        model.insert(at(key), spread(key));
    }
    let snapshot = writer.snapshot();
    for key in 0..3000 {
        writer.entry(spread(key), |l| l == at(key)).remove();
        writer.insert_unique(spread(key + 5000), at(key + 5000));
    }
    assert!(keydir.snapshots.held() > 0);
    let mut entries = Vec::new();
    let mut seen = HashMap::new();
    for index in 0..snapshot.leaves() {
        snapshot.leaf(index, &mut entries);
        seen.extend(entries.iter().map(|&(hash, location)| (location, hash)));
    }
    assert_eq!(seen, model);
    assert_eq!(snapshot.len(), 3000);
    drop(snapshot);
    assert_eq!(keydir.snapshots.held(), 0);
    assert_eq!(keydir.reclaim.collect(), 0);
}
