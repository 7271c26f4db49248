//! Goes into the package under test. The environment variable `MUTANT` is the number of the mutant
//! that lives in this process; `MUTANTS_MET` names a file with a byte for each, set when its place is
//! met.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

struct Meetings {
    file: File,
    /// Whether the file knows already.
    known: Vec<AtomicBool>,
}

/// Whether the place has this mutant.
#[inline]
pub fn is(number: usize) -> bool {
    static SWITCH: OnceLock<(usize, Option<Meetings>)> = OnceLock::new();
    let (lives, meetings) = SWITCH.get_or_init(|| {
        let lives = std::env::var("MUTANT").map_or(0, |text| text.parse().expect("a number"));
        let meetings = std::env::var_os("MUTANTS_MET").map(|path| {
            let file = File::options().read(true).write(true).open(path).expect("opens");
            let len = file.metadata().expect("measures").len();
            Meetings { file, known: (0..len).map(|_| AtomicBool::new(false)).collect() }
        });
        (lives, meetings)
    });
    if let Some(Meetings { file, known }) = meetings {
        if !known[number].swap(true, Ordering::Relaxed) {
            file.write_all_at(&[1], number as u64).expect("writes");
        }
    }
    *lives == number
}
