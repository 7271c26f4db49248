//! Bits that flip, files that are cut, files that are gone.

use std::path::{Path, PathBuf};

use caskade::{Error, LossKind, RecoveryMode, ScanCursor};
use caskade_codec::manifest::{Manifest, State};
use caskade_codec::record::Frame;
use caskade_codec::segment::{Header, Scanner};
use caskade_shard::storage::sim::{CrashEffect, Op, Verdict};

use crate::rig::{HOME, Rig, compare, contents, strip_indexes, tiny};

const HEADER: u64 = 64;

/// A closed store with one sealed segment of twelve records of equal length.
fn sealed(indexes: bool) -> (Rig, PathBuf, u64) {
    let mut rig = Rig::with(tiny(1).segment_bytes_min(4096).snapshot_on_close(false));
    for key in 0..12_u8 {
        rig.put([key], [key ^ 0x55; 35]);
    }
    rig.close();
    if !indexes {
        strip_indexes(&rig.disk, HOME);
    }
    let path = rig.files(0, ".seg").pop().expect("a segment");
    // 20 bytes of header, a key of 1, a value of 35.
    (rig, path, 56)
}

/// Each byte of each record: its key is corrupt, the others are readable, verify says where.
#[test]
fn a_flipped_bit_in_a_sealed_segment_is_told_by_key_and_place() {
    let (rig, path, frame) = sealed(true);
    let len = rig.disk.read_file(&path).unwrap().len() as u64;
    assert_eq!(len, HEADER + 12 * frame);
    for at in HEADER..len {
        let disk = rig.disk.fork();
        disk.flip_bit(&path, at, (at % 8) as u32).unwrap();
        let db = rig.builder.clone().storage(disk.storage()).open().expect("the hint serves");
        let damaged = (at - HEADER) / frame;
        for key in 0..12_u8 {
            match db.get(&[key]) {
                Ok(value) => {
                    assert_ne!(u64::from(key), damaged, "byte {at}");
                    assert_eq!(value.expect("it is there"), &[key ^ 0x55; 35]);
                }
                Err(Error::Corrupt { shard, segment, offset, .. }) => {
                    assert_eq!((shard.0, segment.0), (0, 1));
                    assert_eq!((u64::from(key), offset), (damaged, HEADER + damaged * frame));
                }
                Err(error) => panic!("{error}"),
            }
        }
        let places: Vec<_> = db
            .verify(|_| true)
            .unwrap()
            .damage
            .into_iter()
            .map(|d| (d.shard, d.segment, d.offset))
            .collect();
        assert_eq!(places, [(0, 1, HEADER + damaged * frame)], "byte {at}");
    }
}

/// A scan ends at damage, and can go on behind it at every page size.
#[test]
fn a_scan_can_go_on_behind_damage() {
    let (rig, path, frame) = sealed(true);
    for key in [0, 5, 6, 11] {
        rig.disk.flip_bit(&path, HEADER + key * frame + 30, 2).unwrap();
    }
    let db = rig.try_open(|options| options).expect("the hint serves");
    let error = db.scan(ScanCursor::start(), 100).expect_err("damaged");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    for count in [1, 2, 3, 100] {
        let (mut keys, mut places) = (Vec::new(), Vec::new());
        let mut cursor = Some(ScanCursor::start());
        while let Some(at) = cursor {
            let page = db.scan_past_damage(at, count, |error| {
                let Error::Corrupt { offset, .. } = error else { panic!("{error}") };
                places.push((offset - HEADER) / frame);
            });
            let page = page.unwrap();
            keys.extend(page.entries.into_iter().map(|entry| entry.key[0]));
            cursor = page.next;
        }
        keys.sort_unstable();
        places.sort_unstable();
        assert_eq!((&keys[..], &places[..]), (&[1, 2, 3, 4, 7, 8, 9, 10][..], &[0, 5, 6, 11][..]));
    }
}

/// The three ways to open it when there is no index.
#[test]
fn damage_below_a_durable_point_needs_salvage() {
    let (rig, path, frame) = sealed(false);
    let places = [2, 5, 6, 11];
    for place in places {
        rig.disk.flip_bit(&path, HEADER + place * frame + 30, 2).unwrap();
    }
    let before = rig.disk.read_file(&path).unwrap();
    for mode in [RecoveryMode::Default, RecoveryMode::Strict] {
        let error = rig.try_open(|options| options.recovery_mode(mode)).expect_err("damaged");
        assert!(matches!(error, Error::Corrupt { offset, .. } if offset == HEADER + 2 * frame));
        assert_eq!(rig.disk.read_file(&path).unwrap(), before, "nothing is touched");
    }
    let db = rig.try_open(|options| options.recovery_mode(RecoveryMode::Salvage)).unwrap();
    let losses: Vec<_> = db.open_report().losses().cloned().collect();
    assert!(losses.iter().all(|loss| loss.kind == LossKind::Corruption));
    let spans: Vec<_> = losses.iter().map(|loss| (loss.offset, loss.bytes)).collect();
    let expected =
        [(2, 1), (5, 2), (11, 1)].map(|(first, count)| (HEADER + first * frame, count * frame));
    assert_eq!(spans, expected);
    let found = contents(&db);
    assert_eq!(found.len(), 12 - places.len());
    let mut model = rig.model.clone();
    model.retain(|key, _| !places.contains(&u64::from(key[0])));
    assert_eq!(found, model);
    assert_eq!(db.verify(|_| true).unwrap().damage.len(), 3);
    db.put(b"new", b"works").unwrap();
    drop(db);
    assert_eq!(rig.disk.read_file(&path).unwrap(), before, "salvage keeps the damaged segment");
}

/// A store that comes to rest notes in its log what was durable. If it dies before the manifest says
/// so too, damage below is still told from a torn tail.
#[test]
fn damage_below_what_the_log_vouches_for_is_no_torn_tail() {
    let mut rig = Rig::with(tiny(1).segment_bytes_max(16 << 10).segment_bytes_min(16 << 10));
    // Too large for the journal, which would mend it.
    rig.put("damaged", [1; 2000]);
    rig.db().sync().unwrap();
    rig.put("later", [2; 100]);
    rig.disk.faults().set_rule(|call| {
        let is_manifest = call.op == Op::Create && call.path.ends_with("MANIFEST.tmp");
        if is_manifest { Verdict::Crash(CrashEffect::Nothing) } else { Verdict::Proceed }
    });
    for _ in 0..3 {
        rig.db().run_background();
        rig.disk.advance(2001);
    }
    assert!(rig.disk.crashed(), "it came to rest");
    rig.kill();
    rig.disk.faults().clear();
    let path = rig.files(0, ".seg").remove(0);
    rig.disk.flip_bit(&path, HEADER + 100, 0).unwrap();
    let error = rig.try_open(|options| options).expect_err("what was durable is damaged");
    assert!(matches!(error, Error::Corrupt { offset: HEADER, .. }), "{error}");
    let db = rig.try_open(|options| options.recovery_mode(RecoveryMode::Salvage)).unwrap();
    assert!(db.open_report().losses().any(|loss| loss.kind == LossKind::Corruption));
}

/// The log ends at the first bad place: whole segments behind it are lost with the rest, their bytes are
/// counted, and their versions are not given out again.
#[test]
fn a_break_takes_the_segments_behind_it_along() {
    let mut rig = Rig::new();
    let put = |key: u8| rig.db().put(&[key], &[key; 100]).unwrap();
    let last = (0..40).fold(put(40), |_, key| put(key));
    rig.kill();
    let files = rig.files(0, ".seg");
    rig.disk.flip_bit(&files[1], HEADER + 30, 0).unwrap();
    let bytes = files[1..].iter().map(|path| rig.disk.read_file(path).unwrap());
    // Records end in bytes that are not zero, and fill up to eight bytes.
    let ends: Vec<u64> = bytes
        .map(|bytes| bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1)
        .map(|end| end.next_multiple_of(8).max(HEADER))
        .collect();
    let behind: u64 = ends[1..].iter().map(|end| end - HEADER).sum();
    assert!(behind > 500, "{ends:?}");
    let cut = rig.disk.read_file(&files[1]).unwrap().len() as u64 - HEADER;
    rig.open();
    let losses: Vec<_> = rig.db().open_report().losses().cloned().collect();
    let [loss] = &losses[..] else { panic!("{losses:?}") };
    assert_eq!((loss.kind, loss.offset, loss.bytes), (LossKind::Tail, HEADER, cut + behind));
    rig.model = contents(rig.db());
    assert!(!rig.model.is_empty() && rig.model.len() < 20);
    assert!(rig.db().put(b"new", b"after").unwrap() > last);
    rig.note(b"new", Some(b"after"));
    rig.prove();
}

/// A sealed segment that was cut off.
#[test]
fn a_shortened_segment_is_damage() {
    let (rig, path, frame) = sealed(true);
    let bytes = rig.disk.read_file(&path).unwrap();
    for len in [0, 10, HEADER, HEADER + 3 * frame, HEADER + 3 * frame + 8, bytes.len() as u64 - 1] {
        let disk = rig.disk.fork();
        disk.write_file(&path, &bytes[..len as usize]).unwrap();
        let options = rig.builder.clone().storage(disk.storage());
        let error = options.clone().open().expect_err("it is shorter");
        assert!(matches!(error, Error::Corrupt { .. }), "{len}: {error}");
        let db = options.recovery_mode(RecoveryMode::Salvage).open().expect("salvages");
        let lost: Vec<_> =
            db.open_report().losses().map(|loss| (loss.offset, loss.bytes)).collect();
        assert_eq!(lost.last(), Some(&(len, bytes.len() as u64 - len)), "{lost:?}");
        let kept = len.saturating_sub(HEADER) / frame;
        for key in 0..12_u8 {
            match db.get(&[key]) {
                Ok(Some(value)) => {
                    assert!(u64::from(key) < kept);
                    assert_eq!(value, &[key ^ 0x55; 35]);
                }
                Ok(None) | Err(Error::Corrupt { .. }) => assert!(u64::from(key) >= kept),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// What others report and go on with: an index that is ignored, a copy that is mended, a torn tail.
#[test]
fn a_strict_open_refuses_any_doubt() {
    let (mut rig, path, _) = sealed(true);
    rig.open();
    rig.put("in", "the open segment");
    rig.kill();
    let open = rig.files(0, ".seg").into_iter().rfind(|it| *it != path).expect("one more");
    let (hint, manifest) = (path.with_extension("hint"), Rig::shard_dir(0).join("MANIFEST"));
    for (path, at) in [(None, 0), (Some(hint), 70), (Some(manifest), 70), (Some(open), HEADER + 8)]
    {
        let disk = rig.disk.fork();
        if let Some(path) = &path {
            disk.flip_bit(path, at, 3).unwrap();
        }
        let options = rig.builder.clone().storage(disk.storage());
        let strict = options.clone().recovery_mode(RecoveryMode::Strict).open();
        match (&path, strict) {
            (None, Ok(_)) => continue,
            (Some(_), Err(Error::Damaged { .. })) => {}
            (_, other) => panic!("{path:?}: {other:?}"),
        }
        let db = options.open().expect("opens");
        let report = &db.open_report().shards[0];
        let told = report.ignored.len() + report.mended.len() + report.losses.len();
        assert_eq!(told, 1, "{path:?}: {report:?}");
    }
}

/// A power cut may undo the cut of a file that was sealed: then it is cut again.
#[test]
fn a_sealed_file_gives_back_what_lies_behind_its_end() {
    let (mut rig, path, _) = sealed(true);
    let bytes = rig.disk.read_file(&path).unwrap();
    rig.disk.write_file(&path, &[&bytes[..], &[0; 4096]].concat()).unwrap();
    drop(rig.try_open(|options| options.read_only(true)).expect("opens"));
    assert_eq!(rig.disk.read_file(&path).unwrap().len(), bytes.len() + 4096);
    rig.open();
    rig.compare();
    assert_eq!(rig.disk.read_file(&path).unwrap(), bytes);
}

/// Each record is good, but they are not the ones that were sealed.
#[test]
fn records_that_do_not_add_up_to_what_was_sealed_are_damage() {
    let (rig, path, _) = sealed(false);
    let manifest = Rig::shard_dir(0).join("MANIFEST");
    let (mut changed, _) = Manifest::decode(&rig.disk.read_file(&manifest).unwrap()).unwrap();
    let State::Sealed(sealed) = &mut changed.segments[0].state else { panic!("it is sealed") };
    sealed.digest ^= 1;
    rig.disk.write_file(&manifest, &changed.encode()).unwrap();
    let error = rig.try_open(|options| options).expect_err("other records");
    assert!(matches!(error, Error::Corrupt { offset: HEADER, .. }), "{error}");
    let db = rig.try_open(|options| options.recovery_mode(RecoveryMode::Salvage)).unwrap();
    let lost: Vec<_> = db.open_report().losses().map(|loss| (loss.offset, loss.bytes)).collect();
    assert_eq!(lost, [(HEADER, rig.disk.read_file(&path).unwrap().len() as u64 - HEADER)]);
    assert_eq!(contents(&db), rig.model, "what can be read is kept");
}

/// A log that ends in clean zeros ends too early if what the manifest knows to be durable is missing,
/// be it a single record.
#[test]
fn a_log_that_ends_before_its_horizon_is_damage() {
    let (mut rig, ..) = sealed(true);
    rig.open();
    let first = rig.files(0, ".seg");
    for key in 0..6_u8 {
        rig.put([key], [key; 35]);
    }
    // Makes the log durable, and notes how far.
    rig.db().merge_chosen(|_, segment| segment == 1).expect("merges");
    for key in 0..3_u8 {
        rig.put([key], [!key; 35]);
    }
    rig.kill();
    let bytes = rig.disk.read_file(Rig::shard_dir(0).join("MANIFEST")).unwrap();
    let horizon = Manifest::decode(&bytes).unwrap().0.horizon;
    let holds = |bytes: &[u8]| bytes.windows(35).any(|window| window == [0xff; 35]);
    let mut segments = rig.files(0, ".seg").into_iter();
    let path = segments.find(|path| holds(&rig.disk.read_file(path).unwrap())).expect("the log");
    assert!(!first.contains(&path));
    let bytes = rig.disk.read_file(&path).unwrap();
    let header = Header::decode(&bytes).unwrap();
    let (mut kept, mut missed) = (0, 0);
    for (offset, frame) in Scanner::new(&bytes, header.salt, HEADER) {
        let Frame::Record(record) = frame else { break };
        let disk = rig.disk.fork();
        let mut cut = bytes.clone();
        cut[offset as usize..].fill(0);
        disk.write_file(&path, &cut).unwrap();
        let options = rig.builder.clone().storage(disk.storage());
        if record.seqno > horizon {
            assert!(options.open().expect("all of it was lost in a crash").len() == 12);
            kept += 1;
        } else {
            let error = options.clone().open().expect_err("a durable record is missing");
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            let db = options.recovery_mode(RecoveryMode::Salvage).open().expect("salvages");
            assert_eq!(db.open_report().losses().count(), 1);
            missed += 1;
        }
    }
    assert!(kept >= 3 && missed >= 6, "{kept} {missed}");
}

/// A header that is damaged, of a sealed segment and of one that was still open.
#[test]
fn a_damaged_header_is_damage() {
    let (mut rig, sealed, _) = sealed(true);
    rig.open();
    rig.put("k", "in the log");
    rig.kill();
    let open = rig.files(0, ".seg").into_iter().find(|path| *path != sealed).expect("another");
    for path in [&sealed, &open] {
        for at in 0..HEADER {
            let disk = rig.disk.fork();
            disk.flip_bit(path, at, (at % 8) as u32).unwrap();
            let options = rig.builder.clone().storage(disk.storage());
            let error = options.clone().open().expect_err("it is damaged");
            assert!(matches!(error, Error::Corrupt { offset: 0, .. }), "byte {at}: {error}");
            // The records say for themselves whose they are.
            let db = options.recovery_mode(RecoveryMode::Salvage).open().expect("salvages");
            assert_eq!(contents(&db), rig.model);
        }
    }
}

/// Whole files that stand in each other's place.
#[test]
fn files_of_others_are_not_taken() {
    let mut rig = Rig::with(tiny(2).snapshot_on_close(false));
    for round in 0..2_u8 {
        for key in 0..40_u8 {
            rig.put([key], [round; 35]);
        }
        rig.seal();
    }
    rig.close();
    let refuses = |from: &Path, to: &Path| {
        let disk = rig.disk.fork();
        disk.write_file(to, &disk.read_file(from).unwrap()).unwrap();
        rig.builder.clone().storage(disk.storage()).open().map(drop).expect_err("of another")
    };
    // Segments of the same shard, of the same length or longer, and of the other shard.
    let segments = [0, 1].map(|shard| {
        let mut files = rig.files(shard, ".seg");
        files.retain(|path| rig.disk.read_file(path).unwrap().len() as u64 > HEADER);
        files
    });
    let len = |path: &Path| rig.disk.read_file(path).unwrap().len();
    let mut swapped = 0;
    for (from, to) in
        segments.iter().flatten().flat_map(|a| segments[0].iter().map(move |b| (a, b)))
    {
        if from != to && len(from) >= len(to) {
            let error = refuses(from, to);
            assert!(matches!(error, Error::Corrupt { offset: 0, .. }), "{error}");
            swapped += 1;
        }
    }
    assert!(swapped > 2, "{segments:?}");
    let manifests = [0, 1].map(|shard| Rig::shard_dir(shard).join("MANIFEST"));
    for (from, to) in [(0, 1), (1, 0)] {
        let error = refuses(&manifests[from], &manifests[to]);
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    // The right shard of the wrong store.
    let (mut manifest, _) = Manifest::decode(&rig.disk.read_file(&manifests[0]).unwrap()).unwrap();
    manifest.uuid.0[3] ^= 1;
    rig.disk.write_file(&manifests[0], &manifest.encode()).unwrap();
    let error = rig.try_open(|options| options).expect_err("of another store");
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// Any byte of either copy of a manifest, or of the store's file: the other copy serves. Both: an
/// error, and nothing is made up.
#[test]
fn one_damaged_copy_is_mended_and_two_are_an_error() {
    let (rig, ..) = sealed(true);
    let manifest = Rig::shard_dir(0).join("MANIFEST");
    for path in [manifest, Path::new(HOME).join("STORE")] {
        let bytes = rig.disk.read_file(&path).unwrap();
        let opens = |damaged: &[u8]| {
            let disk = rig.disk.fork();
            disk.write_file(&path, damaged).unwrap();
            let db = rig.builder.clone().storage(disk.storage()).open()?;
            compare(&db, &rig.model, &rig.keys);
            Ok::<_, Error>((db.open_report().is_clean(), disk.clone()))
        };
        let second = 4096 * (bytes.len() / 4096);
        for at in (0..bytes.len()).filter(|at| at % 7 == 0 || *at > second || *at < 100) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let (is_clean, _) =
                opens(&damaged).unwrap_or_else(|error| panic!("byte {at}: {error}"));
            assert!(!is_clean, "{}: byte {at} is reported", path.display());
        }
        for len in [second - 1, second, second + 10, bytes.len() - 1] {
            opens(&bytes[..len]).unwrap_or_else(|error| panic!("cut at {len}: {error}"));
        }
        let mut damaged = bytes.clone();
        (damaged[20], damaged[second + 20]) = (!damaged[20], !damaged[second + 20]);
        let error = opens(&damaged).map(drop).expect_err("no copy is left");
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        for len in [0, 1, 10, 100] {
            let error = opens(&bytes[..len]).map(drop).expect_err("no copy is left");
            assert!(matches!(error, Error::Damaged { .. }), "cut at {len}: {error}");
        }
    }
}

/// A missing manifest or store file is no empty store.
#[test]
fn missing_metadata_is_an_error() {
    let (rig, ..) = sealed(true);
    for path in [Rig::shard_dir(0).join("MANIFEST"), Path::new(HOME).join("STORE")] {
        let disk = rig.disk.fork();
        disk.remove_file(&path).unwrap();
        let error = rig.builder.clone().storage(disk.storage()).open().expect_err("missing");
        assert!(!error.to_string().is_empty());
        assert!(!disk.exists(&path), "nothing was made in its place");
    }
}

#[test]
fn a_missing_segment_is_never_a_smaller_store() {
    for indexes in [false, true] {
        let (rig, path, _) = sealed(indexes);
        rig.disk.remove_file(&path).unwrap();
        for mode in [RecoveryMode::Default, RecoveryMode::Strict] {
            let error = rig.try_open(|options| options.recovery_mode(mode)).expect_err("missing");
            assert!(matches!(error, Error::MissingSegment { .. }), "{error}");
        }
    }
}

/// An open segment that holds acknowledged, durable writes is gone.
#[test]
fn a_missing_open_segment_is_found_out() {
    let mut rig = Rig::new();
    rig.put_durably("k", "v");
    let path = rig.files(0, ".seg").remove(0);
    rig.kill();
    rig.disk.remove_file(&path).unwrap();
    let error = rig.try_open(|options| options).expect_err("the journal knows of it");
    assert!(matches!(error, Error::MissingSegment { .. }), "{error}");
}

/// Names that are nearly ours, and ours with something else behind them.
#[test]
fn foreign_names_are_left_alone() {
    let mut rig = Rig::new();
    rig.put("k", "v");
    rig.close();
    let shard = Rig::shard_dir(0);
    let files = [
        "7.seg.bak",
        "7.seg",
        "+000000007.seg",
        "0000000001.seg.bak",
        "notes.txt",
        "0000000001.SEG",
        "MANIFEST.bak",
        "KEYDIR.old",
        "x.tmp",
        "hint",
        "00000000001.hint",
    ];
    for name in files {
        rig.disk.write_file(shard.join(name), name.as_bytes()).unwrap();
        rig.disk.write_file(Path::new(HOME).join(name), name.as_bytes()).unwrap();
    }
    // A folder with the name of a segment, of the next one to be used, and of an index.
    let dirs = ["0000009999.seg", "0000000002.seg", "0000000003.seg", "0000009999.hint"];
    for name in dirs {
        rig.disk.storage().create_dir(&shard.join(name)).unwrap();
    }
    // Files of our own patterns that the manifest does not know are ours to remove.
    let orphans = ["0000008888.seg", "0000008888.hint"];
    for name in orphans {
        rig.disk.write_file(shard.join(name), b"orphan").unwrap();
    }
    rig.open();
    for round in 0..30_u8 {
        rig.put([round], [round; 300]);
        rig.settle_down();
    }
    rig.db().compact().unwrap();
    rig.prove();
    for name in files {
        for dir in [&*shard, Path::new(HOME)] {
            assert_eq!(rig.disk.read_file(dir.join(name)).unwrap(), name.as_bytes());
        }
    }
    assert!(dirs.iter().all(|name| rig.disk.exists(shard.join(name))));
    assert!(orphans.iter().all(|name| !rig.disk.exists(shard.join(name))));
}
