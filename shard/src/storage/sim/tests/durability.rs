//! Bytes and lengths over crashes.

use super::*;

const SECTOR: usize = SECTOR_BYTES;

#[test]
fn unsynced_sectors_are_kept_in_every_subset() {
    let (disk, file) = disk_with(&[1; 4 * SECTOR]);
    file.write_all_at(&[2; 4 * SECTOR], 0).unwrap();
    assert_eq!(disk.pending_choices(), 4);
    let (seen, runs) = outcomes(&disk, |disk| {
        let bytes = contents(disk);
        for sector in bytes.chunks(SECTOR) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
        }
        bytes.chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>()
    });
    assert_eq!((seen.len(), runs), (16, 16));
}

#[test]
fn exhaustive_enumeration_is_every_combination_once() {
    let mut all = Exhaustive::new();
    let mut seen = BTreeSet::new();
    let mut runs = 0;
    while all.next_run() {
        let pending = Pending::Sector { file: Path::new("f"), index: 0 };
        // The number of questions depends on the answers: a "no" to the first ends the run.
        if all.keep(&pending) {
            for _ in 0..9 {
                all.keep(&pending);
            }
        }
        seen.insert(all.answers().to_vec());
        runs += 1;
    }
    assert_eq!((seen.len(), runs), (513, 513));
    let answers = [true, false, true];
    let mut replay = Exhaustive::replay(&answers);
    let pending = Pending::Sector { file: Path::new("f"), index: 0 };
    assert_eq!(answers.map(|_| replay.keep(&pending)), answers);
}

#[test]
fn synced_bytes_are_never_lost() {
    let (disk, file) = disk_with(b"");
    let map = file.map(3000, MapMode::Write).unwrap();
    file.write_all_at(&[1; 3000], 0).unwrap();
    map.store_for_tests(700, b"stored");
    file.sync_data().unwrap();
    let expected = contents(&disk);
    assert_eq!(&expected[700..706], b"stored");
    let (seen, _) = outcomes(&disk, contents);
    assert_eq!(seen, BTreeSet::from([expected.clone()]));
    assert_eq!(disk.read_durable("/f"), Some(expected.clone()));
    for seed in 0..50 {
        let fork = disk.fork();
        fork.power_cut(&mut Rng::new(seed));
        assert_eq!(contents(&fork), expected);
    }
}

#[test]
fn stores_through_a_map_are_pending_like_writes() {
    let (disk, file) = disk_with(&[0; 2 * SECTOR]);
    let map = file.map(2 * SECTOR as u64, MapMode::Write).unwrap();
    map.store_for_tests(10, b"x");
    assert_eq!(disk.pending_choices(), 1);
    let (seen, _) = outcomes(&disk, |disk| contents(disk)[10]);
    assert_eq!(seen, BTreeSet::from([0, b'x']));
    // The sync finds stores that came after the map was made, and after an earlier sync.
    file.sync_data().unwrap();
    map.store_for_tests(600, b"y");
    file.sync_data().unwrap();
    disk.power_cut_with(&mut keep_none);
    assert_eq!((contents(&disk)[10], contents(&disk)[600]), (b'x', b'y'));
}

#[test]
fn stores_alone_are_lost_at_once_or_in_a_later_life() {
    for killed_before in [false, true] {
        let (disk, file) = disk_with(&[1; 10]);
        let map = file.map(10, MapMode::Write).unwrap();
        map.store_for_tests(0, b"x");
        if killed_before {
            disk.kill();
            assert_eq!(contents(&disk)[0], b'x');
        }
        disk.power_cut_with(&mut keep_none);
        assert_eq!(contents(&disk), [1; 10]);
    }
}

#[test]
fn the_length_is_lost_apart_from_the_data() {
    let (disk, file) = disk_with(b"old");
    file.write_all_at(&[7; SECTOR], 3).unwrap();
    let (seen, runs) = outcomes(&disk, contents);
    assert_eq!(runs, 4 + 2, "nobody is asked about a sector beyond the end");
    let mut whole = b"old".to_vec();
    whole.extend([7; SECTOR]);
    let mut first_only = whole.clone();
    first_only[SECTOR..].fill(0);
    let mut second_only = whole.clone();
    second_only[3..SECTOR].fill(0);
    let mut neither = b"old".to_vec();
    neither.resize(SECTOR + 3, 0);
    // With the old length, the first sector's new bytes lie beyond the end.
    let expected = [b"old".to_vec(), whole, first_only, second_only, neither];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn every_length_on_the_way_is_possible() {
    let (disk, file) = disk_with(b"");
    file.set_len(100).unwrap();
    file.allocate(0, 900).unwrap();
    file.set_len(500).unwrap();
    let (seen, runs) = outcomes(&disk, |disk| contents(disk).len());
    assert_eq!(seen, BTreeSet::from([0, 100, 500, 900]));
    assert_eq!(runs, 4);
}

#[test]
fn what_a_lost_extension_held_may_be_stale_bytes() {
    let (disk, file) = disk_with(&[1; SECTOR]);
    file.write_all_at(&[2; 4 * SECTOR], 0).unwrap();
    let mut kinds = BTreeSet::new();
    for seed in 0..400 {
        let fork = disk.fork();
        fork.power_cut(&mut Rng::new(seed));
        let bytes = contents(&fork);
        assert!(bytes[..SECTOR].iter().all(|b| *b == bytes[0] && (*b == 1 || *b == 2)));
        for sector in bytes[SECTOR..].chunks(SECTOR) {
            kinds.insert(match sector {
                zeros if zeros.iter().all(|b| *b == 0) => "zeros",
                new if new.iter().all(|b| *b == 2) => "new",
                _ => "stale",
            });
        }
    }
    assert_eq!(kinds, BTreeSet::from(["new", "stale", "zeros"]));
}

#[test]
fn a_killed_process_loses_nothing_the_kernel_has() {
    let (disk, file) = disk_with(&[1; 1000]);
    let map = file.map(1000, MapMode::Write).unwrap();
    file.write_all_at(b"written", 0).unwrap();
    map.store_for_tests(600, b"stored");
    disk.storage().create(Path::new("/g")).unwrap();
    disk.kill();
    assert_eq!(&contents(&disk)[..7], b"written");
    assert_eq!(&contents(&disk)[600..606], b"stored");
    assert_eq!(names(&disk, "/"), ["f", "g"]);
    // It is still not durable: the new life may sync it, or lose it.
    assert_eq!(disk.pending_choices(), 3);
    let lost = disk.fork();
    lost.power_cut_with(&mut keep_none);
    assert_eq!(contents(&lost), [1; 1000]);
    open(&disk).sync_data().unwrap();
    disk.power_cut_with(&mut keep_none);
    assert_eq!(&contents(&disk)[600..606], b"stored");
}

#[test]
fn nothing_of_an_earlier_life_reaches_the_disk() {
    let (disk, file) = disk_with(&[1; 100]);
    let storage = disk.storage();
    let lock = storage.lock(Path::new("/LOCK")).unwrap();
    let map = file.map(100, MapMode::Write).unwrap();
    disk.kill();
    map.store_for_tests(0, b"ghost");
    assert_eq!(map.copy_for_tests(0, 5), b"ghost", "the memory itself stays usable");
    assert!(file.write_all_at(b"ghost", 0).is_err());
    assert!(file.len().is_err());
    assert!(storage.list_dir(Path::new("/")).is_err());
    assert_eq!(contents(&disk), [1; 100]);
    let next = disk.storage();
    let held = next.lock(Path::new("/LOCK")).expect("a dead holder's lock is free");
    drop((lock, file, map));
    assert!(next.lock(Path::new("/LOCK")).is_err(), "a dead guard releases nobody's lock");
    drop(held);
}

#[test]
fn a_seed_replays_a_run() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let storage = disk.storage();
        let mut rng = Rng::new(seed);
        for number in 0..10 {
            let file = storage.create(Path::new(&format!("/{number}"))).unwrap();
            let mut bytes = vec![0; 2000];
            storage.entropy(&mut bytes).unwrap();
            file.write_all_at(&bytes, rng.below(3000)).unwrap();
            if rng.chance(1, 3) {
                storage.sync_dir(Path::new("/")).unwrap();
            }
        }
        disk.power_cut(&mut rng);
        let all = names(&disk, "/").into_iter();
        all.map(|name| (disk.read_file(format!("/{name}")).unwrap(), name)).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_store_beyond_the_allocated_space_is_reported() {
    for (grow, place, stray) in [(0, 150, true), (200, 150, true), (0, 50, false)] {
        let (disk, file) = disk_with(&[1; 100]);
        let map = file.map(1000, MapMode::Write).unwrap();
        file.set_len(100.max(grow)).unwrap();
        map.store_for_tests(place, b"x");
        let killed = std::panic::catch_unwind(|| disk.kill());
        assert_eq!(killed.is_err(), stray);
        // It is reported once; then the disk can be used.
        disk.kill();
    }
    let (disk, file) = disk_with(&[1; 100]);
    let map = file.map(1000, MapMode::Write).unwrap();
    file.allocate(0, 1000).unwrap();
    map.store_for_tests(150, b"x");
    disk.kill();
}

#[test]
fn a_longer_map_shares_memory_with_a_shorter_one_inside_the_reserve() {
    let (disk, file) = disk_with(&[1; 100]);
    disk.set_map_reserve(10_000);
    let short = file.map(100, MapMode::Write).unwrap();
    let long = file.map(9_000, MapMode::Read).unwrap();
    assert_eq!(short.as_ptr(), long.as_ptr());
    let longer =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| file.map(11_000, MapMode::Read)));
    assert!(longer.is_err(), "maps that would not share are refused loudly");
    drop((short, long));
    file.map(11_000, MapMode::Read).unwrap();
}
