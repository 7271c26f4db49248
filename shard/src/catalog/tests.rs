//! What the manifest lists, and when it is written.

use super::*;
use crate::life::{Life, SHARD};

/// Few manifests list open segments, and there are always some left for the next rotations.
#[test]
fn open_segments_are_listed_when_half_of_them_are_used() {
    let mut life = Life::new();
    let mut unused = Vec::new();
    for _ in 0..3 * OPEN_AHEAD {
        life.put("k", "v");
        life.seal();
        unused.push(life.shard().ahead().ids.len());
    }
    let half = OPEN_AHEAD / 2;
    let expected: Vec<_> = (half..=OPEN_AHEAD).rev().cycle().skip(1).take(unused.len()).collect();
    assert_eq!(unused, expected);
    life.prove();
}

/// A record that is larger than a segment gets one of its own, and the empty one before it goes.
#[test]
fn a_segment_that_ended_empty_is_not_listed() {
    let mut life = Life::new();
    life.put("k", &"v".repeat(100 << 10));
    life.seal();
    let manifest = life.shard().catalog.manifest().clone();
    let lens: Vec<_> = manifest.segments.iter().filter_map(|it| Some(it.sealed()?.len)).collect();
    assert!(lens.len() == 1 && lens[0] > 100 << 10, "{lens:?}");
    life.prove();
}

#[test]
fn each_manifest_has_a_higher_generation() {
    let mut life = Life::new();
    let mut last = life.shard().catalog.manifest().generation;
    for value in ["v1", "v2"] {
        life.put("k", value);
        life.seal();
        let now = life.shard().catalog.manifest().generation;
        assert!(now > last);
        last = now;
    }
    let manifest = life.disk.read_file(Path::new(SHARD).join(names::MANIFEST)).unwrap();
    assert_eq!(Manifest::decode(&manifest).unwrap().0.generation, last);
}
