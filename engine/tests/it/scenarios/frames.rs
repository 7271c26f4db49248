//! Damage inside segments, torn tails, and what a recovery makes of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use caskade::{Batch, Error, LossKind, RecoveryMode};
use caskade_codec::manifest::Manifest;
use caskade_shard::storage::sim::{
    CrashEffect, Pending, RandomChooser, Repeat, Rng, SimDisk, Verdict,
};

use crate::rig::{HOME, Rig, contents, files, strip_indexes, tiny};

const EIO: i32 = 5;

/// Length of a segment's header, of a frame's, and where the value's length stands in that.
const HEADER: usize = 64;
const VALUE_LEN: usize = 8;

fn newest_segment(rig: &Rig) -> PathBuf {
    let with_data = |path: &PathBuf| rig.disk.read_file(path).is_ok_and(|bytes| bytes.len() > 64);
    rig.files(0, ".seg").into_iter().rfind(with_data).expect("there is a segment")
}

/// Where the frame that holds `needle` begins, if that is a record with a key of `key_len` bytes.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).expect("it is in the file")
}

/// One flipped bit in a length, with good records before and behind.
#[test]
fn a_flipped_length_is_one_error_at_its_offset() {
    let mut rig = Rig::with(tiny(1).segment_bytes_min(4096));
    for key in 0..20_u8 {
        rig.put([key], [key; 76]);
    }
    rig.seal();
    let path = newest_segment(&rig);
    rig.close();
    // All frames have the same length.
    let frame = 104;
    let at = HEADER + 7 * frame;
    for bit in [0, 3, 5, 7] {
        let fork = rig.disk.fork();
        fork.flip_bit(&path, (at + VALUE_LEN) as u64, bit).unwrap();
        let db = rig.builder.clone().storage(fork.storage()).open().expect("hints serve");
        for key in 0..20_u8 {
            match db.get(&[key]) {
                Ok(value) => assert_eq!(value.unwrap(), &[key; 76]),
                Err(Error::Corrupt { offset, .. }) => {
                    assert_eq!((key, offset), (7, at as u64));
                }
                Err(error) => panic!("{error}"),
            }
        }
        let report = db.verify(|_| true).unwrap();
        let places: Vec<u64> = report.damage.iter().map(|damage| damage.offset).collect();
        assert_eq!(places, [at as u64], "bit {bit}");
        assert_eq!(report.records, 19);
        drop(db);
        fork.kill();
        strip_indexes(&fork, HOME);
        let options = rig.builder.clone().storage(fork.storage());
        let error = options.clone().open().expect_err("it is damaged");
        assert!(matches!(error, Error::Corrupt { offset, .. } if offset == at as u64), "{error}");
        let db = options.recovery_mode(RecoveryMode::Salvage).open().expect("salvages");
        let losses: Vec<_> = db.open_report().losses().collect();
        assert_eq!(losses.len(), 1, "{losses:?}");
        assert_eq!((losses[0].offset, losses[0].bytes), (at as u64, frame as u64));
        assert_eq!(contents(&db).len(), 19);
    }
}

/// A value that is a copy of whole segments, and rots at its head: nothing in it is taken for a
/// record.
#[test]
fn frames_inside_a_value_are_never_adopted() {
    let mut rig = Rig::with(tiny(1).segment_bytes_min(4096));
    rig.put("k", "the old value");
    rig.put("ghost", "boo");
    rig.seal();
    let image = rig.disk.read_file(newest_segment(&rig)).unwrap();
    rig.put("k", "new");
    rig.delete("ghost");
    rig.seal();
    // Shifted, so that the inner frames lie on each possible alignment and at their own offsets.
    for shift in 0..16 {
        let value = [&vec![0xff; shift], &image[..]].concat();
        rig.put("container", &value);
        rig.put("exact", &image[28 + HEADER..]);
        rig.seal();
        let path = newest_segment(&rig);
        let model = rig.model.clone();
        let fork = rig.disk.fork();
        fork.flip_bit(&path, HEADER as u64, 1).unwrap();
        strip_indexes(&fork, HOME);
        let options = rig.builder.clone().storage(fork.storage());
        let db = options.recovery_mode(RecoveryMode::Salvage).open().expect("salvages");
        let found = contents(&db);
        assert!(found.iter().all(|(key, _)| key != b"ghost"));
        assert_eq!(found[&b"k"[..]], model[&b"k"[..]]);
        assert_eq!(found[&b"exact"[..]], model[&b"exact"[..]]);
    }
    rig.prove();
}

/// Writes `bytes` into the file behind its last record.
fn soil(disk: &SimDisk, path: &Path, needle: &[u8], bytes: &[u8]) {
    let mut image = disk.read_file(path).unwrap();
    let end = (find(&image, needle) + needle.len()).next_multiple_of(8);
    let len = image.len().max(end + bytes.len());
    image.resize(len, 0);
    image[end..end + bytes.len()].copy_from_slice(bytes);
    disk.write_file(path, &image).unwrap();
}

/// How often the manifest was replaced.
fn generation(rig: &Rig) -> u64 {
    let bytes = rig.disk.read_file(Rig::shard_dir(0).join("MANIFEST")).unwrap();
    Manifest::decode(&bytes).unwrap().0.generation
}

/// A tear; a new life puts and syncs; the power fails: the new put is there.
#[test]
fn what_is_written_after_a_tear_survives() {
    let tails: [&[u8]; 4] = [&[0xff; 40], &[1; 300], b"x", &[0, 0, 0, 0, 0, 0, 0, 0, 9]];
    for tail in tails {
        let mut rig = Rig::with(tiny(1).segment_bytes_min(4096));
        rig.put("k", "a value of some length");
        let path = newest_segment(&rig);
        rig.kill();
        soil(&rig.disk, &path, b"a value of some length", tail);
        let len = rig.disk.read_file(&path).unwrap().len() as u64;
        let before = generation(&rig);
        rig.open();
        let losses: Vec<_> = rig.db().open_report().losses().cloned().collect();
        assert_eq!(losses.len(), 1, "{tail:?}");
        assert_eq!(losses[0].kind, LossKind::Tail);
        assert_eq!(losses[0].offset + losses[0].bytes, len, "up to the end of the file");
        assert!(generation(&rig) > before, "the manifest that says so is a newer one");
        rig.compare();
        rig.put_durably("l", "after the tear");
        rig.power_cut(&mut |_: &Pending<'_>| false);
        rig.open();
        assert!(rig.db().open_report().is_clean());
        rig.prove();
        assert!(rig.model.contains_key(&b"l"[..]));
    }
}

/// The end of the first segment is lost while the head of the second is on the device: no hole.
#[test]
fn a_log_is_never_followed_across_a_hole() {
    for (sectors_kept, aligned) in (0..3).flat_map(|kept| [(kept, false), (kept, true)]) {
        let mut rig = Rig::with(tiny(1).segment_bytes_min(2048));
        rig.put_durably("first", "durable");
        if aligned {
            // Brings a record's end onto each sector's: the torn segment then ends cleanly, and
            // only the numbers tell that something is missing.
            rig.put_durably("first", "durable");
        }
        for key in 0..40_u8 {
            rig.put([key], [key; 100]);
        }
        let segments = rig.files(0, ".seg");
        assert!(segments.len() > 2);
        let torn = segments[0].clone();
        rig.power_cut(&mut move |pending: &Pending<'_>| match pending {
            Pending::Sector { file, index } => *file != torn || *index <= sectors_kept,
            _ => true,
        });
        rig.open();
        assert!(segments[1..].iter().all(|path| !rig.disk.exists(path)), "it was cut off");
        let found = contents(rig.db());
        let count = found.len() as u8 - 1;
        assert!(count < 20, "what lay behind the hole is gone: {count}");
        assert!((0..count).all(|key| found[&vec![key]] == [key; 100]));
        assert_eq!(found[&b"first"[..]], b"durable");
        rig.model = found;
        rig.put_durably("next", "goes on");
        rig.power_cut(&mut |_: &Pending<'_>| false);
        rig.open();
        rig.prove();
    }
}

/// Names and lengths of all files of the store.
fn lengths(disk: &SimDisk) -> BTreeSet<(PathBuf, usize)> {
    let mut all = BTreeSet::new();
    for dir in [PathBuf::from(HOME), Rig::shard_dir(0)] {
        for path in files(disk, &dir, "") {
            if let Ok(bytes) = disk.read_file(&path)
                && !path.ends_with("LOCK")
            {
                all.insert((path, bytes.len()));
            }
        }
    }
    all
}

/// A read error is no reason to cut anything off.
#[test]
fn an_error_while_opening_cuts_nothing_off() {
    for (strip, repeat, in_journal) in [
        (false, Repeat::ForGood, true),
        (true, Repeat::ForGood, true),
        (false, Repeat::Once, true),
        (false, Repeat::Once, false),
    ] {
        let mut rig = Rig::new();
        for key in 0..10_u8 {
            rig.put([key], [key; 100]);
        }
        rig.seal();
        for key in 0..10_u8 {
            if in_journal {
                rig.put_durably([key + 20], [key; 100]);
            } else {
                rig.put([key + 20], [key; 100]);
            }
        }
        rig.kill();
        if strip {
            strip_indexes(&rig.disk, HOME);
        }
        let before = lengths(&rig.disk);
        let mut failed = 0;
        for call in 1.. {
            let disk = rig.disk.fork();
            disk.faults().clear();
            disk.faults().fail_call(call, repeat, EIO);
            let opened = rig.builder.clone().storage(disk.storage()).open();
            let is_over = disk.faults().calls() < call;
            failed += u32::from(opened.is_err());
            disk.kill();
            drop(opened);
            for (path, len) in &before {
                let is_segment = path.extension().is_some_and(|extension| extension == "seg");
                let now = disk.read_file(path).map(|bytes| bytes.len()).unwrap_or_default();
                // Segments listed ahead, without a record, may go.
                assert!(
                    !is_segment || now == *len || *len == HEADER || is_unused(&disk, path),
                    "{path:?}"
                );
            }
            disk.faults().clear();
            let db = rig.builder.clone().storage(disk.storage()).open().expect("opens");
            crate::rig::compare(&db, &rig.model, &rig.keys);
            if is_over {
                break;
            }
        }
        assert!(failed > 10, "only {failed} opens failed");
    }
}

fn is_unused(disk: &SimDisk, path: &Path) -> bool {
    disk.read_file(path).is_err()
}

/// On a file system that cannot allocate, records are written by system call; one write comes short.
#[test]
fn a_short_write_leaves_nothing_behind() {
    for failing in 0..6_u32 {
        let mut rig = Rig::with(tiny(1).segment_bytes_min(4096));
        rig.disk.faults().set_allocate_unsupported(true);
        rig.put("first", "one");
        let mut writes = 0;
        rig.disk.faults().set_rule(move |call| {
            let is_segment = call.path.extension().is_some_and(|extension| extension == "seg");
            let is_write = call.op == caskade_shard::storage::sim::Op::Write && is_segment;
            writes += u32::from(is_write);
            if is_write && writes == failing + 1 { Verdict::Fail(EIO) } else { Verdict::Proceed }
        });
        let mut failures = 0;
        for key in 0..6_u8 {
            // Long and short ones in turn, so that the next record is shorter than the failed one.
            let value = vec![key; if key % 2 == 0 { 200 } else { 8 }];
            if rig.db().put(&[key], &value).is_ok() {
                rig.note(&[key], Some(&value));
            } else {
                rig.note(&[key], None);
                failures += 1;
            }
        }
        assert_eq!(failures, 1);
        rig.compare();
        rig.kill();
        rig.disk.faults().clear();
        rig.open();
        rig.prove();
    }
}

/// A batch of some sectors, cut at every byte, or with any sector missing.
#[test]
fn a_batch_is_whole_or_not_there() {
    let mut rig = Rig::with(tiny(1).segment_bytes_min(4096));
    rig.put("before", "there");
    let without = rig.model.clone();
    let mut batch = Batch::new();
    for key in 0..12_u8 {
        batch.put(&[key], &[0xa0 | key; 90]);
    }
    batch.delete(b"before");
    rig.db().write(&batch).unwrap();
    let with = contents(rig.db());
    let path = newest_segment(&rig);
    rig.kill();
    let image = rig.disk.read_file(&path).unwrap();
    let start = (find(&image, b"beforethere") + 11).next_multiple_of(8);
    let end = image.iter().rposition(|byte| *byte != 0).expect("it is not empty") + 1;
    assert!(end - start > 1024);
    let outcome = |bytes: &[u8]| {
        let disk = rig.disk.fork();
        disk.write_file(&path, bytes).unwrap();
        let db = rig.builder.clone().storage(disk.storage()).open().expect("opens");
        contents(&db)
    };
    assert_eq!(outcome(&image), with);
    for cut in start..end {
        let mut zeroed = image.clone();
        zeroed[cut..].fill(0);
        // The last bytes may be zeros of their own, or padding.
        let expected = if zeroed == image { &with } else { &without };
        assert_eq!(&outcome(&zeroed), expected, "zeros from {cut}");
        if cut % 8 == 0 {
            assert_eq!(outcome(&image[..cut]), without, "cut at {cut}");
        }
    }
    for sector in start / 512..end.div_ceil(512) {
        let mut holed = image.clone();
        let range = (sector * 512).max(start)..((sector + 1) * 512).min(end);
        holed[range].fill(0);
        assert_eq!(outcome(&holed), without, "sector {sector}");
    }
}

/// Keys of each shard of a store of two.
fn keys_by_shard(rig: &Rig) -> [Vec<u8>; 2] {
    let shard_of = |key: u8| {
        let version = rig.db().put(&[key], b"old").expect("puts");
        version.to_string().starts_with('1')
    };
    let first = (0..100).find(|key| !shard_of(*key)).expect("half of all keys");
    let second = (0..100).find(|key| shard_of(*key)).expect("half of all keys");
    [vec![first], vec![second]]
}

/// A batch over two shards, of which one part or the other is lost in a power cut.
#[test]
fn a_batch_that_lost_a_part_leaves_nothing_in_the_other_shard() {
    for lost in ["shard-000", "shard-001"] {
        let mut rig = Rig::with(tiny(2));
        let [a, b] = keys_by_shard(&rig);
        rig.db().sync().unwrap();
        rig.model = contents(rig.db());
        rig.keys = rig.model.keys().cloned().collect();
        let mut batch = Batch::new();
        batch.put(&a, b"new").put(&b, b"new");
        rig.db().write(&batch).unwrap();
        rig.power_cut(&mut |pending: &Pending<'_>| match pending {
            Pending::Sector { file, .. } => !file.starts_with(Path::new(HOME).join(lost)),
            _ => true,
        });
        let strict = rig.try_open(|options| options.recovery_mode(RecoveryMode::Strict));
        assert!(matches!(strict, Err(Error::Damaged { .. })), "{:?}", strict.err());
        rig.open();
        rig.compare();
        let kinds: Vec<_> = rig.db().open_report().losses().map(|loss| loss.kind).collect();
        assert!(kinds.contains(&LossKind::Batch), "{kinds:?}");
        rig.prove();
        rig.db().compact().unwrap();
        rig.prove();
    }
}

/// What lies behind a broken batch is lost with it: in open segments, and in sealed ones that are read
/// by their hints or record by record.
#[test]
fn a_broken_batch_takes_with_it_what_lies_behind() {
    for (seals, hints) in [(false, false), (true, true), (true, false)] {
        let mut rig = Rig::with(tiny(2));
        let [a, b] = keys_by_shard(&rig);
        rig.db().sync().unwrap();
        let mut batch = Batch::new();
        batch.put(&a, b"new").put(&b, b"new");
        rig.db().write(&batch).unwrap();
        // Nothing is merged, which would settle the batch, and the other shard has nothing to seal.
        let behind = fill(&rig, 0);
        if seals {
            rig.settle_down();
        }
        let stats = rig.db().stats();
        assert_eq!((stats.shards[0].sealed > 2, stats.total.merges), (seals, 0));
        rig.power_cut(&mut |pending: &Pending<'_>| match pending {
            Pending::Sector { file, .. } => !file.starts_with(Path::new(HOME).join("shard-001")),
            _ => true,
        });
        if !hints {
            strip_indexes(&rig.disk, HOME);
        }
        // Records end in bytes that are not zero, and fill up to eight bytes.
        let ends: Vec<(PathBuf, u64)> = rig
            .files(0, ".seg")
            .into_iter()
            .filter_map(|path| {
                let bytes = rig.disk.read_file(&path).ok()?;
                let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
                Some((path, end.next_multiple_of(8).max(HEADER) as u64))
            })
            .collect();
        rig.open();
        let losses: Vec<_> = rig.db().open_report().losses().cloned().collect();
        let loss = losses.iter().find(|loss| loss.kind == LossKind::Batch).expect("a batch");
        assert_eq!(loss.shard, 0);
        let cut = Rig::shard_dir(0).join(format!("{:010}.seg", loss.segment));
        let lost = |(path, end): &(PathBuf, u64)| match path.cmp(&cut) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => end - loss.offset,
            std::cmp::Ordering::Greater => end - HEADER as u64,
        };
        assert_eq!(loss.bytes, ends.iter().map(lost).sum::<u64>(), "sealed: {seals}");
        assert!(loss.bytes > 2000 && loss.offset > HEADER as u64);
        assert_eq!(rig.disk.read_file(&cut).unwrap().len() as u64, loss.offset);
        for key in &behind {
            assert_eq!(rig.db().get(key).unwrap(), None, "a write from behind the cut");
        }
        rig.model = contents(rig.db());
        rig.keys = rig.model.keys().cloned().collect();
        rig.prove();
    }
}

/// After a kill nobody knows any more which shards share a batch. One that is settled takes the others
/// with it, or a power cut leaves half of the batch. One shard's part may be in a sealed segment.
#[test]
fn a_recovered_batch_is_settled_in_all_shards() {
    for (shard, seals) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut rig = Rig::with(tiny(2));
        let keys = keys_by_shard(&rig);
        rig.db().sync().unwrap();
        let mut batch = Batch::new();
        batch.put(&keys[0], b"new").put(&keys[1], b"new");
        rig.db().write(&batch).unwrap();
        if seals {
            fill(&rig, shard);
            rig.settle_down();
            let sealed = rig.db().stats().shards.iter().map(|it| it.sealed > 2).collect::<Vec<_>>();
            assert_eq!(sealed, [shard == 0, shard == 1]);
        }
        rig.restart();
        assert!(rig.db().open_report().shards.iter().map(|report| report.shard).eq([0, 1]));
        rig.model = contents(rig.db());
        rig.keys = rig.model.keys().cloned().collect();
        rig.settle_down();
        rig.db().merge_chosen(|at, _| at == shard).expect("merges");
        rig.power_cut(&mut |_: &Pending<'_>| false);
        rig.open();
        rig.prove();
    }
}

/// Writes to one shard and no other. All of it lives, so that nothing is merged. Answers the keys.
fn fill(rig: &Rig, shard: u16) -> Vec<[u8; 4]> {
    let twin = rig.builder.clone().storage(rig.disk.fork().storage()).open().expect("opens");
    let is_there = |key: &[u8; 4]| {
        let version = twin.put(key, b"").expect("puts").to_string();
        version.starts_with(&shard.to_string())
    };
    let keys: Vec<_> = (0..60_u32).map(u32::to_le_bytes).filter(is_there).collect();
    for key in &keys {
        rig.db().put(key, &[7; 100]).unwrap();
    }
    keys
}

/// A batch once resolved stays, though one part was rewritten and the other was not.
#[test]
fn a_resolved_batch_never_rolls_back() {
    for (rewrite, durably) in [(0, true), (1, true), (0, false), (1, false)] {
        let mut rig = Rig::with(tiny(2));
        let keys = keys_by_shard(&rig);
        rig.model = contents(rig.db());
        rig.keys = rig.model.keys().cloned().collect();
        let mut batch = Batch::new();
        batch.put(&keys[0], b"new").put(&keys[1], b"new");
        rig.db().write(&batch).unwrap();
        for key in &keys {
            rig.note(key, Some(b"new"));
        }
        if durably {
            rig.db().sync().unwrap();
        }
        // Overwriting and merging again and again removes every trace of the batch in one shard.
        for round in 0..8_u8 {
            rig.put(&keys[rewrite], [round; 300]);
            rig.settle_down();
        }
        rig.restart();
        rig.compare();
        rig.db().compact().unwrap();
        rig.compare();
        // What is left of the batch was made durable by the merge.
        rig.power_cut(&mut |_: &Pending<'_>| false);
        rig.open();
        rig.prove();
    }
}

/// A power cut, and another in each call of the recovery: the same as one recovery.
#[test]
fn a_crash_in_a_recovery_changes_nothing() {
    for seed in 0..6_u64 {
        let mut rig = Rig::with(tiny(2));
        let mut rng = Rng::new(seed);
        for key in 0..20_u8 {
            rig.put([key], [key; 60]);
            if key % 5 == 0 {
                rig.write(&[("one", "batch"), ("two", "batch"), ("three", "batch")]);
            }
            if key == 7 {
                rig.put_durably("durable", "durable");
            }
        }
        rig.power_cut(&mut RandomChooser::new(&mut rng));
        let recover = |disk: &SimDisk| {
            disk.faults().clear();
            let db = rig.builder.clone().storage(disk.storage()).open().expect("opens");
            contents(&db)
        };
        let expected = recover(&rig.disk.fork());
        assert_eq!(expected[&b"durable"[..]], b"durable");
        for call in 1.. {
            let disk = rig.disk.fork();
            disk.faults().clear();
            disk.faults().crash_at_call(call, CrashEffect::Random);
            let opened = rig.builder.clone().storage(disk.storage()).open();
            let is_over = !disk.crashed();
            disk.power_cut(&mut rng);
            drop(opened);
            assert_eq!(recover(&disk), expected, "seed {seed}, call {call}");
            if is_over {
                break;
            }
        }
    }
}
