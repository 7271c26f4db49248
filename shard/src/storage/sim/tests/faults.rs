//! Every fault does what it says.

use std::io::ErrorKind;

use rustix::io::Errno;

use super::*;

const EIO: i32 = Errno::IO.raw_os_error();
const ENOSPC: i32 = Errno::NOSPC.raw_os_error();

#[test]
fn the_chosen_call_fails_once() {
    let (disk, file) = disk_with(b"0123");
    disk.faults().clear();
    disk.faults().fail_call(2, Repeat::Once, EIO);
    file.len().unwrap();
    assert_eq!(file.len().unwrap_err().raw_os_error(), Some(EIO));
    file.len().unwrap();
    assert_eq!(disk.faults().calls(), 3);
}

#[test]
fn a_failure_for_good_spares_the_calls_that_cannot_end_so() {
    let (disk, file) = disk_with(b"0123");
    disk.faults().clear();
    disk.faults().fail_call(1, Repeat::ForGood, ENOSPC);
    for _ in 0..2 {
        let error = file.write_all_at(b"x", 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        file.len().unwrap();
        file.sync_data().unwrap();
    }
    disk.faults().clear();
    disk.faults().fail_call(1, Repeat::ForGood, Errno::MFILE.raw_os_error());
    file.write_all_at(b"x", 10).unwrap();
    let error = disk.storage().open(Path::new("/f"), Access::Read).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
}

#[test]
fn interruptions_are_invisible() {
    let (disk, file) = disk_with(b"");
    disk.faults().fail_call(1, Repeat::ForGood, Errno::INTR.raw_os_error());
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents(&disk), b"x");
}

#[test]
fn a_failed_write_leaves_any_prefix_and_nothing_else() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        disk.write_file("/f", b"").unwrap();
        let file = open(&disk);
        disk.faults().clear();
        disk.faults().fail_call(1, Repeat::Once, EIO);
        file.write_all_at(b"abc", 0).unwrap_err();
        assert!(b"abc".starts_with(&contents(&disk)));
        lengths.insert(contents(&disk).len());
    }
    assert_eq!(lengths, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn other_failed_calls_change_nothing() {
    let (disk, file) = disk_with(b"x");
    disk.faults().clear();
    disk.faults().fail_call(1, Repeat::ForGood, EIO);
    let storage = disk.storage();
    let (f, g) = (Path::new("/f"), Path::new("/g"));
    assert!(storage.create(g).is_err());
    assert!(storage.rename(f, g).is_err());
    assert!(storage.remove(f).is_err());
    assert!(storage.hard_link(f, g).is_err());
    assert!(storage.create_dir(g).is_err());
    assert!(storage.lock(g).is_err());
    assert!(storage.open(f, Access::Read).is_err());
    assert!(storage.list_dir(Path::new("/")).is_err());
    assert!(storage.entropy(&mut [0]).is_err());
    assert!(file.set_len(0).is_err());
    assert!(file.allocate(0, 100).is_err());
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    assert!(file.map(1, MapMode::Read).is_err());
    assert!(file.len().is_err());
    assert_eq!(names(&disk, "/"), ["f"]);
    assert_eq!(contents(&disk), b"x");
}

#[test]
fn a_failed_sync_drops_its_pages_and_the_next_one_lies() {
    let (disk, file) = disk_with(&[1; 1024]);
    disk.faults().clear();
    disk.faults().fail_call(3, Repeat::Once, EIO);
    file.write_all_at(&[2; 1024], 0).unwrap();
    file.write_all_at(&[2; 10], 1024).unwrap();
    file.sync_data().unwrap_err();
    assert_eq!(contents(&disk), [2; 1034], "reads still see the bytes");
    file.sync_data().expect("the lie");
    assert_eq!(disk.pending_choices(), 0);
    // A sector that is written again is dirty again.
    file.write_all_at(&[3; 512], 0).unwrap();
    file.sync_data().unwrap();
    disk.power_cut_with(&mut keep_all);
    let mut expected = vec![3; 512];
    expected.resize(1024, 1);
    assert_eq!(contents(&disk), expected);
}

#[test]
fn a_failed_sync_may_drop_some_pages_or_none() {
    let durable_after = |manner, seed| {
        let disk = SimDisk::new(seed);
        disk.write_file("/f", &[1; 2048]).unwrap();
        let file = open(&disk);
        disk.faults().clear();
        disk.faults().set_failed_sync(manner);
        disk.faults().fail_call(2, Repeat::Once, EIO);
        file.write_all_at(&[2; 2048], 0).unwrap();
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        disk.read_durable("/f").unwrap()
    };
    assert_eq!(durable_after(FailedSync::KeepDirty, 0), [2; 2048]);
    let some: BTreeSet<_> =
        (0..200).map(|seed| durable_after(FailedSync::DropSome, seed)).collect();
    assert_eq!(some.len(), 16);
}

#[test]
fn a_failed_directory_sync_drops_its_changes() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    disk.faults().fail_call(3, Repeat::Once, EIO);
    storage.create(Path::new("/f")).unwrap();
    storage.sync_dir(Path::new("/")).unwrap_err();
    storage.sync_dir(Path::new("/")).expect("the lie");
    assert!(disk.exists("/f"));
    disk.power_cut_with(&mut keep_all);
    assert!(!disk.exists("/f"));
}

#[test]
fn a_planned_crash_ends_the_life() {
    for (effect, expected) in [(CrashEffect::Nothing, &b"ab"[..]), (CrashEffect::Whole, b"xy")] {
        let (disk, file) = disk_with(b"ab");
        let map = file.map(2, MapMode::Write).unwrap();
        disk.faults().clear();
        disk.faults().crash_at_call(2, effect);
        file.len().unwrap();
        assert!(!disk.crashed());
        file.write_all_at(b"xy", 0).unwrap_err();
        map.store_for_tests(0, b"!!");
        file.len().unwrap_err();
        assert_eq!(contents(&disk), expected);
        assert!(disk.crashed());
        assert!(!disk.crashed());
        open(&disk).len().expect("the next life is not planned to crash");
    }
}

#[test]
fn a_crash_in_a_call_that_opens_a_file_does_not_hang() {
    let disk = SimDisk::new(1);
    disk.faults().crash_at_call(1, CrashEffect::Whole);
    disk.storage().create(Path::new("/f")).unwrap_err();
    assert!(disk.crashed() && disk.exists("/f"));
}

#[test]
fn a_crash_of_random_effect_tears_writes() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        disk.write_file("/f", b"").unwrap();
        let file = open(&disk);
        disk.faults().clear();
        disk.faults().crash_at_call(1, CrashEffect::Random);
        file.write_all_at(b"abc", 0).unwrap_err();
        seen.insert(contents(&disk));
    }
    let expected = [&b""[..], b"a", b"ab", b"abc"].map(<[u8]>::to_vec);
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_full_disk_takes_what_fits_until_space_is_back() {
    let (disk, file) = disk_with(&[1; 512]);
    disk.faults().set_free_space(Some(1024));
    let storage = disk.storage();
    assert_eq!(file.allocate(0, 512 + 1025).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(contents(&disk).len(), 512);
    file.write_all_at(&[2; 512], 0).expect("space it already has");
    let other = storage.create(Path::new("/g")).expect("one sector for the file itself");
    assert_eq!(other.write_all_at(&[3; 600], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.read_file("/g").unwrap(), [3; 512]);
    assert_eq!(storage.create(Path::new("/h")).unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(storage.hard_link(Path::new("/f"), Path::new("/h")).is_err());
    assert!(storage.create_dir(Path::new("/h")).is_err());

    // An unlinked file gives its space back with its last handle or map.
    let map = file.map(10, MapMode::Read).unwrap();
    storage.remove(Path::new("/f")).unwrap();
    storage.create(Path::new("/h")).unwrap_err();
    drop(file);
    storage.create(Path::new("/h")).unwrap_err();
    drop(map);
    storage.create(Path::new("/h")).unwrap();
    other.set_len(0).unwrap();
    other.allocate(0, 512).unwrap();
    disk.faults().set_free_space(None);
    other.allocate(0, 100_000).unwrap();
}

#[test]
fn switches_and_rules() {
    let (disk, file) = disk_with(b"x");
    disk.faults().set_allocate_unsupported(true);
    assert_eq!(file.allocate(0, 10).unwrap_err().kind(), ErrorKind::Unsupported);
    disk.faults().clear();
    disk.faults().set_read_only(true);
    let storage = disk.storage();
    let error = storage.create(Path::new("/g")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(storage.open(Path::new("/f"), Access::ReadWrite).is_err());
    storage.open(Path::new("/f"), Access::Read).unwrap();
    disk.faults().clear();

    disk.faults().start_trace();
    disk.faults().set_rule(|call| {
        let chosen = call.op == Op::Sync && call.path.ends_with("f");
        if chosen { Verdict::Fail(EIO) } else { Verdict::Proceed }
    });
    file.len().unwrap();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(EIO));
    let trace: Vec<_> =
        disk.faults().take_trace().into_iter().map(|call| (call.number, call.op)).collect();
    assert_eq!(trace, [(1, Op::Len), (2, Op::Sync)]);
}

#[test]
fn rot_flips_one_bit_for_good() {
    let (disk, file) = disk_with(&[0; 2000]);
    let map = file.map(2000, MapMode::Read).unwrap();
    disk.flip_bit("/f", 700, 3).unwrap();
    assert_eq!(map.copy_for_tests(700, 1), [8]);
    assert_eq!(disk.pending_choices(), 0);
    disk.power_cut_with(&mut keep_none);
    let mut expected = vec![0; 2000];
    expected[700] = 8;
    assert_eq!(contents(&disk), expected);
}

#[test]
fn clocks_move_only_on_command() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    let (wall, monotonic) = (storage.wall_ms(), storage.monotonic());
    assert_eq!((storage.wall_ms(), storage.monotonic()), (wall, monotonic));
    disk.advance(1500);
    assert_eq!(storage.wall_ms(), wall + 1500);
    assert_eq!(storage.monotonic(), monotonic + Duration::from_millis(1500));
    disk.set_wall_ms(5);
    assert_eq!(storage.wall_ms(), 5);
    assert_eq!(storage.monotonic(), monotonic + Duration::from_millis(1500));
}

#[test]
fn a_fork_goes_its_own_way() {
    let (disk, file) = disk_with(b"one");
    file.write_all_at(b"two", 0).unwrap();
    let fork = disk.fork();
    file.write_all_at(b"six", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents(&fork), b"two");
    fork.power_cut_with(&mut keep_none);
    assert_eq!(contents(&fork), b"one");
    assert_eq!(contents(&disk), b"six");
}
