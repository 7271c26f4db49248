//! Bugs that seeds found, each as the shortest story that shows it.

use std::path::Path;

use caskade::{Background, Batch, Builder, Db, Durability, RecoveryMode, WriteOptions};
use caskade_shard::storage::sim::{
    Call, Chooser, CrashEffect, Op, Pending, Repeat, SECTOR_BYTES, SimDisk, Verdict,
};

const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

fn builder(disk: &SimDisk, shards: u16) -> Builder {
    Db::builder("/db")
        .storage(disk.storage())
        .background(Background::Manual)
        .shards(shards)
        .segment_bytes_max(4096)
        .segment_bytes_min(512)
        .journal_bytes(8 << 10)
}

fn open(disk: &SimDisk, shards: u16) -> Db {
    builder(disk, shards).open().expect("opens")
}

fn durably() -> WriteOptions {
    WriteOptions::new().durability(Durability::Sync)
}

fn get(db: &Db, key: &[u8]) -> Option<Vec<u8>> {
    db.get(key).expect("gets").map(Vec::from)
}

/// Keys of the shards 0 and 1, by trying them in a copy of the store.
fn keys_by_shard(disk: &SimDisk) -> [Vec<Vec<u8>>; 2] {
    let twin = open(&disk.fork(), 2);
    let mut keys = [Vec::new(), Vec::new()];
    for index in 0..100_u8 {
        let key = vec![b'k', index];
        let version = twin.put(&key, b"").expect("puts");
        keys[(version.to_u64() >> 56) as usize].push(key);
    }
    keys
}

/// A store of two shards with something durable under the first key of each.
fn two_shards(disk: &SimDisk) -> (Db, [Vec<Vec<u8>>; 2]) {
    let db = open(disk, 2);
    let keys = keys_by_shard(disk);
    for keys in &keys {
        db.put_with(&keys[0], b"first", durably()).expect("puts");
    }
    (db, keys)
}

fn keep_nothing(_: &Pending<'_>) -> bool {
    false
}

/// The second shard's files lose what they had not yet.
fn lose_second_shard(pending: &Pending<'_>) -> bool {
    match pending {
        Pending::Sector { file, .. } | Pending::Length { file, .. } => {
            !file.starts_with("/db/shard-001")
        }
        Pending::Entry { .. } => true,
    }
}

fn undo_renames(pending: &Pending<'_>) -> bool {
    !matches!(pending, Pending::Entry { op: Op::Rename, .. })
}

/// A store of two shards of which the second one lost its part of a batch. Answers the first one's keys.
fn broken_batch(disk: &SimDisk) -> Vec<Vec<u8>> {
    let (db, [here, there]) = two_shards(disk);
    let mut batch = Batch::new();
    batch.put(&here[1], b"batch").put(&there[1], b"batch");
    db.write(&batch).expect("writes");
    disk.power_cut_with(&mut lose_second_shard);
    here
}

/// Makes the process die when the nth call of this kind on a path that ends so has had its effect.
fn die_in(disk: &SimDisk, nth: u64, op: Op, end: &'static str) {
    let mut seen = 0;
    disk.faults().set_rule(move |call: &Call| {
        seen += u64::from(call.op == op && call.path.ends_with(end));
        let is_hit = seen == nth && call.op == op && call.path.ends_with(end);
        if is_hit { Verdict::Crash(CrashEffect::Whole) } else { Verdict::Proceed }
    });
}

#[test]
fn a_segment_found_empty_does_not_shadow_the_next_one_of_its_id() {
    let disk = SimDisk::new(1);
    let db = open(&disk, 1);
    db.put(b"key", &[1; 100]).expect("puts");
    db.close().expect("closes");
    let db = open(&disk, 1);
    db.put(b"lost", &[1; 100]).expect("puts");
    // The file stays, and nothing in it.
    disk.power_cut_with(&mut |pending: &Pending<'_>| !matches!(pending, Pending::Sector { .. }));
    drop(db);
    let db = open(&disk, 1);
    // Lives on under the id of the empty one, among garbage: it must be copied from the right place.
    db.put(b"kept", &[1; 100]).expect("puts");
    for round in 2..12 {
        db.put(b"key", &[round; 100]).expect("puts");
    }
    db.compact().expect("compacts what was written under the id of the empty one");
    assert_eq!(get(&db, b"key"), Some(vec![11; 100]));
    assert_eq!(get(&db, b"kept"), Some(vec![1; 100]));
    assert_eq!(db.stats().total.live_bytes, 2 * 128, "20 and 3 or 4 and 100, padded");
}

#[test]
fn a_broken_batch_ends_the_log_before_sealed_segments_too() {
    let disk = SimDisk::new(1);
    let (db, [here, there]) = two_shards(&disk);
    let mut batch = Batch::new();
    batch.put(&here[0], b"batch").put(&there[0], b"batch");
    db.write(&batch).expect("writes");
    // Fills segments of the first shard, and seals them: they are durable, the second shard is not.
    // All of it lives, so that nothing is merged, which would settle the batch.
    for key in &here[1..20] {
        db.put(key, &[1; 100]).expect("puts");
    }
    while db.run_background() {}
    assert!(
        db.stats().total.merges == 0 && db.stats().shards[0].sealed > 2,
        "{:?}",
        db.stats().shards[0]
    );
    disk.power_cut_with(&mut lose_second_shard);
    drop(db);
    // The recovery itself ends at each of its calls, and is begun again.
    for call in 1.. {
        let disk = disk.fork();
        disk.faults().crash_at_call(call, CrashEffect::Whole);
        let crashed = builder(&disk, 2).open().is_err();
        disk.kill();
        disk.faults().clear();
        let check = |disk: &SimDisk| {
            let db = open(disk, 2);
            let is_there =
                [&here[0], &there[0]].map(|key| get(&db, key) == Some(b"batch".to_vec()));
            assert_eq!(is_there[0], is_there[1], "half a batch");
            assert!(!is_there[0], "the other shard lost its part, or this proves nothing");
            for key in &here[1..20] {
                assert_eq!(get(&db, key), None, "a write from behind the cut");
            }
        };
        let twin = disk.fork();
        check(&disk);
        // The next life found nothing to repair; then a power cut undoes what names the last one gave.
        disk.power_cut_with(&mut undo_renames);
        check(&disk);
        // The next life ends well, and the power cut comes in its last steps.
        let calls = {
            let disk = twin.fork();
            open(&disk, 2).close().expect("closes");
            disk.faults().calls()
        };
        for last in (1..=calls).rev().step_by(7) {
            let disk = twin.fork();
            disk.faults().crash_at_call(last, CrashEffect::Whole);
            let _ = builder(&disk, 2).open().and_then(|db| db.close());
            disk.power_cut_with(&mut undo_renames);
            disk.faults().clear();
            check(&disk);
        }
        if !crashed {
            assert!(call > 20, "the recovery repaired nothing");
            break;
        }
    }
}

#[test]
fn horizons_that_a_full_disk_kept_down_rise_together_later() {
    let disk = SimDisk::new(1);
    let (db, [here, there]) = two_shards(&disk);
    for key in here[1..20].iter().chain(&there[1..20]) {
        db.put(key, b"first").expect("puts");
    }
    db.sync().expect("syncs");
    db.compact().expect("compacts");
    let mut batch = Batch::new();
    batch.put(&here[0], b"batch").put(&there[0], b"batch");
    db.write(&batch).expect("writes");
    // Settling begins with the manifest of the first shard, which does not fit now.
    disk.faults().set_rule(|call: &Call| {
        let is_hit = call.op == Op::Create && call.path == Path::new("/db/shard-000/MANIFEST.tmp");
        if is_hit { Verdict::Fail(ENOSPC) } else { Verdict::Proceed }
    });
    db.merge_chosen(|shard, _| shard == 1).expect_err("there is no space to settle");
    disk.faults().clear();
    // The part of the second shard is sealed and moves to a segment that knows of no batches.
    while db.run_background() {}
    for round in 0..30 {
        db.put(&there[1], &[round; 100]).expect("puts");
    }
    while db.run_background() {}
    db.merge_chosen(|shard, _| shard == 1).expect("merges");
    disk.kill();
    drop(db);
    let db = open(&disk, 2);
    for key in [&here[0], &there[0]] {
        assert_eq!(get(&db, key), Some(b"batch".to_vec()), "acknowledged, and only killed");
    }
}

#[test]
fn a_durable_delete_of_what_is_gone_makes_that_durable() {
    let disk = SimDisk::new(1);
    let db = open(&disk, 1);
    db.put_with(b"key", b"value", durably()).expect("puts");
    assert!(db.delete(b"key").expect("deletes"));
    assert!(!db.delete_with(b"key", durably()).expect("deletes"));
    disk.power_cut_with(&mut keep_nothing);
    drop(db);
    assert_eq!(get(&open(&disk, 1), b"key"), None);
}

#[test]
fn a_manifest_that_was_renamed_but_not_synced_is_synced_before_files_go() {
    // Seals, settles and merges: the last one names other files.
    for nth in 1..4 {
        let disk = SimDisk::new(1);
        let db = open(&disk, 1);
        for round in 0..30 {
            db.put(b"key", &[round; 100]).expect("puts");
        }
        db.sync().expect("syncs");
        // The process dies when a manifest has taken the old one's place, before the sync.
        die_in(&disk, nth, Op::Rename, "MANIFEST.tmp");
        let answer = db.compact();
        assert!(answer.is_err() || !disk.is_crashed());
        disk.kill();
        drop(db);
        disk.faults().clear();
        // This life removes what the new manifest does not name, and dies at once.
        let db = open(&disk, 1);
        disk.power_cut_with(&mut undo_renames);
        drop(db);
        assert_eq!(get(&open(&disk, 1), b"key"), Some(vec![29; 100]), "manifest {nth}");
    }
}

#[test]
fn a_manifest_that_was_renamed_but_not_synced_is_synced_before_files_are_cut() {
    let disk = SimDisk::new(1);
    let (db, [here, there]) = two_shards(&disk);
    let mut batch = Batch::new();
    batch.put(&here[1], b"batch").put(&there[1], b"batch");
    db.write(&batch).expect("writes");
    db.put(&here[2], b"behind it").expect("puts");
    disk.kill();
    drop(db);
    // The next life seals what the first shard had, begins no other segment, and dies before the
    // second shard's is durable.
    let db = open(&disk, 2);
    disk.faults().set_rule(|call: &Call| {
        let is_hit = call.op == Op::Sync && call.path.starts_with("/db/shard-001");
        if is_hit { Verdict::Crash(CrashEffect::Nothing) } else { Verdict::Proceed }
    });
    while db.run_background() {}
    assert!(disk.is_crashed(), "the second shard's was not sealed");
    let sealed = db.stats().shards.iter().map(|shard| shard.sealed).collect::<Vec<_>>();
    assert_eq!(sealed, [1, 0]);
    disk.power_cut_with(&mut lose_second_shard);
    disk.faults().clear();
    drop(db);
    // The recovery dies when its manifest has got its name, before the sync.
    die_in(&disk, 1, Op::Rename, "shard-000/MANIFEST.tmp");
    builder(&disk, 2).open().expect_err("the process dies");
    disk.kill();
    disk.faults().clear();
    let db = open(&disk, 2);
    disk.power_cut_with(&mut undo_renames);
    drop(db);
    let db = open(&disk, 2);
    for key in [&here[1], &there[1], &here[2]] {
        assert_eq!(get(&db, key), None);
    }
    assert_eq!(get(&db, &here[0]), Some(b"first".to_vec()));
}

#[test]
fn a_store_file_that_was_renamed_but_not_synced_is_synced_by_the_next_life() {
    let disk = SimDisk::new(1);
    die_in(&disk, 1, Op::Rename, "STORE.tmp");
    builder(&disk, 1).open().expect_err("the process dies");
    assert!(disk.crashed());
    disk.faults().clear();
    let db = open(&disk, 1);
    // Too large for the journal, whose creation would sync the store's directory.
    db.put_with(b"key", &[7; 3000], durably()).expect("puts");
    assert_eq!(db.stats().journal_commits, 0);
    disk.power_cut_with(&mut keep_nothing);
    drop(db);
    assert_eq!(get(&open(&disk, 1), b"key"), Some(vec![7; 3000]));
}

/// Keeps nothing, and finds what another file left on the device where a file was extended.
struct Stale;

impl Chooser for Stale {
    fn keep(&mut self, pending: &Pending<'_>) -> bool {
        !matches!(pending, Pending::Sector { .. })
    }

    fn stale(&mut self, sector: &mut [u8; SECTOR_BYTES]) -> bool {
        sector.fill(0x55);
        true
    }
}

#[test]
fn rubbish_behind_the_last_record_does_not_end_a_log_that_goes_on() {
    let disk = SimDisk::new(1);
    let db = open(&disk, 1);
    // Through the journal, over two segments whose own bytes never reach the disk.
    for round in 0..5 {
        db.put_with(&[round], &[round; 200], durably()).expect("puts");
    }
    assert!(db.stats().journal_commits > 0 && db.stats().total.segments_open > 1);
    disk.power_cut_with(&mut Stale);
    drop(db);
    let db = open(&disk, 1);
    for round in 0..5 {
        assert_eq!(get(&db, &[round]), Some(vec![round; 200]), "{round}");
    }
}

#[test]
fn a_segment_begun_for_a_refused_batch_does_no_harm() {
    let disk = SimDisk::new(1);
    let (db, [here, there]) = two_shards(&disk);
    while db.run_background() {}
    // The batch goes to a new segment here, and finds no space there: nothing of it is kept.
    disk.faults().set_rule(|call: &Call| {
        let is_hit = call.op == Op::Create
            && call.path.starts_with("/db/shard-001")
            && call.path.extension().is_some_and(|end| end == "seg");
        if is_hit { Verdict::Fail(ENOSPC) } else { Verdict::Proceed }
    });
    let large = vec![7; 3000];
    let mut batch = Batch::new();
    batch.put(&here[0], &large).put(&there[0], &large);
    db.write(&batch).expect_err("there is no space");
    disk.faults().clear();
    db.sync().expect("syncs");
    disk.kill();
    drop(db);
    // The first recovery removes the segment without records, the second one does without.
    for _ in 0..2 {
        let db = open(&disk, 2);
        assert_eq!(get(&db, &here[0]), Some(b"first".to_vec()));
        disk.kill();
        drop(db);
    }
}

#[test]
fn a_write_that_failed_does_not_come_back() {
    // What of the write arrives is up to the seed; now and then it is everything.
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        disk.faults().set_allocate_unsupported(true);
        let db = open(&disk, 1);
        db.put(b"key", b"old").expect("puts");
        disk.faults().fail_call(disk.faults().calls() + 1, Repeat::Once, 5);
        let answer = db.put(b"key", b"new");
        disk.faults().clear();
        disk.faults().set_allocate_unsupported(true);
        let expected: &[u8] = if answer.is_ok() { b"new" } else { b"old" };
        assert_eq!(get(&db, b"key").as_deref(), Some(expected));
        disk.kill();
        drop(db);
        assert_eq!(get(&open(&disk, 1), b"key").as_deref(), Some(expected), "seed {seed}");
    }
}

#[test]
fn a_seal_that_fails_half_way_leaves_the_manifest_alone() {
    for steps in 1..4 {
        let disk = SimDisk::new(1);
        let db = open(&disk, 1);
        for key in 0..12 {
            db.put(&[key], &[key; 100]).expect("puts");
        }
        disk.faults().set_rule(move |seen: &Call| {
            let is_hit = seen.op == Op::Entropy;
            if is_hit { Verdict::Fail(5) } else { Verdict::Proceed }
        });
        for _ in 0..steps {
            db.run_background();
        }
        disk.faults().clear();
        assert_eq!(db.stats().total.live_bytes, 12 * 128, "counted once");
        disk.advance(1000);
        while db.run_background() {}
        disk.kill();
        drop(db);
        let db = open(&disk, 1);
        for key in 0..12 {
            assert_eq!(get(&db, &[key]), Some(vec![key; 100]));
        }
    }
}

#[test]
fn a_segment_that_cannot_be_opened_for_a_moment_stays() {
    let disk = SimDisk::new(1);
    let db = open(&disk, 1);
    db.put(b"key", b"value").expect("puts");
    disk.kill();
    drop(db);
    // The process is out of handles for the segment, and for a look at the directory.
    let mut failed = [false; 2];
    disk.faults().set_rule(move |call: &Call| {
        let is_hit = [
            call.op == Op::Open && call.path.extension().is_some_and(|end| end == "seg"),
            failed[0] && call.op == Op::ListDir && call.path == Path::new("/db/shard-000"),
        ];
        for (failed, is_hit) in failed.iter_mut().zip(is_hit) {
            if is_hit && !*failed {
                *failed = true;
                return Verdict::Fail(EMFILE);
            }
        }
        Verdict::Proceed
    });
    let error = builder(&disk, 1).open().expect_err("a segment cannot be read");
    assert!(error.to_string().contains(".seg"), "{error}");
    disk.faults().clear();
    disk.kill();
    assert_eq!(get(&open(&disk, 1), b"key"), Some(b"value".to_vec()));
}

#[test]
fn a_batch_refused_for_want_of_handles_leaves_nothing_in_any_shard() {
    let disk = SimDisk::new(1);
    let db = open(&disk, 3);
    let mut keys: [Vec<Vec<u8>>; 3] = Default::default();
    let twin = open(&disk.fork(), 3);
    for index in 0..100_u8 {
        let version = twin.put(&[b'k', index], b"").expect("puts");
        keys[(version.to_u64() >> 56) as usize].push(vec![b'k', index]);
    }
    for keys in &keys {
        db.put(&keys[0], b"first").expect("puts");
    }
    // The last shard's part fits no segment that is there, and the process is out of handles.
    let mut batch = Batch::new();
    batch.put(&keys[0][1], b"batch").put(&keys[1][1], b"batch").put(&keys[2][1], &[7; 3000]);
    disk.faults().set_rule(|call: &Call| {
        let takes_handle = matches!(call.op, Op::Create | Op::Open | Op::OpenDir | Op::ListDir);
        if takes_handle { Verdict::Fail(EMFILE) } else { Verdict::Proceed }
    });
    db.write(&batch).expect_err("no handle is left");
    disk.faults().clear();
    assert_eq!(db.poisoned(), None);
    for keys in &keys {
        db.put_with(&keys[0], b"second", durably()).expect("puts");
    }
    disk.power_cut_with(&mut keep_nothing);
    drop(db);
    let db = open(&disk, 3);
    for keys in &keys {
        assert_eq!(get(&db, &keys[0]), Some(b"second".to_vec()));
        assert_eq!(get(&db, &keys[1]), None, "of a batch that was refused");
    }
}

/// Flips a bit of the first shard's record with this value.
fn damage(disk: &SimDisk, value: &[u8]) {
    let mut damaged = 0;
    for entry in disk.list("/db/shard-000").expect("lists") {
        let path = Path::new("/db/shard-000").join(&entry.name);
        let bytes = disk.read_file(&path).expect("reads");
        let found = bytes.windows(value.len()).position(|window| window == value);
        if let Some(at) = found.filter(|_| path.extension().is_some_and(|end| end == "seg")) {
            disk.flip_bit(&path, at as u64, 0).expect("flips");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
}

#[test]
fn a_salvage_may_keep_nothing_but_damage_of_a_segment() {
    let disk = SimDisk::new(1);
    let (db, [here, there]) = two_shards(&disk);
    let mut batch = Batch::new();
    batch.put(&here[1], b"batch").put(&there[1], b"batch");
    db.write(&batch).expect("writes");
    for key in &here[2..20] {
        db.put(key, &[1; 100]).expect("puts");
    }
    while db.run_background() {}
    disk.power_cut_with(&mut lose_second_shard);
    drop(db);
    damage(&disk, b"first");
    for life in 0..3 {
        let db = builder(&disk, 2).recovery_mode(RecoveryMode::Salvage).open().expect("salvages");
        assert_eq!(get(&db, &there[0]), Some(b"first".to_vec()), "life {life}");
        assert_eq!(get(&db, &here[1]), None, "life {life}");
        disk.kill();
    }
}

#[test]
fn what_is_set_aside_stays_when_it_cannot_be_opened_for_a_moment() {
    let disk = SimDisk::new(1);
    open(&disk, 1).close().expect("closes");
    assert!(disk.exists("/db/RESERVE"));
    disk.faults().set_rule(|call: &Call| {
        let is_hit = call.op == Op::Open && call.path.ends_with("RESERVE");
        if is_hit { Verdict::Fail(EMFILE) } else { Verdict::Proceed }
    });
    let db = open(&disk, 1);
    disk.faults().clear();
    assert!(disk.exists("/db/RESERVE"));
    db.close().expect("closes");
}

#[test]
fn what_a_salvage_kept_behind_damage_is_there_the_next_time_too() {
    let disk = SimDisk::new(1);
    let (db, [here, there]) = two_shards(&disk);
    db.put(&here[1], b"damaged").expect("puts");
    db.put(&here[2], b"saved").expect("puts");
    let mut batch = Batch::new();
    batch.put(&here[0], b"batch").put(&there[0], b"batch");
    db.write(&batch).expect("writes");
    for key in &here[3..20] {
        db.put(key, &[1; 100]).expect("puts");
    }
    while db.run_background() {}
    assert!(db.stats().total.merges == 0 && db.stats().shards[0].sealed > 2);
    disk.power_cut_with(&mut lose_second_shard);
    drop(db);
    damage(&disk, b"damaged");
    for life in 0..3 {
        let db = builder(&disk, 2).recovery_mode(RecoveryMode::Salvage).open().expect("salvages");
        assert_eq!(get(&db, &here[2]), Some(b"saved".to_vec()), "life {life}");
        assert!(db.open_report().losses().count() > 0, "life {life} does not tell of the damage");
        disk.kill();
    }
    assert!(builder(&disk, 2).open().is_err(), "the damage is still there");
}

#[test]
fn what_an_unfinished_merge_left_is_no_damage_to_a_recovery_that_was_interrupted() {
    let disk = SimDisk::new(1);
    let here = broken_batch(&disk);
    // The outputs of a merge that ran meanwhile have the first ids that are not listed.
    let segment = disk.read_file("/db/shard-000/0000000001.seg").expect("reads");
    disk.write_file("/db/shard-000/0000000017.seg", &segment).expect("writes");
    disk.write_file("/db/shard-000/0000000018.seg", &segment).expect("writes");
    die_in(&disk, 1, Op::Rename, "shard-000/MANIFEST.tmp");
    builder(&disk, 2).open().expect_err("the process dies");
    disk.kill();
    disk.faults().clear();
    let db = open(&disk, 2);
    let losses: Vec<_> =
        db.open_report().losses().filter(|loss| loss.shard == 0).cloned().collect();
    assert!(losses.is_empty(), "{losses:?}");
    assert_eq!(get(&db, &here[0]), Some(b"first".to_vec()));
}

#[test]
fn what_has_to_be_repaired_on_a_full_disk_uses_what_was_set_aside() {
    let disk = SimDisk::new(1);
    let here = broken_batch(&disk);
    disk.faults().set_free_space(Some(0));
    let db = open(&disk, 2);
    assert!(db.open_report().losses().count() > 0, "nothing had to be repaired");
    assert_eq!(get(&db, &here[0]), Some(b"first".to_vec()));
    disk.faults().clear();
    db.put(&here[1], b"room").expect("puts");
    assert!(disk.exists("/db/RESERVE"), "nothing is set aside for the next time");
}
