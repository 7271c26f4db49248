//! Directory entries over crashes.

use super::*;

#[test]
fn a_synced_file_is_lost_without_a_directory_sync() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    let file = storage.create(Path::new("/f")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_all().unwrap();
    let (seen, _) = outcomes(&disk, |disk| disk.read_file("/f").ok());
    assert_eq!(seen, BTreeSet::from([None, Some(b"x".to_vec())]));
    storage.sync_dir(Path::new("/")).unwrap();
    let (seen, _) = outcomes(&disk, |disk| disk.read_file("/f").ok());
    assert_eq!(seen, BTreeSet::from([Some(b"x".to_vec())]));
}

#[test]
fn a_directory_sync_says_nothing_about_contents() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    storage.create(Path::new("/f")).unwrap().write_all_at(b"x", 0).unwrap();
    storage.sync_dir(Path::new("/")).unwrap();
    let (seen, _) = outcomes(&disk, contents);
    assert_eq!(seen, BTreeSet::from([vec![], vec![0], vec![b'x']]));
}

#[test]
fn a_rename_without_a_directory_sync_can_be_undone() {
    let disk = SimDisk::new(1);
    disk.write_file("/a", b"new").unwrap();
    disk.write_file("/b", b"old").unwrap();
    disk.storage().rename(Path::new("/a"), Path::new("/b")).unwrap();
    let state = |disk: &SimDisk| (names(disk, "/"), disk.read_file("/b").unwrap());
    let old = (vec!["a".to_string(), "b".to_string()], b"old".to_vec());
    let new = (vec!["b".to_string()], b"new".to_vec());
    let (seen, runs) = outcomes(&disk, state);
    assert_eq!((seen, runs), (BTreeSet::from([old, new.clone()]), 2));
    disk.storage().sync_dir(Path::new("/")).unwrap();
    assert_eq!(outcomes(&disk, state).0, BTreeSet::from([new]));
}

#[test]
fn a_rename_whose_create_was_lost_still_arrives() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    let file = storage.create(Path::new("/a")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    storage.rename(Path::new("/a"), Path::new("/b")).unwrap();
    disk.power_cut_with(&mut |pending: &Pending<'_>| {
        matches!(pending, Pending::Entry { op: Op::Rename, .. })
    });
    assert_eq!(names(&disk, "/"), ["b"]);
    assert_eq!(disk.read_file("/b").unwrap(), b"x");
}

#[test]
fn changes_of_one_directory_are_kept_in_every_subset() {
    let disk = SimDisk::new(1);
    disk.write_file("/old", b"").unwrap();
    let storage = disk.storage();
    storage.create(Path::new("/new")).unwrap();
    storage.remove(Path::new("/old")).unwrap();
    storage.create_dir(Path::new("/sub")).unwrap();
    assert_eq!(disk.pending_choices(), 3);
    let (seen, runs) = outcomes(&disk, |disk| names(disk, "/"));
    assert_eq!((seen.len(), runs), (8, 8));
}

#[test]
fn a_lost_directory_takes_its_synced_files_along() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    storage.create_dir(Path::new("/sub")).unwrap();
    let file = storage.create(Path::new("/sub/f")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    storage.sync_dir(Path::new("/sub")).unwrap();
    let lost = disk.fork();
    lost.power_cut_with(&mut keep_none);
    assert!(!lost.exists("/sub"));
    storage.sync_dir(Path::new("/")).unwrap();
    disk.power_cut_with(&mut keep_none);
    assert_eq!(disk.read_file("/sub/f").unwrap(), b"x");
}

#[test]
fn a_move_between_directories_is_whole_after_either_sync() {
    for synced in ["/a", "/b"] {
        let disk = SimDisk::new(1);
        let storage = disk.storage();
        storage.create_dir(Path::new("/a")).unwrap();
        storage.create_dir(Path::new("/b")).unwrap();
        storage.sync_dir(Path::new("/")).unwrap();
        disk.write_file("/a/f", b"x").unwrap();
        storage.rename(Path::new("/a/f"), Path::new("/b/f")).unwrap();
        let both = |disk: &SimDisk| (disk.exists("/a/f"), disk.exists("/b/f"));
        assert_eq!(outcomes(&disk, both).0, BTreeSet::from([(false, true), (true, false)]));
        storage.sync_dir(Path::new(synced)).unwrap();
        assert_eq!(outcomes(&disk, both).0, BTreeSet::from([(false, true)]));
    }
}

#[test]
fn an_unlink_can_be_undone_contents_and_all() {
    let (disk, file) = disk_with(b"still here");
    disk.storage().remove(Path::new("/f")).unwrap();
    drop(file);
    assert!(!disk.exists("/f"));
    let (seen, _) = outcomes(&disk, |disk| disk.read_file("/f").ok());
    assert_eq!(seen, BTreeSet::from([None, Some(b"still here".to_vec())]));
}

#[test]
fn hard_links_share_one_fate_of_contents() {
    let (disk, file) = disk_with(b"one");
    let storage = disk.storage();
    storage.hard_link(Path::new("/f"), Path::new("/g")).unwrap();
    storage.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(b"two", 0).unwrap();
    storage.remove(Path::new("/f")).unwrap();
    storage.sync_dir(Path::new("/")).unwrap();
    let (seen, _) = outcomes(&disk, |disk| disk.read_file("/g").unwrap());
    assert_eq!(seen, BTreeSet::from([b"one".to_vec(), b"two".to_vec()]));
    disk.kill();
    assert_eq!(disk.read_file("/g").unwrap(), b"two");
}

#[test]
fn planted_and_uprooted_files_are_durable_whatever_was_pending() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    storage.create(Path::new("/a")).unwrap();
    storage.rename(Path::new("/a"), Path::new("/b")).unwrap();
    disk.remove_file("/b").unwrap();
    disk.write_file("/a", b"x").unwrap();
    for chooser in [keep_all, keep_none] {
        let fork = disk.fork();
        fork.power_cut_with(&mut { chooser });
        assert_eq!(names(&fork, "/"), ["a"]);
        assert_eq!(fork.read_file("/a").unwrap(), b"x");
    }
}

#[test]
fn files_that_nobody_can_reach_are_forgotten() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    let held = storage.create(Path::new("/held")).unwrap();
    held.write_all_at(b"x", 0).unwrap();
    storage.remove(Path::new("/held")).unwrap();
    for _ in 0..1000 {
        storage.create(Path::new("/f")).unwrap();
        storage.remove(Path::new("/f")).unwrap();
        storage.sync_dir(Path::new("/")).unwrap();
    }
    assert!(disk.state().node_count() < 200);
    assert_eq!(held.len().unwrap(), 1, "a handle keeps its file");
}
