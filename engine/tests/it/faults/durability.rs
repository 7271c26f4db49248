//! What is durable when, each in its shortest story: the power goes, and nothing stays that was not
//! synced.

use std::time::Duration;

use caskade::Durability;
use caskade_shard::storage::sim::{CrashEffect, Op, Pending, Verdict};

use crate::rig::{Rig, contents, tiny};

const EMFILE: i32 = 24;

fn keep_nothing(_: &Pending<'_>) -> bool {
    false
}

/// An interval store is durable one interval after its last write, without being asked.
#[test]
fn an_interval_makes_durable_what_was_written_before() {
    let every = Duration::from_millis(100);
    let mut rig = Rig::with(tiny(2).durability(Durability::Interval(every)));
    for round in 0..3_u8 {
        for key in 0..10_u8 {
            rig.put([key], [round; 100]);
        }
        rig.db().run_background();
        rig.disk.advance(101);
        rig.db().run_background();
        rig.power_cut(&mut keep_nothing);
        rig.open();
        rig.compare();
    }
}

/// A sync by time that finds no handle is done a little later, though nobody writes any more.
#[test]
fn an_interval_is_not_forgotten_when_its_sync_fails() {
    let every = Duration::from_millis(100);
    let mut rig = Rig::with(tiny(1).durability(Durability::Interval(every)));
    rig.put("key", "value");
    rig.disk.faults().set_rule(|call| {
        if call.op == Op::OpenDir { Verdict::Fail(EMFILE) } else { Verdict::Proceed }
    });
    while rig.db().run_background() {}
    rig.disk.advance(101);
    while rig.db().run_background() {}
    assert_eq!(rig.db().stats().commits, 0, "it failed");
    rig.disk.faults().clear();
    rig.disk.advance(201);
    while rig.db().run_background() {}
    rig.power_cut(&mut keep_nothing);
    rig.open();
    rig.compare();
}

/// A rest marks each log's end. Where there is no segment for the mark, the rest becomes durable all
/// the same.
#[test]
fn a_rest_is_durable_without_its_marks() {
    let mut rig = Rig::with(tiny(2));
    for key in 0..10_u8 {
        rig.put([key], "there before");
    }
    // From now on writes go to new segments, which the shard that is not written to has not.
    rig.kill();
    rig.open();
    rig.put("key", "value");
    rig.disk.faults().set_rule(|call| {
        if call.op == Op::Create { Verdict::Fail(EMFILE) } else { Verdict::Proceed }
    });
    // It hears of the write, counts, and finds nothing new.
    for _ in 0..3 {
        rig.disk.advance(2001);
        while rig.db().run_background() {}
    }
    rig.disk.faults().clear();
    rig.power_cut(&mut keep_nothing);
    rig.open();
    rig.compare();
}

/// The journal is a ring: what it held is in the segments before it is written over.
#[test]
fn durable_writes_outlive_many_turns_of_the_journal() {
    let mut rig = Rig::new();
    for key in 0..100_u8 {
        rig.put_durably([key], [key; 300]);
    }
    assert!(rig.db().stats().journal_commits > 90, "{:?}", rig.db().stats());
    rig.power_cut(&mut keep_nothing);
    rig.open();
    rig.compare();
}

/// What the manifest calls sealed is there whole, though nobody asked for a sync.
#[test]
fn what_is_sealed_is_durable() {
    let mut rig = Rig::new();
    for key in 0..40_u8 {
        rig.put([key], [key; 100]);
    }
    rig.settle_down();
    let sealed = rig.db().stats().total.sealed;
    assert!(sealed > 2, "{sealed} segments");
    rig.power_cut(&mut keep_nothing);
    rig.open();
    let found = contents(rig.db());
    assert!(found.len() as u64 > sealed, "{} keys of {sealed} segments", found.len());
    assert!(found.iter().all(|(key, value)| rig.model[key] == *value));
    assert!((0..found.len() as u8).all(|key| found.contains_key(&vec![key])), "a prefix");
}

/// A recovery that cut a tear off made what it kept durable: the power goes right behind it.
#[test]
fn what_a_recovery_kept_is_durable() {
    let mut cut = 0;
    for calls in 1..30 {
        let mut rig = Rig::new();
        // Written by calls, of which the last one is torn.
        rig.disk.faults().set_allocate_unsupported(true);
        rig.disk.faults().crash_at_call(rig.disk.faults().calls() + calls, CrashEffect::Random);
        for key in 0..10_u8 {
            if rig.db().put(&[key], &[key; 100]).is_err() {
                break;
            }
        }
        rig.kill();
        rig.disk.faults().clear();
        rig.open();
        cut += rig.db().open_report().losses().count();
        let kept = contents(rig.db());
        let is_cut = rig.db().open_report().losses().count() > 0;
        rig.power_cut(&mut keep_nothing);
        rig.open();
        if is_cut {
            assert_eq!(contents(rig.db()), kept, "call {calls}");
        }
    }
    assert!(cut > 0, "no write was torn");
}
