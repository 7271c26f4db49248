//! When segments are sealed, and what writers feel of it.

use super::{backlog_micros, is_due};
use crate::life::Life;

/// Ends so many segments, and answers the writers' brake.
fn end_segments(life: &mut Life, count: usize) -> u64 {
    for _ in 0..count {
        life.put("k", "v");
        life.shard().lock().unwrap().end_active();
    }
    life.put("k", "v");
    life.shard().brake_micros()
}

/// A load of a new store fills many small segments long before anybody seals them: that is nobody's
/// fault. Only once they wait in vain are writers slowed down, and no longer than that.
#[test]
fn writers_are_braked_for_segments_that_wait_in_vain() {
    let mut life = Life::new();
    assert_eq!((end_segments(&mut life, 63), life.shard().is_sealing_due()), (0, false));
    assert_eq!((end_segments(&mut life, 1), life.shard().is_sealing_due()), (0, true));
    assert_eq!(end_segments(&mut life, 64), 0);
    assert!(end_segments(&mut life, 1) > 0);
    life.shard().seal_ended().unwrap();
    assert_eq!(life.shard().brake_micros(), 0);
    life.prove();
}

/// Few large files are as much to read after a crash as many small ones.
#[test]
fn bytes_count_as_files_do() {
    const MIB: u64 = 1 << 20;
    assert!(!is_due(63, 255 * MIB, 1) && is_due(64, MIB, 1) && is_due(4, 256 * MIB, 1));
    assert!(!is_due(15, 15 * MIB, 16) && is_due(16, MIB, 16) && is_due(1, 16 * MIB, 16));
    assert!(!is_due(15, 0, 256) && is_due(16, 0, 256));
    // Small ones are let wait twice as many as make it due.
    assert_eq!(
        [128, 129, 148, 500].map(|n| backlog_micros(n, n as u64 * MIB, 1)),
        [0, 1_000, 20_000, 20_000]
    );
    // Of large ones no more than make it due in every store.
    assert_eq!([16, 17, 40].map(|n| backlog_micros(n, n as u64 * 64 * MIB, 1)), [0, 1_000, 20_000]);
    assert_eq!([16, 17].map(|n| backlog_micros(n, n as u64 * 64 * MIB, 16)), [0, 1_000]);
}
