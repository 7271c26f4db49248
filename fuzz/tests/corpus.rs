//! Replays what fuzzing found worth keeping, without a fuzzer: the committed corpus and the seeds.

use caskade_fuzz::{HARNESSES, Harness, seeds};
use std::fs;
use std::path::Path;

fn harness(target: &str) -> Harness {
    let found = HARNESSES.iter().find(|(name, _)| *name == target);
    found.expect("every target has a harness").1
}

/// Runs the harness on each file of the target's corpus.
fn replay(target: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a listed file").path()).collect();
    assert!(!paths.is_empty(), "{} holds no input", dir.display());
    paths.sort();
    let run = harness(target);
    for path in paths {
        let input = fs::read(&path).expect("a corpus file is readable");
        // A panic prints the captured output, so the last name is the culprit's.
        println!("{}", path.display());
        run(&input);
    }
}

macro_rules! replay {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target));
        }
    )*

        /// No harness is left out above.
        #[test]
        fn every_harness_has_a_test() {
            let replayed = [$(stringify!($target)),*];
            assert_eq!(HARNESSES.map(|(name, _)| name), replayed);
        }
    };
}

replay! { record segment_scan hint manifest snapshot store_meta journal names directory operations }

#[test]
fn seeds_hold() {
    let all = seeds::all();
    assert_eq!(all.len(), HARNESSES.len());
    for (target, inputs) in all {
        assert!(!inputs.is_empty(), "{target}");
        let run = harness(target);
        for input in &inputs {
            run(input);
        }
    }
}
